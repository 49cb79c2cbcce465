"""The steps of a quantization that look at disks: sources, their hashes, room, what was asked for.

Everything here blocks, and belongs into a thread.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.catalog.quantizations import predicted_bytes
from gemd.catalog.sources import HubSource, RepositorySource
from gemd.errors import ModelNotFoundError
from gemd.footprint.split import part_paths
from gemd.store.disk import CHUNK_BYTES, require_space, sha256_of
from gemd.store.hub_cache import CachedRepository
from gemd.store.provenance import Recipe, SourceFile, SourceNote

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.catalog import Variant
    from gemd.rpc.quantize_choice import Wanted
    from gemd.store import ModelFile
    from gemd.store.provenance import Provenance
    from gemd.store.threads import Stop

_READ: Final = (".safetensors", ".json", ".jinja", ".model")
"""Endings of those files of a checkpoint that are read or copied."""
_SHARD_BYTES: Final = 5 * 10**9
"""The most that a file of a checkpoint has, as the hub's tools split them."""


def recipe_of(wanted: Wanted, *, dense: bool, importance: str, stop: Stop) -> Recipe:
    """What was asked for, with what the importance matrix is.

    Raises:
        ModelNotFoundError: There is no such importance matrix.

    """
    digest = ""
    if importance:
        try:
            digest = sha256_of(Path(importance), check=stop.check)
        except OSError as error:
            raise _unreadable(Path(importance), error) from None
    return Recipe(quantization=wanted.quantization, quantize_dense=dense, importance_sha256=digest)


def source_files(path: Path) -> list[Path]:
    """The files of a source: of a directory, of a split GGUF file, or the one."""
    if path.is_dir():
        return sorted(each for each in path.iterdir() if each.name.endswith(_READ))
    return list(part_paths(path))


def note_of_found(
    wanted: Wanted,
    path: Path,
    before: SourceNote | None,
    advance: Callable[[int], None],
    stop: Stop,
) -> SourceNote:
    """What is known of a source that nobody has hashed: all of it is read.

    Args:
        wanted: What it is for.
        path: Where it is.
        before: What an earlier try noted; files that are as they were then are not read again.
        advance: Told about so many more bytes.
        stop: The word to stop.

    Raises:
        ModelNotFoundError: It is gone, or cannot be read.

    """
    known = {
        (file.name, file.size_bytes, file.mtime_ns): file
        for file in (before.files if before else ())
    }
    files = []
    for file in source_files(path):
        try:
            found = file.stat()
            same = known.get((file.name, found.st_size, found.st_mtime_ns))
            files.append(same or _hashed(file, found, advance, stop))
        except OSError as error:
            raise _unreadable(file, error) from None
        if same:
            advance(found.st_size)
    return SourceNote(
        source=wanted.source_name,
        path=str(path),
        quantization=wanted.source.quantization if wanted.source else "",
        origin=str(path),
        files=tuple(files),
    )


def note_of_variant(wanted: Wanted, file: ModelFile, *, fetched: bool) -> SourceNote:
    """What is known of a source that a manifest describes."""
    manifest = file.manifest
    assert manifest is not None
    assert wanted.source is not None
    parts = [(part.name, part.stamp, part.sha256) for part in manifest.parts] or [
        (Path(manifest.path).name, manifest.stamp, manifest.sha256)
    ]
    return SourceNote(
        source=wanted.source_name,
        path=str(file.path),
        quantization=wanted.source.quantization,
        origin=manifest.origin,
        files=tuple(
            SourceFile(
                name=name, size_bytes=stamp.size_bytes, mtime_ns=stamp.mtime_ns, sha256=sha256
            )
            for name, stamp, sha256 in parts
        ),
        fetched=fetched,
        manifest=manifest if fetched else None,
    )


def changed_file(note: SourceNote, *, gone: bool = False) -> str:
    """Name of a file of a source that is not the one any more whose hash was noted; else empty.

    Blocks: looks at each.

    Args:
        note: Of the source.
        gone: Whether files may be missing: they are being used up.

    """
    path = Path(note.path)
    folder = path if path.is_dir() else path.parent
    for file in note.files:
        try:
            found = (folder / file.name).stat()
        except OSError:
            if gone:
                continue
            return file.name
        if (found.st_size, found.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
            return file.name
    return ""


def is_made_of(made: Provenance, wanted: Wanted, recipe: Recipe) -> bool:
    """Whether that is what is wanted now. Blocks: looks at the user's own source.

    Of a model of the catalogue any source is as good as another.
    """
    if made.recipe != recipe:
        return False
    if wanted.path is None:
        return True
    noted = {file.name for file in made.source.files}
    there = {file.name for file in source_files(wanted.path)}
    return (
        made.source.source == wanted.source_name
        and noted == there
        and not changed_file(made.source)
    )


def check_room(
    wanted: Wanted,
    *,
    root: Path,
    cache: Path | None,
    discard: bool,
    disk_usage: Callable[[Path], tuple[int, int, int]],
) -> None:
    """Whether a source that is still to be fetched, and what is made of it, fit together.

    What is on disk already is the quantizer's to check, which knows to the byte what it writes.

    Raises:
        DiskFullError: They do not.

    """
    source = wanted.source
    assert source is not None
    made = predicted_bytes(source.size_bytes, source.quantization.upper(), wanted.quantization)
    if discard:
        # Each file goes when it is used up: at any moment there is one too many.
        made = min(made, _SHARD_BYTES)
    place = _existing(root)
    fetched_to = place if cache is None else _existing(cache)
    missing = max(0, source.size_bytes - _there(source, cache))
    if os.stat(place).st_dev == os.stat(fetched_to).st_dev:  # noqa: PTH116 - as it is said
        require_space(missing + made, place, disk_usage)
        return
    require_space(missing, fetched_to, disk_usage)
    require_space(made, place, disk_usage)


def _there(source: Variant, cache: Path | None) -> int:
    """Bytes of a repository that the hub's cache has, finished or not."""
    if cache is None:
        return 0
    repositories = {
        each.repository for each in source.sources if isinstance(each, HubSource | RepositorySource)
    }
    total = 0
    for repository in repositories:
        blobs = CachedRepository.named(cache, repository).blobs
        try:
            total += sum(entry.stat().st_size for entry in os.scandir(blobs))
        except OSError:
            continue
    return total


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next((each for each in (folder, *folder.parents) if each.exists()), folder)


def _hashed(
    file: Path, found: os.stat_result, advance: Callable[[int], None], stop: Stop
) -> SourceFile:
    told = 0

    def check() -> None:
        nonlocal told
        stop.check()
        step = min(CHUNK_BYTES, found.st_size - told)
        told += step
        advance(step)

    return SourceFile(
        name=file.name,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        sha256=sha256_of(file, check=check),
    )


def _unreadable(path: Path, error: OSError) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{path} cannot be read",
        why=error.strerror or type(error).__name__,
        advice=(f"ls -l {path}",),
        metadata={"path": path},
    )
