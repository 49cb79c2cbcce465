"""How a worker ended, in values that can be logged, shown and decided on."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

TAIL_BYTES = 1024
"""Of standard error that travel with an error; gRPC status details are limited."""
_FAULT_DUMP = "Fatal Python error: "

Rung = Literal["exited", "drained", "closed", "terminated", "killed", "stuck"]
"""What it took to end a worker: nothing, a drain, closing the channel, SIGTERM, SIGKILL;
stuck has not been reaped even after that."""


@dataclass(frozen=True)
class ExitReport:
    """The end of a process.

    Attributes:
        returncode: Exit code; negative the number of the signal that ended it.
        oom_killed: Whether the kernel killed it for lack of memory; None if that cannot
            be known here.
        protocol_error: What was wrong with a frame, if that is why it was killed.
        stalled_s: Seconds without a sign of life, if they are why; else 0.
        lines: The last lines of its standard error.

    """

    returncode: int
    oom_killed: bool | None = False
    protocol_error: str = ""
    stalled_s: float = 0.0
    lines: tuple[str, ...] = ()

    @property
    def signal(self) -> str | None:
        """Name of the signal that ended it."""
        if self.returncode >= 0:
            return None
        try:
            return signal.Signals(-self.returncode).name
        except ValueError:
            return f"signal {-self.returncode}"

    @property
    def stderr_tail(self) -> str:
        """The last whole lines of its standard error, `TAIL_BYTES` at most."""
        return tail(self.lines)

    @property
    def cause(self) -> str:
        """One clause: why it is gone."""
        if self.protocol_error:
            return f"it broke the protocol and was killed ({self.protocol_error})"
        if self.stalled_s:
            return f"it had work and gave no sign of life for {self.stalled_s:g} s, and was killed"
        if self.oom_killed:
            return "the kernel killed it because memory ran out"
        if self.signal == "SIGILL":
            return "it was ended by SIGILL: its engine was built for another processor than this"
        if self.signal is not None:
            return f"it was ended by {self.signal}"
        return f"it exited with code {self.returncode}"

    def advice(self, model: str) -> tuple[str, ...]:
        """What a user can do."""
        load = f"gemctl load {model}"
        if self.stalled_s:
            return (load, f"GEMD_ANSWER_STALL_TIMEOUT={self.stalled_s * 4:g}s gemd")
        return (load,)

    @property
    def metadata(self) -> dict[str, str]:
        """The report for an error's metadata."""
        pairs = {
            "signal" if self.signal else "exit_code": self.signal or str(self.returncode),
            "oom_killed": {True: "true", False: "false", None: "unknown"}[self.oom_killed],
            "stderr": self.stderr_tail,
        }
        if self.protocol_error:
            pairs["protocol_error"] = self.protocol_error
        if self.stalled_s:
            pairs["stalled_seconds"] = f"{self.stalled_s:g}"
        return pairs


@dataclass(frozen=True)
class StopReport:
    """What `Worker.stop` had to do.

    Attributes:
        rung: The last step that was taken.
        seconds: From the first call to the end of the process.
        exit: How it ended; None if it did not.

    """

    rung: Rung
    seconds: float
    exit: ExitReport | None


StuckCallback = Callable[[Callable[[], Awaitable[object]]], None]
"""Takes what waits for the end of a process that outlives SIGKILL."""


def tail(lines: tuple[str, ...], limit: int = TAIL_BYTES) -> str:
    """The last whole lines that fit in `limit` bytes; of a longer last line, its end.

    The Python stack that faulthandler writes after a crash is left out: what the engine
    said before it died would no longer fit.
    """
    lines = _before_fault_dump(lines)
    chosen: list[str] = []
    size = 0
    for line in reversed(lines):
        size += len(line.encode()) + 1
        if size > limit + 1:
            break
        chosen.append(line)
    if lines and not chosen:
        return lines[-1].encode()[-limit:].decode(errors="ignore")
    return "\n".join(reversed(chosen))


def _before_fault_dump(lines: tuple[str, ...]) -> tuple[str, ...]:
    for position, line in enumerate(lines):
        if line.startswith(_FAULT_DUMP):
            return lines[: position + 1]
    return lines
