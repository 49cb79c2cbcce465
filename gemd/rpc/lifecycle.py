"""Who this daemon is, and whether it serves or is on its way out."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Phase(enum.Enum):
    """What the daemon is doing."""

    STARTING = "STARTING"
    SERVING = "SERVING"
    DRAINING = "DRAINING"


class StartedBy(enum.Enum):
    """What started the daemon; decides whether it ends when idle."""

    AUTOSTART = "AUTOSTART"
    SERVICE = "SERVICE"
    MANUAL = "MANUAL"


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change during a run.

    Attributes:
        version: Of gemd.
        instance_id: Random; numbers of events count within one.
        pid: Process id.
        socket: Where it listens.
        tcp_address: Where else; empty if nowhere.
        start_time: Wall-clock seconds.
        started_by: What started it.
        config_path: The settings file; empty if there is none.
        data_path: Where its data are.
        log_path: Its log file; empty if the log goes to standard error only.
        platform: Operating system and machine.

    """

    version: str
    instance_id: str
    pid: int
    socket: Path
    tcp_address: str
    start_time: float
    started_by: StartedBy
    config_path: str
    data_path: str
    log_path: str
    platform: str


class Lifecycle:
    """The run's phase, and the wish to end it.

    Args:
        identity: Who this is.
        changed: Told after every change of phase; must not wait.

    """

    def __init__(self, identity: Identity, *, changed: Callable[[Lifecycle], None]) -> None:
        self.identity = identity
        self.phase = Phase.STARTING
        self.idle_exit_time: Callable[[], float | None] = lambda: None
        """Gives the wall-clock second at which it ends unless it is used, or None."""
        self._changed = changed
        self._ending = asyncio.Event()
        self._hurried = asyncio.Event()

    def enter(self, phase: Phase) -> None:
        """Be in a phase from now on."""
        if phase is not self.phase:
            self.phase = phase
            self._changed(self)

    def end(self, *, at_once: bool = False) -> None:
        """Ask for the end; asking twice means at once, too."""
        if at_once or self._ending.is_set():
            self._hurried.set()
        self._ending.set()

    async def wait_ending(self) -> None:
        """Return when the end was asked for."""
        await self._ending.wait()

    async def wait_hurried(self) -> None:
        """Return when it was asked for at once."""
        await self._hurried.wait()
