"""Removing what a manifest or a note names, and nothing that is somebody else's.

A file goes if gemd put it there, if it still is what gemd put there, and if nothing else needs it:
no other manifest, and in the hub's cache no link of any snapshot.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from gemd.store.disk import size_of_file
from gemd.store.hub_cache import LOCK_MODE, CachedRepository, is_half_made
from gemd.store.kept import Kept, files_of, pointed_at, real, stamp_of
from gemd.store.locks import if_idle
from gemd.store.notes import Note
from gemd.store.refs import give_back_refs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gemd.store.kept import Entry
    from gemd.store.layout import Layout
    from gemd.store.manifest import Manifest
    from gemd.store.notes import Begun


@dataclass(frozen=True)
class Deleted:
    """What a deletion freed.

    Attributes:
        freed_bytes: On disk, unfinished downloads included.
        kept_bytes: Files that another variant shares or that belong to others.

    """

    freed_bytes: int
    kept_bytes: int

    def __add__(self, other: Deleted) -> Deleted:
        return Deleted(self.freed_bytes + other.freed_bytes, self.kept_bytes + other.kept_bytes)


NOTHING = Deleted(0, 0)


class Releasing:
    """Removes files of one store. Every method blocks.

    Args:
        layout: The store.
        entries: Lists its manifests; those of what is to go are not among them any more.

    """

    def __init__(self, layout: Layout, entries: Callable[[], Iterable[Entry]]) -> None:
        self._layout = layout
        self._entries = entries

    def manifest(self, gone: Manifest) -> Deleted:
        """Removes the files of a manifest that is not there any more."""
        root = self._layout.root
        named = self._named()
        if gone.file(root).is_relative_to(root / "made"):
            folder = self._layout.made(gone.model, gone.variant)
            # What was made in its place lies there by now.
            taken = any(place.is_relative_to(real(folder)) for place in named)
            return NOTHING if taken else self._folder(folder)
        result = NOTHING
        gone_files = files_of(gone, root)
        for file in gone_files:
            self._unlink(file, named)
        # Several names may be links to the same bytes.
        for file in {each.content: each for each in gone_files}.values():
            result += self._bytes(file, named)
        for repository in {CachedRepository.around(file.place) for file in gone_files}:
            if repository is not None:
                self._tidy(repository)
        return result

    def note(self, gone: Note, keep: Note | None = None) -> tuple[int, bool]:
        """Removes what an unfinished pull has put into the hub's cache.

        Args:
            gone: What it was about.
            keep: What the next one is about: its files stay.

        Returns:
            Bytes that are free now, and whether the note has done its service: nobody is just
            fetching one of the files.

        """
        repository = CachedRepository.named(Path(gone.cache), gone.repository)
        same = keep is not None and keep.cache == gone.cache
        wanted = {each.etag for each in keep.files} if keep and same else set()
        staying = set(keep.files) if keep and same and keep.commit == gone.commit else set()
        stays = {(each.name, each.etag) for each in staying}
        named = self._named()
        freed, done = 0, True
        for file in gone.files:
            if (file.name, file.etag) in stays:
                continue
            with if_idle(repository.lock(file.etag), mode=LOCK_MODE) as idle:
                if idle:
                    freed += self._begun(repository, gone.commit, file, named, file.etag in wanted)
                done = done and idle
        repository.drop_if_empty(gone.commit)
        self._tidy(repository)
        return freed, done

    def _tidy(self, repository: CachedRepository) -> None:
        give_back_refs(self._layout.root, repository)
        repository.tidy()

    def _named(self) -> set[Path]:
        """Places of all files that a manifest names, by their `real` names."""
        root = self._layout.root
        return {
            real(file.place) for entry in self._entries() for file in files_of(entry.manifest, root)
        }

    def _unlink(self, file: Kept, named: set[Path]) -> None:
        """Removes the link under which a file of the hub's cache is found, if gemd made it."""
        repository = CachedRepository.around(file.place)
        if repository is None or not file.linked or real(file.place) in named:
            return
        if pointed_at(file.place) == file.content and _is_as_brought(file):
            repository.unlink(file.place)

    def _bytes(self, file: Kept, named: set[Path]) -> Deleted:
        size = size_of_file(file.content)
        if real(file.place) in named:
            return Deleted(0, size)
        if file.place.parent == self._layout.blobs:
            file.place.unlink(missing_ok=True)
            return Deleted(size, 0)
        repository = CachedRepository.around(file.place)
        if repository is None or file.content.parent != repository.blobs:
            return Deleted(0, size)
        with if_idle(repository.lock(file.content.name), mode=LOCK_MODE) as idle:
            mine = idle and file.owned and _is_as_brought(file)
            if mine and _unlinked(repository, file.content):
                return Deleted(size, 0)
        return Deleted(0, size)

    def _begun(
        self,
        repository: CachedRepository,
        commit: str,
        file: Begun,
        named: set[Path],
        wanted: bool,  # noqa: FBT001 - a private function
    ) -> int:
        freed = 0
        part, blob = repository.part(file.etag), repository.blob(file.etag)
        file = file.still(blob)
        place = repository.place(commit, file.name)
        if not wanted:
            freed = size_of_file(part)
            part.unlink(missing_ok=True)
        if file.linked and real(place) not in named and pointed_at(place) == blob:
            repository.unlink(place)
        size = size_of_file(blob)
        if file.ours and not wanted and _unlinked(repository, blob):
            freed += size
        return freed

    def _folder(self, folder: Path) -> Deleted:
        size = sum(size_of_file(path) for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder, ignore_errors=True)
        left = sum(size_of_file(path) for path in folder.rglob("*") if path.is_file())
        return Deleted(size - left, left)


def _is_as_brought(file: Kept) -> bool:
    """What was touched since is somebody else's by now."""
    return stamp_of(file.content) in {None, file.stamp}


def note_of(manifest: Manifest, root: Path) -> Note | None:
    """A note of the files in the hub's cache that a manifest names; None if there are none.

    Written before the manifest goes, it leaves a deletion that is cut off to the next one.
    """
    files, note = [], None
    for file in files_of(manifest, root):
        repository = CachedRepository.around(file.place)
        if repository is None or file.content.parent != repository.blobs:
            continue
        commit, _, name = file.place.relative_to(repository.snapshots).as_posix().partition("/")
        begun = {
            "name": name,
            "etag": file.content.name,
            "size_bytes": file.stamp.size_bytes,
            "ours": file.owned,
            "stamp": file.stamp,
            "linked": file.linked,
        }
        files.append(begun)
        note = {
            "cache": str(repository.cache),
            "repository": manifest.origin.rpartition("@")[0],
            "commit": commit,
            "files": files,
        }
    with contextlib.suppress(ValidationError):
        return Note.model_validate(note)
    return None


def _unlinked(repository: CachedRepository, blob: Path) -> bool:
    """Removes a blob unless a link needs it; whether it is gone. Called under its lock."""
    for link in list(repository.links_to(blob)):
        if not is_half_made(link):
            return False
        repository.unlink(link)
    blob.unlink(missing_ok=True)
    return True
