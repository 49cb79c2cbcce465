"""``python -m tests.support.chore``: a piece of work whose order says how it is to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from gemd.errors import InvalidRequestError
from gemd.wire.base import ErrorBody
from gemd.wire.quantize import MadeFile, Order, Progress, Report, Told
from gemd.worker.chore import Chore

FILE = MadeFile(name="f", size_bytes=1, sha256="0" * 64)


def main() -> None:
    """Do what the order's name says."""
    chore = Chore("gemd:test")
    print("a library says hello", flush=True)  # noqa: T201 - this is what is tested
    act = Order.model_validate_json(chore.order).name
    if act == "waits":
        subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
    for count in (1, 2, 3):
        step = Progress(phase="quantizing", current_bytes=count, total_bytes=3)
        chore.progress(lambda: Report(progress=step), always=True)  # noqa: B023 - called at once
    if act == "made":
        chore.say(Report(made=Told(files=(FILE,) * 20_000, kinds={})))
    elif act == "refused":
        error = InvalidRequestError("it cannot be", why="because", metadata={"field": "name"})
        chore.say(Report(error=ErrorBody.of(error)))
    elif act == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "raises":
        raise ValueError("a defect")
    elif act == "garbles":
        chore._out.write("no JSON\n")
        chore._out.flush()
        threading.Event().wait()
    elif act == "waits":
        threading.Event().wait()
    sys.exit(0)


if __name__ == "__main__":
    main()
