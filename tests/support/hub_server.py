"""A model hub on this machine: as much of its protocol as clients need, and its refusals."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from typing import TYPE_CHECKING

from tests.support.file_server import Answer, FileServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


def blob_id(content: bytes) -> str:
    """Git's name of a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class HubServer(FileServer):
    """Repositories with one branch, `main`, at `COMMIT` until something is added at another.

    Attributes:
        token: If set, only requests with this bearer token are let in.
        says_hashes: Whether it says the SHA-256 of a file. It has none of small ones, which it
            keeps in git.
        says_git: Whether it says git's hash of those; proxies are known to drop the header.
        small: Files that it keeps in git, by the end of their names.
        extra_names: Names that its listings have besides those of files.

    """

    def __init__(self) -> None:
        super().__init__()
        self.token = ""
        self.says_hashes = True
        self.says_git = True
        self.small: tuple[str, ...] = (".json", ".jinja", ".md")
        self.extra_names: list[str] = []
        self._commits: dict[str, str] = {}
        self._heads: dict[tuple[str, str], str] = {}

    def add(
        self,
        repository: str,
        file: str,
        content: bytes,
        commit: str = COMMIT,
        revision: str = "main",
    ) -> None:
        """Puts a file into a repository, whose branch is at that commit from then on.

        The file of an earlier commit stays there under that commit.
        """
        self._heads[repository, revision] = commit
        for name in (revision, commit):
            path = f"/{repository}/resolve/{name}/{file}"
            self.files[path] = content
            self._commits[path] = commit

    def add_all(
        self, repository: str, files: Mapping[str, bytes], commit: str = COMMIT, **more: str
    ) -> None:
        """Puts several files into it."""
        for name, content in files.items():
            self.add(repository, name, content, commit, **more)

    def extra_headers(self, path: str) -> Mapping[str, str]:
        """What the hub says about a file."""
        if path.startswith("/api/"):
            return {}
        content = self.files[path]
        headers = {"X-Repo-Commit": self._commits.get(path, COMMIT)}
        if self._is_large(path):
            return headers | {
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            }
        if self.says_git:
            return headers | {"ETag": f'"{blob_id(content)}"'}
        return headers

    def refusal(self, path: str, headers: Message) -> Answer | None:
        """The hub's own ways to say no."""
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return Answer(401)
        if path.startswith("/api/models/"):
            return self._list(path)
        if path.startswith("/api/"):
            return Answer(404)
        if path not in self.files:
            return Answer(404, {"X-Error-Code": "EntryNotFound"})
        return None

    def _is_large(self, path: str) -> bool:
        return self.says_hashes and not path.endswith(self.small)

    def _list(self, path: str) -> Answer | None:
        """Makes the listing that is asked for, a file like any other; or says why there is none."""
        asked, separator, revision = path.removeprefix("/api/models/").partition("/revision/")
        if not separator:
            asked, separator, revision = path.removeprefix("/api/models/").partition("/tree/")
        known = {name for repository, name in self._heads if repository == asked}
        if not known:
            return Answer(404, {"X-Error-Code": "RepoNotFound"})
        revision = urllib.parse.unquote(revision) or "main"
        commit = self._heads.get((asked, revision), revision)
        start = f"/{asked}/resolve/{commit}/"
        files = {
            path.removeprefix(start): content
            for path, content in self.files.items()
            if path.startswith(start)
        }
        if not files:
            return Answer(404, {"X-Error-Code": "RevisionNotFound"})
        if "/tree/" in path:
            listing: object = [self._entry(name, content) for name, content in files.items()]
        else:
            siblings = [self._sibling(name, content) for name, content in files.items()]
            siblings += [self._sibling(name, b"odd") for name in self.extra_names]
            listing = {"id": asked, "sha": commit, "siblings": siblings}
        self.files[path] = json.dumps(listing).encode()
        self.types[path] = "application/json"
        return None

    def _sibling(self, name: str, content: bytes) -> dict[str, object]:
        sibling: dict[str, object] = {"rfilename": name, "size": len(content)}
        if self._is_large(name):
            sha256 = hashlib.sha256(content).hexdigest()
            # Git has a pointer to it, whose hash says nothing about the content.
            sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 133}
            sibling["blobId"] = blob_id(sha256.encode())
        elif self.says_git:
            sibling["blobId"] = blob_id(content)
        return sibling

    def _entry(self, name: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": blob_id(content),
        }
        if self._is_large(name):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 133}
        return entry


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
