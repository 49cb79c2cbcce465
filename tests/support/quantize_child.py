"""``python -m tests.support.quantize_child``: one order in a process that can be killed.

Arguments: the order as JSON, and the number of the system call on files at which the process kills
itself, a write half done; 0 for never. Prints as JSON: the names of these calls, the most
anonymous memory in bytes, processor seconds, and what was made.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemd.wire.quantize import Made, Order

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = ("pwrite", "write", "fsync", "fdatasync", "ftruncate", "replace", "unlink")


def in_child(order: Order, *, kill_at: int = 0) -> dict[str, Any] | None:
    """What the process says; None if it was killed."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.quantize_child",
            order.model_dump_json(),
            str(kill_at),
        ],
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def made_in_child(order: Order) -> Made:
    """What a process that nobody kills makes."""
    said = in_child(order)
    assert said is not None
    return Made.model_validate(said["made"])


class _Calls:
    def __init__(self, kill_at: int) -> None:
        self.names: list[str] = []
        self._kill_at = kill_at

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **named: Any) -> Any:
            self.names.append(name)
            if len(self.names) == self._kill_at:
                if name in {"pwrite", "write"}:
                    descriptor, data, *rest = arguments
                    call(descriptor, data[: len(data) // 2], *rest)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counting


def main() -> None:
    """Carry the order out as the arguments say."""
    order, kill_at = Order.model_validate_json(sys.argv[1]), int(sys.argv[2])
    calls = _Calls(kill_at)
    for name in CALLS:
        setattr(os, name, calls.counted(name, getattr(os, name)))
    # After the calls have been replaced: some are taken by value.
    from gemd.worker.quantize.gguf import GgufSource, finished, make_gguf  # noqa: PLC0415

    peak = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            peak = max(peak, _anonymous_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.process_time()
    made = finished(order)
    if made is None:
        source = GgufSource(
            Path(order.source), discard=order.discard_source, kept=Path(order.target)
        )
        made = make_gguf(order, source, lambda _: None)
    ended.set()
    watcher.join()
    said = {
        "calls": calls.names,
        "anonymous_bytes": peak,
        "seconds": time.process_time() - began,
        "made": made.model_dump(mode="json"),
    }
    sys.stdout.write(json.dumps(said) + "\n")


def _anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(
        int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")
    )


if __name__ == "__main__":
    main()
