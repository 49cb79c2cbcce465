"""Runs `parts` in a process of its own, and again for what is left where that dies.

Imports no engine library: whatever those do, the report is written.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

from gemd.worker.diffusion.selftest.parts import CHECKPOINT, DEVICE, END, SOFTWARE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LIMIT_S: Final = 300.0
"""Without a word. The first use of a GPU may compile kernels for minutes."""
_MODULE: Final = "gemd.worker.diffusion.selftest.parts"
_BEFORE: Final = (SOFTWARE, DEVICE, CHECKPOINT)
"""Parts without which there are no others."""
_TAIL_BYTES: Final = 4096
_SHOWN: Final = 300


@dataclass(slots=True)
class Known:
    """What has been told so far.

    Attributes:
        parts: By name, in the order in which they began.
        made: Names of those that are done.
        current: That has begun and is not done.
        ended: Whether there is nothing left to do.
        problem: What ended it before its time, if that was no part's fault.

    """

    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    current: str | None = None
    ended: bool = False
    problem: str = ""

    def take(self, line: str) -> bool:
        """Take in a line; whether a part begins with it."""
        try:
            told = json.loads(line)
            part, state = told.pop("part"), told.pop("state")
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        if part == END:
            self.ended = True
            return False
        self.parts.setdefault(part, {}).update(told)
        self.current = None if state == "done" else part
        if state == "done":
            self.made.append(part)
        return bool(state == "begun")

    def died(self, how: str) -> None:
        """The process is gone, and with it what it was at."""
        name = self.current
        if name is None:
            # Before the first part or between two: nothing says that another try gets further.
            self.problem, self.ended = how, True
            return
        self.parts[name].update(problem=how, died=True)
        self.made.append(name)
        self.current = None
        self.ended = name in _BEFORE

    def document(self) -> dict[str, Any]:
        """All of it, for a program."""
        before: dict[str, Any] = {
            name: known for name, known in self.parts.items() if name in _BEFORE
        }
        paths = [
            {"name": name, **known} for name, known in self.parts.items() if name not in _BEFORE
        ]
        problem = {"problem": self.problem} if self.problem else {}
        return {**before, "paths": paths, **problem}


def selftest(
    device: str | None,
    *,
    python: Sequence[str] = (sys.executable,),
    limit_s: float = LIMIT_S,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The report on every path.

    Args:
        device: ``cpu`` or ``cuda``; None for the GPU if there is one.
        python: What starts the interpreter.
        limit_s: Seconds after which a process that says nothing is ended.
        tell: Called with the name of each part that begins.

    """
    known = Known()
    while not known.ended:
        before = len(known.made)
        how = _once(known, device, python, limit_s, tell)
        if known.ended:
            break
        if known.current is not None or len(known.made) == before:
            known.died(how)
    return known.document()


def _once(
    known: Known,
    device: str | None,
    python: Sequence[str],
    limit_s: float,
    tell: Callable[[str], None],
) -> str:
    """One process; how it ended."""
    command = [*python, "-P", "-m", _MODULE]
    command += [] if device is None else ["--device", device]
    command += ["--made", *known.made] if known.made else []
    # The interpreter of Triton's computes on a processor what is meant for a GPU: for tests.
    environ = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            return f"its process cannot be started: {error.strerror}"
        assert process.stdout is not None
        try:
            for line in _lines(process.stdout, limit_s):
                if known.take(line):
                    tell(next(reversed(known.parts)))
                if known.ended:
                    return ""
            returncode = process.wait(limit_s)
        except (TimeoutError, subprocess.TimeoutExpired):
            return f"it has not gone on for {limit_s:g} s"
        finally:
            # One that has told everything may still be stuck in a driver.
            process.kill()
            process.wait()
        return _how(returncode, _last_line(errors))


def _lines(stream: IO[bytes], limit_s: float) -> Iterator[str]:
    """Lines of a stream as they come.

    Raises:
        TimeoutError: None has come for too long.

    """
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def pump() -> None:
        with stream:
            for line in stream:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, name="selftest-lines", daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=limit_s)
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            return
        yield line.decode("utf-8", "replace")


def _how(returncode: int, last: str) -> str:
    """How a process ended that had more to do."""
    if returncode >= 0:
        return f"its process ended with {returncode}: {last}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if name == "SIGILL":
        last = "torch was compiled for another processor than this one"
    if name == "SIGKILL":
        last = "it was killed, as happens where memory is short"
    return f"its process died of {name}: {last}"


def _last_line(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _TAIL_BYTES))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:_SHOWN] if lines else "it said nothing"
