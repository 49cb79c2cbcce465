"""Where things lie in the store.

::

    <root>/blobs/<sha256>.gguf              content-addressed, read-only
    <root>/manifests/<model>/<variant>.json written last: what has none is not on disk
    <root>/partial/<sha256>*                unfinished, resumable
    <root>/locks/<sha256>.lock              flock of whoever fetches that blob
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.errors import ConfigError, InvalidRequestError
from gemd.store.disk import FULL

if TYPE_CHECKING:
    from pathlib import Path

_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")


def checked_id(value: str) -> str:
    """The id, if it is a safe file name.

    Raises:
        InvalidRequestError: It is not.

    """
    if not _ID.fullmatch(value):
        raise InvalidRequestError(
            f"{value!r} cannot be the id of something in the store",
            why="ids consist of a-z, 0-9, '.', '_' and '-', and start with a letter or digit",
            metadata={"field": "model", "value": value},
        )
    return value


@dataclass(frozen=True)
class Layout:
    """Paths below the store's root."""

    root: Path

    @property
    def blobs(self) -> Path:
        """Folder of finished files."""
        return self.root / "blobs"

    @property
    def manifests(self) -> Path:
        """Folder of one folder per model."""
        return self.root / "manifests"

    @property
    def partial(self) -> Path:
        """Folder of unfinished files."""
        return self.root / "partial"

    @property
    def _locks(self) -> Path:
        return self.root / "locks"

    def blob(self, sha256: str, suffix: str) -> Path:
        """A finished file; `suffix` with its dot."""
        return self.blobs / f"{sha256}{suffix}"

    def manifest(self, model: str, variant: str) -> Path:
        """The manifest of one variant."""
        return self.manifests / checked_id(model) / f"{checked_id(variant)}.json"

    def part(self, sha256: str) -> Path:
        """The unfinished file whose whole content has that hash."""
        return self.partial / f"{sha256}.part"

    def wheel(self, sha256: str, wheel_sha256: str) -> Path:
        """An unfinished wheel out of which the file `sha256` is made."""
        return self.partial / f"{sha256}.{wheel_sha256[:16]}.whl"

    def unfinished(self, sha256: str) -> list[Path]:
        """Everything in `partial` that was meant to become the file `sha256`."""
        return sorted(self.partial.glob(f"{sha256}.*"))

    def unfinished_bytes(self, sha256: str) -> int:
        """What that takes on disk."""
        return sum(path.stat().st_size for path in self.unfinished(sha256))

    def lock(self, sha256: str) -> Path:
        """The lock file of one blob. It stays; removing it would let two holders in."""
        return self._locks / f"{sha256}.lock"

    def reference(self, path: Path) -> str:
        """A path as manifests have it: relative to the root if it is in the store."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def make(self) -> None:
        """Creates the folders, private to the user.

        Raises:
            ConfigError: The root cannot be used.
            OSError: The disk is full.

        """
        try:
            for folder in (self.root, self.blobs, self.manifests, self.partial, self._locks):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise ConfigError(
                f"cannot keep models in {self.root}",
                why=str(error),
                advice=(f"ls -ld {self.root}", "set GEMD_STORE_DIR to a folder of yours"),
                metadata={"path": self.root, "key": "store_dir"},
            ) from error
