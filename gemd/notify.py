"""What the daemon tells the service manager that started it: systemd's notification protocol.

Datagrams of ``KEY=VALUE`` lines to the socket that NOTIFY_SOCKET names; see sd_notify(3) and
sd_watchdog_enabled(3). READY is said once the daemon serves, STATUS when its line has changed,
WATCHDOG by a task of the event loop, so that a loop that hangs falls silent, and STOPPING when
the end begins. Nothing here waits and nothing raises: a manager that does not listen costs its
notes only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, MutableMapping, Sequence

STATUS_S: Final = 5.0
"""Between two looks at the daemon for its status line."""
_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_LONGEST_STATUS: Final = 400
"""Characters; `systemctl status` shows one line."""
_DIGITS: Final = 20
"""Of the largest number of 64 bits."""
_AGAIN_S: Final = 1.0
"""Until what nobody took is said again."""

log = structlog.get_logger("gemd.notify")


@dataclass(frozen=True, slots=True)
class Link:
    """The way to the service manager.

    Attributes:
        address: A path, or ``@`` and an abstract name.
        watchdog_s: The manager ends a daemon that says nothing for so long; None if it does not.

    """

    address: str
    watchdog_s: float | None = None

    def send(self, message: str) -> bool:
        """Send one datagram; False if nobody takes it now."""
        name = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # A manager that does not read must not stop the event loop.
                sender.setblocking(False)
                sender.connect(name)
                sender.send(message.encode())
        except OSError as error:
            log.debug("notify.failed", error=str(error))
            return False
        return True


def take_link(environ: MutableMapping[str, str], *, pid: int, ours: bool = True) -> Link | None:
    """The way to the manager that started this process; None if none did.

    Its variables are taken out of the environment, so that no child speaks for the daemon.

    Args:
        environ: Of the process.
        pid: Of the process. Variables that are meant for another one were inherited.
        ours: Whether the variables can be meant for this process at all.

    """
    address, interval, watched = (environ.pop(name, "") for name in _VARIABLES)
    started = environ.get("SYSTEMD_EXEC_PID", str(pid))
    if not ours or started != str(pid) or address[:1] not in {"/", "@"} or len(address) == 1:
        return None
    watches = _is_number(interval) and watched in {"", str(pid)}
    watchdog_s = int(interval) / 1e6 if watches else 0.0
    return Link(address, watchdog_s or None)


def _is_number(text: str) -> bool:
    """Whether it is one of 64 bits at the most, as systemd's are."""
    return (
        text.isascii() and text.isdigit() and int(text[:_DIGITS]) < 2**64 and len(text) <= _DIGITS
    )


@dataclass(frozen=True, slots=True)
class Use:
    """Memory of one device in bytes: what models take, of what they may take."""

    device: str
    used_bytes: int
    budget_bytes: int


def status_line(warm: Sequence[str], loading: Sequence[str], memory: Sequence[Use]) -> str:
    """The daemon in one line.

    Args:
        warm: Models that can answer.
        loading: Models that are on their way.
        memory: What all take.

    """
    parts = [f"{len(warm)} warm: {', '.join(warm)}" if warm else "no model is warm"]
    if loading:
        parts.append(f"loading {', '.join(loading)}")
    parts += [
        f"{use.device} {human_bytes(use.used_bytes)} of {human_bytes(use.budget_bytes)}"
        for use in memory
    ]
    return one_line("; ".join(parts))


def one_line(text: str) -> str:
    """A text that can be the value of a message.

    The name of a file may hold a line break, which would begin a message of its own, or what is
    no UTF-8.
    """
    line = "".join(each if each.isprintable() else "?" for each in text)
    return line if len(line) <= _LONGEST_STATUS else f"{line[: _LONGEST_STATUS - 1]}…"


@dataclass(frozen=True, slots=True)
class Said:
    """What the manager knows.

    Attributes:
        ready: Whether it was told that the daemon serves.
        status: The line that it was told last.
        status_time: When; monotonic seconds, as are all times here.
        ping_time: When it had the last sign of life.

    """

    ready: bool = False
    status: str = ""
    status_time: float = float("-inf")
    ping_time: float = float("-inf")


def due(said: Said, now: float, *, status: str, watchdog_s: float | None) -> tuple[str, Said]:
    """The message that is due of a daemon that serves, and what is known after it.

    Args:
        said: What is known before.
        now: Monotonic seconds.
        status: The line that is true now.
        watchdog_s: See `Link`; a sign of life is due after half of it.

    Returns:
        Lines, none if nothing is due; and the state to go on with once they were sent.

    """
    lines = []
    if not said.ready:
        lines.append("READY=1")
        said = replace(said, ready=True)
    if status != said.status and now >= said.status_time + STATUS_S:
        lines.append(f"STATUS={status}")
        said = replace(said, status=status, status_time=now)
    if watchdog_s is not None and now >= said.ping_time + watchdog_s / 2:
        lines.append("WATCHDOG=1")
        said = replace(said, ping_time=now)
    return "\n".join(lines), said


def pause(said: Said, now: float, *, watchdog_s: float | None) -> float:
    """Seconds until the next look: the next sign of life or status line, or the next try."""
    if watchdog_s is None:
        return STATUS_S if said.ready else _AGAIN_S
    half = watchdog_s / 2
    left = said.ping_time + half - now
    # Nothing left: the last one was not taken. Whoever does not read is not asked in a hurry.
    return min(left, STATUS_S) if left > 0 else min(half, _AGAIN_S)


class Sender(Protocol):
    """What a `Link` can do; a test has its own."""

    @property
    def watchdog_s(self) -> float | None:
        """See `Link`."""
        ...

    def send(self, message: str) -> bool:
        """Send one message; False if nobody takes it now."""
        ...


class Telling:
    """Tells a manager how the daemon is, from when it serves.

    Args:
        link: To the manager; None says nothing.
        status: The daemon in one line; asked every few seconds.
        now: Monotonic seconds.

    """

    def __init__(
        self, link: Sender | None, *, status: Callable[[], str], now: Callable[[], float]
    ) -> None:
        self._link = link
        self._status = status
        self._now = now
        self._said = Said()
        self._ending = False

    async def run(self) -> None:
        """Say what is due, for ever."""
        if self._link is None:
            return
        while True:
            self.say(self._link)
            await asyncio.sleep(pause(self._said, self._now(), watchdog_s=self._link.watchdog_s))

    def say(self, link: Sender) -> None:
        """Say what is due now."""
        status = self._said.status if self._ending else self._line()
        message, after = due(self._said, self._now(), status=status, watchdog_s=link.watchdog_s)
        if not message or link.send(message):
            self._said = after

    def end(self) -> None:
        """The end has begun; signs of life go on until it is over."""
        self._ending = True
        if self._link is not None:
            self._link.send("STOPPING=1\nSTATUS=ending: running answers get their time")

    def _line(self) -> str:
        try:
            return self._status()
        except Exception:
            # A line that cannot be made must not silence the signs of life.
            log.exception("notify.status_failed")
            return self._said.status


@contextlib.asynccontextmanager
async def telling(
    link: Sender | None,
    *,
    status: Callable[[], str],
    now: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Telling]:
    """A `Telling` that runs inside, beside whatever else does."""
    teller = Telling(link, status=status, now=now)
    task = asyncio.create_task(teller.run(), name="notify")
    try:
        yield teller
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
