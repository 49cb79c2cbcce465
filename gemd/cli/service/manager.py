"""What `gemctl service` needs of a service manager."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.cli.service.job import Job


class Phase(enum.Enum):
    """Where a service stands; the names are what `gemctl service status --json` prints."""

    RUNNING = "RUNNING"
    STARTING = "STARTING"
    """Its manager starts it, or will do so again in a moment."""
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    """It ended badly; one that is started again after that is STARTING until then."""
    UNKNOWN = "UNKNOWN"
    """Its manager cannot be asked, or says what is not understood."""


@dataclass(frozen=True, slots=True)
class State:
    """The service as its manager sees it.

    Attributes:
        phase: Where it stands.
        detail: The same in the manager's words, such as ``active (running)``.
        error: Why the manager cannot be asked; empty if it can.
        file: What the manager would start it from; None if it has no such file, or does not say.
        enabled: Whether it starts at login; None if unknown.
        pid: Of its daemon; 0 if there is none.
        says: What the daemon said of itself last.
        restarts: How often the manager started it again by itself; 0 also if unknown.

    """

    phase: Phase
    detail: str = ""
    error: str = ""
    file: Path | None = None
    enabled: bool | None = None
    pid: int = 0
    says: str = ""
    restarts: int = 0

    @property
    def active(self) -> bool:
        """Whether it runs, or is about to."""
        return self.phase in {Phase.RUNNING, Phase.STARTING}

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more, and nothing is going to."""
        return self.phase in {Phase.STOPPED, Phase.FAILED}


class Manager(Protocol):
    """systemd or launchd."""

    @property
    def kind(self) -> str:
        """What the file is, such as ``systemd user unit``."""
        ...

    @property
    def hints(self) -> tuple[str, ...]:
        """What is good to know after an installation."""
        ...

    @property
    def start_waits(self) -> bool:
        """Whether `start` returns when the daemon serves, and not before."""
        ...

    def file(self) -> Path:
        """Where the file is, or would be."""
        ...

    def file_of_shell(self) -> Path | None:
        """Where this shell's variables say that the file is, without asking; None if it is not."""
        ...

    def check(self) -> None:
        """Raise CommandError if the manager cannot be asked."""
        ...

    def render(self, job: Job) -> str:
        """The file that starts a job."""
        ...

    def adopt(self, *, changed: bool) -> Iterator[str]:
        """Know the file, and start the service at login; tells what it did.

        Raises:
            CommandError: The manager refuses.

        """
        ...

    def state(self) -> State:
        """The service; never raises."""
        ...

    def start(self) -> None:
        """Start it. Raises CommandError."""
        ...

    def stop(self) -> None:
        """Stop it until it is started or the next login. Raises CommandError."""
        ...

    def restart(self) -> None:
        """Stop and start it. Raises CommandError."""
        ...

    def abandon(self) -> Iterator[str]:
        """Stop it and start it no more; tells what it did, also where it could not be asked."""
        ...

    def forget(self) -> None:
        """Notice that the file is gone."""
        ...

    def log(self, *, lines: int, follow: bool) -> Iterator[str]:
        """Lines of its log, oldest first. Raises CommandError."""
        ...
