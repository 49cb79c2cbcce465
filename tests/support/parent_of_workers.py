"""A program that starts two workers, says their process ids, and waits to be killed.

Arguments: how the first one is stuck (idle, event, c, gil), and where (load, answer).
"""

from __future__ import annotations

import asyncio
import sys

from gemd.engine.worker import Worker
from tests.support.workers import generate, spec, stalled


async def main(stall: str, where: str) -> None:
    """Print ``stalled`` once they are as they should be."""
    other = await Worker.start(spec(model="other"))
    if where == "load":

        def log(line: str) -> None:
            print(line, flush=True)  # noqa: T201 - read by the test

        await Worker.start(spec(stall_at=0, stall=stall), log=log)
    worker = await Worker.start(spec())
    if stall != "idle":
        stream = worker.generate(generate(count=2, stall_at=1, stall=stall))
        await anext(stream)
        await stalled(worker)
    print("stalled", worker.pid, other.pid, flush=True)  # noqa: T201 - read by the test
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
