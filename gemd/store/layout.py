"""Where things lie in the store.

::

    <root>/blobs/<sha256>.gguf              content-addressed, read-only: from packages, and from
                                            the hub if an earlier version fetched it
    <root>/made/<model>/<variant>/          what was quantized here
    <root>/work/<model>/<variant>/          what is being quantized
    <root>/manifests/<model>/<variant>.json written last: what has none is not on disk
    <root>/used/<model>/<variant>           empty; its time is that of the last use
    <root>/partial/<sha256>.*               unfinished, resumable
    <root>/begun/<model>/<variant>.json     what an unfinished pull puts into the hub's cache
    <root>/refs/<cache>/<repository>/       what refs of the hub's cache meant before a pull
    <root>/announced/<model>/<variant>      hash of a file that an earlier version left unfinished
    <root>/locks/<name>.lock                flock of whoever fetches that blob or variant

What comes from the hub lies in the user's own hub cache (`gemd.store.hub_cache`).
"""

from __future__ import annotations

import contextlib
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.errors import ConfigError, InvalidRequestError
from gemd.store.disk import FULL, remove_tree, size_of_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
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

    def made(self, model: str, variant: str) -> Path:
        """Folder of a variant that was quantized here."""
        return self.root / "made" / checked_id(model) / checked_id(variant)

    def work(self, model: str, variant: str) -> Path:
        """Folder in which a variant is being quantized."""
        return self.root / "work" / checked_id(model) / checked_id(variant)

    @property
    def _begun(self) -> Path:
        return self.root / "begun"

    @property
    def _announced(self) -> Path:
        return self.root / "announced"

    @property
    def _locks(self) -> Path:
        return self.root / "locks"

    def blob(self, sha256: str, suffix: str) -> Path:
        """A finished file; `suffix` with its dot."""
        return self.blobs / f"{sha256}{suffix}"

    def manifest(self, model: str, variant: str) -> Path:
        """The manifest of one variant."""
        return self.manifests / checked_id(model) / f"{checked_id(variant)}.json"

    def begun(self, model: str, variant: str) -> Path:
        """The note of what a pull puts into the hub's cache, until it has ended."""
        return self._begun / checked_id(model) / f"{checked_id(variant)}.json"

    def replaced(self, model: str, variant: str) -> Path:
        """The note of what a variant had in the hub's cache before, until that is gone."""
        return self._begun / checked_id(model) / f"{checked_id(variant)}.replaced.json"

    def announced(self, model: str, variant: str) -> Path:
        """A note of an earlier version: which file was being fetched for a variant."""
        return self._announced / checked_id(model) / checked_id(variant)

    def variants(self, model: str) -> set[str]:
        """Ids of those variants of a model that have a manifest or such a note."""
        found = {file.stem for file in (self.manifests / checked_id(model)).glob("*.json")}
        found |= {note.stem for note in (self._begun / checked_id(model)).glob("*.json")}
        found |= {note.name for note in (self._announced / checked_id(model)).glob("*")}
        return {each for each in found if _ID.fullmatch(each)}

    def part(self, sha256: str) -> Path:
        """The unfinished file whose whole content has that hash."""
        return self.partial / f"{sha256}.part"

    def wheel(self, sha256: str, wheel_sha256: str) -> Path:
        """An unfinished wheel out of which the file `sha256` is made."""
        return self.partial / f"{sha256}.{wheel_sha256[:16]}.whl"

    def second_way(self, sha256: str) -> Path:
        """Folder in which an installer works on the file `sha256`."""
        return self.partial / f"{sha256}.second-way"

    def has_unfinished(self, sha256: str) -> bool:
        """Whether anything is there that was meant to become the file `sha256`."""
        return bool(self._unfinished(sha256))

    def unfinished_bytes(self, sha256: str) -> int:
        """What everything takes on disk that was meant to become the file `sha256`."""
        return sum(map(size_of_tree, self._unfinished(sha256)))

    def discard_unfinished(self, sha256: str) -> int:
        """Removes that; how many bytes it took."""
        freed = self.unfinished_bytes(sha256)
        for path in self._unfinished(sha256):
            remove_tree(path)
        return freed

    def _unfinished(self, sha256: str) -> list[Path]:
        if not sha256:
            return []
        return sorted(self.partial.glob(f"{sha256}.*"))

    def lock(self, name: str) -> Path:
        """The lock file of one blob, by its hash, or of one variant (`variant_lock`).

        It stays; removing it would let two holders in.
        """
        return self._locks / f"{name}.lock"

    def variant_lock(self, model: str, variant: str) -> Path:
        """The lock file of a variant of several files."""
        return self.lock(f"{checked_id(model)}.{checked_id(variant)}")

    def reference(self, path: Path) -> str:
        """A path as manifests have it: relative to the root if it is in the store."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def make(self) -> None:
        """Creates the folders, and those above them, private to the user.

        Raises:
            ConfigError: Everybody may write to the root.
            OSError: A folder cannot be made.

        """
        for folder in reversed([self.root, *self.root.parents]):
            # One by one: `parents` would leave those above to the umask.
            folder.mkdir(mode=0o700, exist_ok=True)
        for folder in (self.blobs, self.manifests, self.partial, self._begun, self._locks):
            folder.mkdir(mode=0o700, exist_ok=True)
        mode = stat.S_IMODE(self.root.stat().st_mode)
        if mode & stat.S_IWOTH:
            raise self._unfit(
                f"everybody may write to it (mode {mode:04o}), also files of theirs",
                f"chmod o-w {self.root}",
            )

    @contextlib.contextmanager
    def refusals(self) -> Iterator[None]:
        """Turns what the file system refuses inside the block into `ConfigError`.

        A full disk passes: it is no matter of settings (`disk_errors`).
        """
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise
            raise self._unfit(str(error), f"ls -ld {self.root}") from error

    def _unfit(self, why: str, advice: str) -> ConfigError:
        return ConfigError(
            f"cannot keep models in {self.root}",
            why=why,
            advice=(advice, 'export GEMD_STORE_DIR="$HOME/models"'),
            metadata={"path": self.root, "key": "store_dir"},
        )
