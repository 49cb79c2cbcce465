"""What of the catalogue is on disk, and what all of it takes there. Looking blocks."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from gemd.rpc.convert.models import DiskUse, OnDisk
from gemd.store.found import is_there, size_of
from gemd.store.hub_cache import CachedRepository
from gemd.store.kept import files_of, pointed_at
from gemd.store.leftovers import Places
from gemd.store.prune import held_of, take_stock
from gemd.store.quota import exclusive_bytes
from gemd.store.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from gemd.catalog import Profile, Variant
    from gemd.store import Entry, Store


def on_disk(store: Store, profiles: Iterable[Profile]) -> dict[str, dict[str, OnDisk]]:
    """What is there, by model and variant, with what was rejected."""
    usage = Usage(store.root)
    entries = {
        (entry.manifest.model, entry.manifest.variant): entry
        for entry in store.entries()
        # What was found to be damaged is told of, also where somebody has written to it since.
        if entry.intact or (entry.manifest.rejection and entry.path.exists())
    }
    holdings = [held_of(entry, usage.since(entry), store.root) for entry in entries.values()]
    elsewhere = _linked_elsewhere(store, entries.values())
    exclusive = {held.key: exclusive_bytes(held, holdings, elsewhere) for held in holdings}
    return {
        profile.id: {
            variant.id: found
            for variant in profile.every_variant
            if (found := _found(store, profile, variant, entries, exclusive, usage))
        }
        for profile in profiles
    }


def disk_use(store: Store, profiles: Iterable[Profile], *, quota_bytes: int) -> DiskUse:
    """What models take there."""
    entries = store.entries()
    stock = take_stock(entries, Usage(store.root), Places(store.root, store.hub_cache))
    shared: dict[str, int] = {}
    recorded = set()
    for entry in entries:
        if entry.intact:
            recorded.add((entry.manifest.model, entry.manifest.variant))
        shared |= {
            str(each.content): each.stamp.size_bytes
            for each in files_of(entry.manifest, store.root)
            if each.is_intact()
        }
    for held in (*stock.holdings, *stock.lost):
        shared = {path: size for path, size in shared.items() if path not in held.files}
    for profile in profiles:
        for variant in profile.every_variant:
            if (profile.model, variant.id) in recorded:
                # Its files are counted by now, one by one.
                continue
            path = store.as_found(variant)
            if path is not None and is_there(variant, path):
                shared.setdefault(str(path), size_of(variant, path))
    return DiskUse(
        owned_bytes=stock.owned_bytes,
        shared_bytes=sum(shared.values()),
        quota_bytes=quota_bytes,
        free_bytes=_free(store.root),
    )


def _found(
    store: Store,
    profile: Profile,
    variant: Variant,
    entries: Mapping[tuple[str, str], Entry],
    exclusive: Mapping[tuple[str, str], int],
    usage: Usage,
) -> OnDisk | None:
    key = (profile.model, variant.id)
    entry = entries.get(key)
    if entry is not None and entry.manifest.is_about(variant):
        manifest = entry.manifest
        return OnDisk(
            size_bytes=manifest.stamp.size_bytes,
            source=manifest.source,
            origin=manifest.origin,
            verified=manifest.last_verified.timestamp(),
            exclusive_bytes=exclusive[key],
            last_used=usage.last(*key),
            path=str(entry.path),
            rejection=manifest.rejection,
        )
    path = store.as_found(variant)
    if path is not None and is_there(variant, path):
        return OnDisk(
            # Of an own file whose profile says another size, what a load finds.
            size_bytes=size_of(variant, path),
            source="local",
            origin=str(path),
            verified=None,
            exclusive_bytes=0,
            last_used=usage.last(*key),
            path=str(path),
        )
    return None


def _linked_elsewhere(store: Store, entries: Iterable[Entry]) -> set[str]:
    """Blobs of the hub's cache to which there are links that gemd did not make."""
    files = [file for entry in entries for file in files_of(entry.manifest, store.root)]
    ours = {file.place for file in files if file.linked}
    around = {CachedRepository.around(file.place) for file in files}
    return {
        str(pointed_at(place))
        for repository in around
        if repository is not None
        for place in repository.snapshots.rglob("*")
        if place not in ours and place.is_symlink()
    }


def _free(folder: Path) -> int:
    """Free bytes where the folder is, or will be; 0 if that cannot be told."""
    for each in (folder, *folder.parents):
        try:
            return shutil.disk_usage(each).free
        except FileNotFoundError:
            continue
        except OSError:
            break
    return 0
