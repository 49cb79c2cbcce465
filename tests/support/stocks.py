"""Variants and leftovers in a store, put there by hand."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gemd.store.hub_cache import CachedRepository
from gemd.store.layout import Layout
from gemd.store.manifest import Manifest, Part, Stamp, listing_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gemd.store.shelf import Shelf

NOW = 1_800_000_000.0
"""What the clocks of these tests say, in seconds since the epoch."""
DAY = 86_400.0
COMMIT = "c" * 40


def blob(
    store: Shelf,
    model: str,
    data: bytes,
    *,
    variant: str = "q4",
    age_s: float = 0,
    now: float = NOW,
) -> Path:
    """A variant of one file among the store's blobs; `age_s` is how long ago it was pulled."""
    layout = Layout(store.root)
    layout.make()
    sha256 = hashlib.sha256(data).hexdigest()
    path = layout.blob(sha256, ".gguf")
    path.write_bytes(data)
    aged(path, age_s, now=now)
    store.record(
        Manifest(
            model=model,
            variant=variant,
            path=layout.reference(path),
            sha256=sha256,
            stamp=Stamp.of(path.stat()),
            source="python-package",
            origin="tiny==1.0",
            created=datetime.fromtimestamp(now - age_s, UTC),
        )
    )
    return path


def snapshot(
    store: Shelf,
    cache: Path,
    model: str,
    files: Mapping[str, bytes],
    *,
    ours: bool = True,
    age_s: float = 0,
) -> Path:
    """A variant of several files in the hub's cache; `ours` is whether gemd put them there."""
    Layout(store.root).make()
    repository = CachedRepository.named(cache, f"someone/{model}")
    repository.make(COMMIT)
    parts = []
    for name, data in files.items():
        etag = hashlib.sha256(data).hexdigest()
        content = repository.blob(etag)
        content.write_bytes(data)
        repository.link(COMMIT, name, etag)
        stamp = Stamp.of(content.stat())
        parts.append(
            Part(name=name, path=str(content), sha256=etag, stamp=stamp, owned=ours, linked=ours)
        )
    folder = repository.snapshot(COMMIT)
    stat = folder.stat()
    store.record(
        Manifest(
            model=model,
            variant="bf16",
            path=str(folder),
            sha256=listing_sha256({part.name: part.sha256 for part in parts}),
            stamp=Stamp(
                size_bytes=sum(len(data) for data in files.values()),
                mtime_ns=stat.st_mtime_ns,
                inode=stat.st_ino,
            ),
            parts=tuple(parts),
            owned=ours,
            source="hub",
            origin=f"someone/{model}@{COMMIT}",
            hub_revision="main",
            created=datetime.fromtimestamp(NOW - age_s, UTC),
        )
    )
    return folder


def left(path: Path, data: bytes = b"left", *, age_s: float = 2 * DAY, now: float = NOW) -> Path:
    """A file that was left lying so long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return aged(path, age_s, now=now)


def aged(path: Path, age_s: float, *, now: float = NOW) -> Path:
    """The file, last written to so long ago."""
    os.utime(path, (now - age_s, now - age_s))
    return path
