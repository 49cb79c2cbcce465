"""A service manager's end of NOTIFY_SOCKET."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 60.0


@dataclass
class NotifySocket:
    """Takes what daemons say.

    Attributes:
        address: A path, or ``@`` and an abstract name.
        heard: All messages so far, each as its lines.

    """

    address: str
    heard: list[list[str]] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path) -> Self:
        """One that is a file."""
        return cls(str(path))

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0", 1))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def next(self, *, seconds: float = PATIENCE_S) -> list[str] | None:
        """The next message; None if none comes in time."""
        self._socket.settimeout(seconds)
        try:
            lines = self._socket.recv(65536).decode().split("\n")
        except (TimeoutError, BlockingIOError):
            return None
        self.heard.append(lines)
        return lines

    def until(self, line: str) -> list[str]:
        """The next message that has a line which begins so."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            lines = self.next(seconds=1)
            if lines is not None and any(each.startswith(line) for each in lines):
                return lines
        raise AssertionError(f"nobody said {line}: {self.heard}")
