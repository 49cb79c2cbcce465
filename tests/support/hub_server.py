"""A model hub on this machine: as much of its protocol as clients need, and its refusals."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tests.support.file_server import Answer, FileServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(FileServer):
    """Repositories with one revision, `main`, at `COMMIT`.

    Attributes:
        token: If set, only requests with this bearer token are let in.

    """

    def __init__(self) -> None:
        super().__init__()
        self.token = ""

    def add(self, repository: str, file: str, content: bytes) -> None:
        """Puts a file into a repository."""
        for revision in ("main", COMMIT):
            self.files[f"/{repository}/resolve/{revision}/{file}"] = content

    def extra_headers(self, path: str) -> Mapping[str, str]:
        """What the hub says about a large file."""
        content = self.files[path]
        return {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
        }

    def refusal(self, path: str, headers: Message) -> Answer | None:
        """The hub's own ways to say no."""
        if path.startswith("/api/"):
            return Answer(404)
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return Answer(401)
        if path not in self.files:
            return Answer(404, {"X-Error-Code": "EntryNotFound"})
        return None


GATED = Answer(403, {"X-Error-Code": "GatedRepo"})
"""What the hub says about a repository whose terms this account has not accepted."""
