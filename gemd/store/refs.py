"""Refs of the hub's cache that meant something to others before gemd moved them.

::

    <root>/refs/<mark of the cache>/<repository>/<mark of the revision>.json

Whoever has another commit of a repository finds it through its ref, above all offline. A pull moves
that, as the hub's own client would; a deletion gives it back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gemd.store.disk import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.store.hub_cache import CachedRepository

_COMMIT: Final = r"^[0-9a-f]{40}$"
_MARK: Final = 16


class Moved(BaseModel):
    """A ref that was moved.

    Attributes:
        repository: The folder of the repository.
        revision: The ref.
        before: What it meant to others.
        now: What gemd has made of it.

    """

    model_config = ConfigDict(frozen=True)

    repository: str
    revision: str
    before: str = Field(pattern=_COMMIT)
    now: str = Field(pattern=_COMMIT)


def move_ref(root: Path, repository: CachedRepository, revision: str, commit: str) -> None:
    """Lets a ref mean a commit, and notes in the store at `root` what it meant. Blocks."""
    before = repository.commit(revision)
    if before not in {"", commit, revision} and repository.snapshot(before).is_dir():
        note = _folder(root, repository) / f"{_mark(revision)}.json"
        earlier = _read(note)
        if earlier is not None and earlier.now == before:
            before = earlier.before
        moved = Moved(
            repository=str(repository.folder), revision=revision, before=before, now=commit
        )
        write_whole(note, moved.model_dump_json().encode() + b"\n")
    repository.point(revision, commit)


def give_back_refs(root: Path, repository: CachedRepository) -> None:
    """Lets refs to commits that are gone mean again what they meant to others. Blocks."""
    for note, moved in _notes(_folder(root, repository)):
        if repository.commit(moved.revision) == moved.now:
            if repository.snapshot(moved.now).is_dir():
                continue
            if repository.snapshot(moved.before).is_dir():
                repository.point(moved.revision, moved.before)
        note.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        _folder(root, repository).rmdir()
        _folder(root, repository).parent.rmdir()


def stale_ref_notes(root: Path) -> Iterator[Path]:
    """Notes about repositories that are not there any more. Blocks."""
    for note, moved in _notes(root / "refs", "*/*/"):
        if not Path(moved.repository).exists():
            yield note


def _folder(root: Path, repository: CachedRepository) -> Path:
    return root / "refs" / _mark(os.path.realpath(repository.cache)) / repository.folder_name


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_MARK]


def _notes(folder: Path, below: str = "") -> Iterator[tuple[Path, Moved]]:
    for note in sorted(folder.glob(f"{below}*.json")):
        moved = _read(note)
        if moved is not None:
            yield note, moved


def _read(note: Path) -> Moved | None:
    try:
        return Moved.model_validate_json(note.read_bytes())
    except (OSError, ValidationError):
        return None
