"""``python -m tests.support.chore_parent ACT``: a daemon that has begun a piece of work."""

from __future__ import annotations

import asyncio
import os
import sys

from gemd.engine.chores import run_chore
from gemd.rpc.quantize_process import parsed
from gemd.wire.quantize import Order


async def main() -> None:
    """Print the process's id once it works."""
    pids: list[int] = []
    told: list[int] = []

    def report(_: object) -> None:
        if not told:
            told.append(pids[0])
            print(pids[0], flush=True)  # noqa: T201 - for the test

    await run_chore(
        "tests.support.chore",
        Order(source="/s", target="/t", name=sys.argv[1], quantization="Q4_0"),
        subject="the test",
        parse=parsed,
        report=report,
        environ=os.environ,
        born=pids.append,
    )


if __name__ == "__main__":
    asyncio.run(main())
