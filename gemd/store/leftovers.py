"""What was left lying: unfinished files that nobody goes on with, files that no variant names.

Only what gemd made itself is looked at; a hub client's own `*.incomplete` files are that client's.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.errors import ConfigError, ContentMismatchError
from gemd.store.disk import is_folder, remove_tree
from gemd.store.hub_cache import LOCK_MODE, PART, CachedRepository
from gemd.store.kept import files_of, real
from gemd.store.layout import Layout
from gemd.store.locks import if_idle
from gemd.store.manifest import Manifest
from gemd.store.notes import read_announced, read_note
from gemd.store.refs import stale_ref_notes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from gemd.store.results import PruneReason

    Discard = Callable[[str, str], int]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Files that go together.

    Attributes:
        paths: Files and folders.
        reason: Why nobody needs them.
        size_bytes: What they take on disk.
        touched: When one of them was written to last; seconds since the epoch.
        lock: Whose flock whoever works on them holds; None if there is no such file.
        model: Id of the model whose operation may be at work on them; empty if it is not known.
        variant: Likewise.
        pulled: Whether it is what an unfinished pull of them has put into the hub's cache, where
            others may need parts of it.

    """

    paths: tuple[Path, ...]
    reason: PruneReason
    size_bytes: int
    touched: float
    lock: Path | None = None
    model: str = ""
    variant: str = ""
    pulled: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look.

    Attributes:
        root: The store's folder.
        hub_cache: The hub client's; None if there is none.

    """

    root: Path
    hub_cache: Path | None = None


def find_leftovers(places: Places) -> list[Leftover]:
    """All there are, however young; those of several models in the order of their paths. Blocks."""
    layout = Layout(places.root)
    named = _named(layout)
    return [
        *_unfinished_blobs(layout),
        *_unfinished_work(places.root),
        *_half_written(places.root),
        *(pulls := list(_unfinished_pulls(layout, named or set()))),
        *_unknown_parts(places.hub_cache, {path for each in pulls for path in each.paths}),
        *_orphans(layout, named),
        *_stale_notes(layout),
        *(each for note in stale_ref_notes(places.root) for each in _some(_of([note], "orphaned"))),
    ]


def remove(leftover: Leftover, places: Places, discard: Discard) -> int | None:
    """Removes it, unless somebody works on it or has taken it up since. Blocks.

    Args:
        leftover: As it was found.
        places: Where that was.
        discard: `Shelf.discard_unfinished`.

    Returns:
        Bytes that are free now; None if it stays.

    Raises:
        OSError: It cannot be removed.

    """
    if leftover.lock is None:
        return _removed(leftover, places, discard)
    in_store = leftover.lock.is_relative_to(places.root)
    with if_idle(leftover.lock, mode=0o600 if in_store else LOCK_MODE) as idle:
        return _removed(leftover, places, discard) if idle else None


def sweep_empty_folders(root: Path) -> None:
    """Removes the folders of single models and variants in which nothing is any more. Blocks."""
    for kind in ("manifests", "begun", "announced", "refs", "used", "work", "made"):
        for folder in sorted((root / kind).glob("*/**/"), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _removed(leftover: Leftover, places: Places, discard: Discard) -> int | None:
    found = _of(leftover.paths, leftover.reason)
    if found is None or found.touched > leftover.touched:
        return None
    if leftover.reason == "orphaned" and _is_named(leftover.paths, places):
        return None
    if leftover.pulled:
        freed = discard(leftover.model, leftover.variant)
        return None if leftover.paths[0].exists() else freed
    for path in leftover.paths:
        remove_tree(path)
    return found.size_bytes


def _is_named(paths: Collection[Path], places: Places) -> bool:
    """Whether a manifest names one of these files now."""
    named = _named(Layout(places.root))
    return named is None or any(real(path) in named for path in paths)


def _named(layout: Layout) -> set[Path] | None:
    """Places and contents of all files of all manifests, by their `real` names.

    None if not all of those can be read.
    """
    found: set[Path] = set()
    for file in layout.manifests.glob("*/*.json"):
        try:
            manifest = Manifest.read(file)
        except (ContentMismatchError, ConfigError):
            # Nobody knows what the damaged one names.
            return None
        if manifest:
            found.add(real(manifest.file(layout.root)))
            for each in files_of(manifest, layout.root):
                found |= {real(each.place), real(each.content)}
    return found


def _unfinished_blobs(layout: Layout) -> Iterator[Leftover]:
    """Parts, wheels and folders of installers, by the file that they were to become."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(layout.partial.glob("*")):
        groups.setdefault(path.name.partition(".")[0], []).append(path)
    for sha256, paths in groups.items():
        yield from _some(_of(paths, "unfinished", lock=layout.lock(sha256)))


