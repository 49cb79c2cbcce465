"""What `gemctl service` needs of a service manager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.cli.service.job import Job


@dataclass(frozen=True, slots=True)
class State:
    """The service as its manager sees it.

    Attributes:
        text: In the manager's words, such as ``active (running)``; why, if it cannot be asked.
        known: Whether the manager could be asked.
        active: Whether it runs, or is about to.
        enabled: Whether it starts at login; None if unknown.
        pid: Of its daemon; 0 if there is none.
        says: What the daemon said of itself last.
        restarts: How often the manager started it again by itself.

    """

    text: str
    known: bool = True
    active: bool = False
    enabled: bool | None = None
    pid: int = 0
    says: str = ""
    restarts: int = 0


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

    def file(self) -> Path:
        """Where the file is, or would be."""
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
