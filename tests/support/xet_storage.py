"""Xet storage in a folder: the library's own, filled by the library itself.

It takes the place of the servers, of which none can be had here; everything else is real.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.support.hub_server import COMMIT, SparseHub

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message
    from pathlib import Path

    from tests.support.file_server import Answer

_FILL = """
import sys, hf_xet
commit = hf_xet.XetSession().new_upload_commit(endpoint="local://" + sys.argv[1])
upload = commit.start_upload_file(sys.argv[2], hf_xet.COMPUTE_SHA256)
hash = upload.result().xet_info.hash
commit.wait_to_finish()
sys.stdout.write(hash)
"""


class XetStorage:
    """Contents by their Xet hash, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"local://{self.folder}"

    def put(self, content: bytes) -> str:
        """Stores a content; its hash. In a process of its own, as the library wants threads."""
        file = self.folder / "content"
        file.write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-I", "-c", _FILL, str(self.folder), str(file)],
            check=True,
            capture_output=True,
            text=True,
            env={"HOME": str(self.folder), "PATH": os.environ["PATH"]},
        )
        file.unlink()
        return done.stdout


class XetHub(SparseHub):
    """A hub that keeps all files in Xet storage.

    Attributes:
        xet_hashes: Xet's hash of a file by its path in the repository.

    """

    def __init__(self, storage: XetStorage) -> None:
        super().__init__()
        self._storage = storage
        self.xet_hashes: dict[str, str] = {}

    def add(
        self,
        repository: str,
        file: str,
        content: bytes,
        commit: str = COMMIT,
        revision: str = "main",
    ) -> None:
        """As of any hub, hashed once."""
        super().add(repository, file, content, commit, revision)
        sha256 = hashlib.sha256(content).hexdigest()
        for name in (revision, commit):
            self.hashes[f"/{repository}/resolve/{name}/{file}"] = sha256

    def extra_headers(self, path: str) -> Mapping[str, str]:
        """With where the file is in the storage."""
        repository, resolved, rest = path.partition("/resolve/")
        if not resolved:
            return {}
        headers = dict(super().extra_headers(path))
        name = rest.partition("/")[2]
        if name in self.xet_hashes:
            headers["X-Xet-Hash"] = self.xet_hashes[name]
            route = f"{self.url}/api/models{repository}/xet-read-token/{COMMIT}"
            headers["X-Xet-Refresh-Route"] = route
        return headers

    def refusal(self, path: str, headers: Message) -> Answer | None:
        """Passes for the storage are handed out to whom the hub lets in."""
        if "/xet-read-token/" not in path or self.token not in headers.get("Authorization", ""):
            return super().refusal(path, headers)
        given = {
            "casUrl": self._storage.endpoint,
            "accessToken": "a pass",
            "exp": int(time.time()) + 900,
        }
        self.files[path] = json.dumps(given).encode()
        self.types[path] = "application/json"
        return None
