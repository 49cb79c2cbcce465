"""The files of a manifest as they lie on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.store.manifest import Stamp

if TYPE_CHECKING:
    from gemd.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest, and whether its files are there as it describes.

    Attributes:
        manifest: What is said to be there.
        path: Where: the file, the first part of a split one, or the directory.
        intact: Size, time and inode of every file are those of when it was hashed.

    """

    manifest: Manifest
    path: Path
    intact: bool

    @classmethod
    def of(cls, manifest: Manifest, root: Path) -> Entry:
        """Looks at the files of a manifest in the store at `root`."""
        files = files_of(manifest, root)
        return cls(manifest, manifest.file(root), all(each.is_intact() for each in files))


@dataclass(frozen=True, slots=True)
class Kept:
    """One file that a manifest names.

    Attributes:
        place: Where it is found.
        content: Where its bytes are; another path if the place is a link.
        sha256: As `Part`.
        stamp: As `Part`.
        owned: As `Part`.
        linked: As `Part`.

    """

    place: Path
    content: Path
    sha256: str
    stamp: Stamp
    owned: bool
    linked: bool

    def is_intact(self) -> bool:
        """Whether it looks as it did when it was hashed."""
        return stamp_of(self.place) == self.stamp


def stays_ours(before: Stamp, now: Stamp | None) -> bool:
    """Whether a file of the hub's cache is the one that gemd put there, be it moved with its time.

    Inodes tell little: file systems use that of a removed file for the next one.
    """
    return now is None or now.mtime_ns == before.mtime_ns


def files_of(manifest: Manifest, root: Path) -> tuple[Kept, ...]:
    """The files that a manifest in the store at `root` names, in its order."""
    if not manifest.parts:
        place = manifest.file(root)
        return (
            Kept(
                place,
                pointed_at(place),
                manifest.sha256,
                manifest.stamp,
                manifest.owned,
                manifest.linked,
            ),
        )
    folder = manifest.folder(root)
    return tuple(
        Kept(folder / part.name, root / part.path, part.sha256, part.stamp, part.owned, part.linked)
        for part in manifest.parts
    )


def places_of(manifest: Manifest, root: Path) -> set[Path]:
    """Where those files are found."""
    return {each.place for each in files_of(manifest, root)}


def real(place: Path) -> Path:
    """The place by the real name of its folder; it may be a link itself.

    A folder has several names where a cache was moved and a link left in its place.
    """
    return Path(os.path.realpath(place.parent), place.name)


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file, through links; None if it cannot be looked at."""
    try:
        return Stamp.of(path.stat())
    except OSError:
        return None


def pointed_at(place: Path) -> Path:
    """What a link points at, one step far; the path itself if it is no link.

    A blob of the hub's cache may be a link as well, to what several repositories share.
    """
    try:
        target = place.readlink()
    except OSError:
        return place
    return Path(os.path.normpath(place.parent / target))