def _unfinished_work(root: Path) -> Iterator[Leftover]:
    """Folders in which a variant was being made."""
    for folder in sorted((root / "work").glob("*/*")):
        yield from _some(_of([folder], "unfinished", model=folder.parent.name, variant=folder.name))


def _half_written(root: Path) -> Iterator[Leftover]:
    """What `write_whole` was writing when its process was killed."""
    for pattern in ("manifests/*/.*", "begun/*/.*", "refs/*/*/.*"):
        for path in sorted(root.glob(pattern)):
            yield from _some(_of([path], "unfinished"))


def _unfinished_pulls(layout: Layout, named: Collection[Path]) -> Iterator[Leftover]:
    """What pulls have put into the hub's cache without coming to their end, by their notes."""
    for file in sorted((layout.root / "begun").glob("*/*.json")):
        note = read_note(file)
        if note is None or file.name.startswith("."):
            continue
        repository = CachedRepository.named(Path(note.cache), note.repository)
        paths = [repository.part(each.etag) for each in note.files]
        blobs = [(each, repository.blob(each.etag)) for each in note.files]
        paths += [blob for each, blob in blobs if each.still(blob).ours]
        # Without the note nobody would know of the others.
        there = [file, *(path for path in paths if path.exists() and real(path) not in named)]
        reason: PruneReason = "unfinished" if len(there) > 1 else "orphaned"
        model, variant = file.parent.name, file.stem
        found = _of(
            there, reason, lock=layout.variant_lock(model, variant), model=model, variant=variant
        )
        if found is not None:
            yield replace(found, pulled=True)


def _unknown_parts(cache: Path | None, known: Collection[Path]) -> Iterator[Leftover]:
    """Unfinished files in the hub's cache that no note is about."""
    if cache is None:
        return
    for path in sorted(cache.glob(f"models--*/blobs/*{PART}")):
        if path not in known:
            repository = CachedRepository(cache, path.parents[1].name)
            with contextlib.suppress(ValueError):
                lock = repository.lock(path.name.removesuffix(PART))
                yield from _some(_of([path], "unfinished", lock=lock))


def _orphans(layout: Layout, named: Collection[Path] | None) -> Iterator[Leftover]:
    """Finished files and directories that no manifest names; none while one cannot be read."""
    if named is None:
        return
    for path in sorted(layout.blobs.glob("*")):
        if real(path) not in named:
            lock = layout.lock(path.name.partition(".")[0])
            yield from _some(_of([path], "orphaned", lock=lock))
    for folder in sorted((layout.root / "made").glob("*/*")):
        if not any(path.is_relative_to(real(folder)) for path in named):
            yield from _some(
                _of([folder], "orphaned", model=folder.parent.name, variant=folder.name)
            )


def _stale_notes(layout: Layout) -> Iterator[Leftover]:
    """Notes of an earlier version about files of which nothing is there."""
    for note in sorted((layout.root / "announced").glob("*/*")):
        if not layout.has_unfinished(read_announced(note)):
            yield from _some(_of([note], "orphaned", model=note.parent.name, variant=note.name))


def _some(leftover: Leftover | None) -> Iterator[Leftover]:
    if leftover is not None:
        yield leftover


def _of(
    paths: Collection[Path],
    reason: PruneReason,
    *,
    lock: Path | None = None,
    model: str = "",
    variant: str = "",
) -> Leftover | None:
    """These files as a leftover; None if none of them is there any more."""
    size, touched, seen = 0, 0.0, False
    for path in paths:
        for each in (path, *(path.rglob("*") if is_folder(path) else ())):
            with contextlib.suppress(OSError):
                stat = each.lstat()
                seen = True
                touched = max(touched, stat.st_mtime)
                size += 0 if is_folder(each) else stat.st_size
    if not seen:
        return None
    return Leftover(tuple(paths), reason, size, touched, lock, model, variant)
