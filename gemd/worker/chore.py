"""What a process that does one piece of work and ends does first: see `gemd.engine.chores`.

It ties itself to its daemon, steps behind everything else that the desktop does, and takes its
order. Reports leave on what was the standard output; whatever a library prints goes where errors
go.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import resource
import threading
import time
from typing import TYPE_CHECKING, Final

from gemd.worker.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.wire.base import Message

_NICE: Final = 19
_INTERVAL_S: Final = 0.1
_READ_BYTES: Final = 1 << 16


class Chore:
    """This process, its order taken.

    Args:
        name: What the system shows it as.
        clock: Monotonic seconds.

    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--parent", required=True, type=int, help="process id of the daemon")
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        guard(parent=parser.parse_args().parent, name=name)
        _step_back()
        self._clock = clock
        self._told = -_INTERVAL_S
        self.order = _first_line()
        """The order as it came, in JSON."""

    def progress(self, message: Callable[[], Message], *, always: bool = False) -> None:
        """Says how far it is, ten times a second at most.

        Args:
            message: Makes the report; called only if it is said.
            always: Say it whenever the last one was; of a new phase.

        """
        now = self._clock()
        if always or now - self._told >= _INTERVAL_S:
            self._told = now
            self.say(message())

    def say(self, message: Message) -> None:
        """Says something at once; nothing if nobody hears it any more."""
        with contextlib.suppress(BrokenPipeError):
            self._out.write(message.model_dump_json(exclude_none=True) + "\n")
            self._out.flush()


def _first_line() -> bytes:
    """The first line of the standard input; the end of that ends the process at any time."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        # Not through sys.stdin: its lock would be held while the interpreter ends.
        kept = b""
        while data := os.read(0, _READ_BYTES):
            kept += data
            if kept.endswith(b"\n"):
                lines.put(kept)
        os._exit(0)

    threading.Thread(target=read, name="reader", daemon=True).start()
    return lines.get()


def _step_back() -> None:
    """Lowest priority for the processor and the disk, and no core dump of gigabytes."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    # A container may forbid it, macOS does not have it, and a worker of another interpreter may
    # lack psutil: it is then as fast as the others.
    with contextlib.suppress(Exception):
        import psutil  # noqa: PLC0415 - as said

        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
