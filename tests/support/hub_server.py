"""A model hub on this machine: as much of its protocol as clients need, and its refusals."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tests.support.file_server import Answer, FileServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class HubServer(FileServer):
    """Repositories with one branch, `main`, at `COMMIT` until something is added at another.

    Attributes:
        token: If set, only requests with this bearer token are let in.
        says_hashes: Whether it says the SHA-256 of a file. It has none of small ones, which it
            keeps in git, and proxies are known to drop the header.

    """

    def __init__(self) -> None:
        super().__init__()
        self.token = ""
        self.says_hashes = True
        self._commits: dict[str, str] = {}

    def add(self, repository: str, file: str, content: bytes, commit: str = COMMIT) -> None:
        """Puts a file into a repository, whose branch is at that commit from then on.

        The file of an earlier commit stays there under that commit.
        """
        for revision in ("main", commit):
            path = f"/{repository}/resolve/{revision}/{file}"
            self.files[path] = content
            self._commits[path] = commit

    def extra_headers(self, path: str) -> Mapping[str, str]:
        """What the hub says about a large file."""
        content = self.files[path]
        headers = {
            "X-Repo-Commit": self._commits.get(path, COMMIT),
            "X-Linked-Size": str(len(content)),
        }
        if self.says_hashes:
            return headers | {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
        # As of a file in git: the hash of its blob.
        blob = b"blob %d\0" % len(content) + content
        return headers | {"ETag": f'"{hashlib.sha1(blob, usedforsecurity=False).hexdigest()}"'}

    def refusal(self, path: str, headers: Message) -> Answer | None:
        """The hub's own ways to say no."""
        if path.startswith("/api/"):
            return Answer(404)
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return Answer(401)
        if path not in self.files:
            return Answer(404, {"X-Error-Code": "EntryNotFound"})
        return None


class SparseHub(HubServer):
    """A hub with files of any size, of which it knows hashes without reading them."""

    def __init__(self) -> None:
        super().__init__()
        self.hashes: dict[str, str] = {}

    def extra_headers(self, path: str) -> Mapping[str, str]:
        """As a hub says it about a large file."""
        return {
            "X-Repo-Commit": self._commits.get(path, COMMIT),
            "X-Linked-Size": str(len(self.files[path])),
            "X-Linked-Etag": f'"{self.hashes.get(path, "ab" * 32)}"',
        }


GATED = Answer(403, {"X-Error-Code": "GatedRepo"})
"""What the hub says about a repository whose terms this account has not accepted."""
