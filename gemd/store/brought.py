"""What a pull has brought into the hub's cache, as a manifest tells it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gemd.catalog.sources import HubSource
from gemd.store.http import redacted
from gemd.store.manifest import Part, Stamp, listing_sha256
from gemd.store.request import Got

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gemd.catalog.sources import RepositorySource
    from gemd.store.hub import HubFile
    from gemd.store.hub_cache import CachedRepository
    from gemd.store.notes import Begun


@dataclass(frozen=True)
class Brought:
    """A verified file in the cache.

    Attributes:
        file: As the hub has it.
        content: Where its bytes are.
        sha256: Of them.
        stamp: Of when they were verified.
        begun: What of it is gemd's.

    """

    file: HubFile
    content: Path
    sha256: str
    stamp: Stamp
    begun: Begun


def got_of(
    repository: CachedRepository,
    source: HubSource | RepositorySource,
    commit: str,
    brought: Sequence[Brought],
) -> Got:
    """All files of a pull, one or several, the first one fetched first."""
    first = brought[0]
    got = Got(
        path=repository.snapshot(commit),
        source="hub",
        origin=f"{source.repository}@{commit}",
        sha256=first.sha256,
        stamp=first.stamp,
        url=redacted(first.file.url),
        owned=first.begun.ours,
        linked=first.begun.linked,
    )
    if isinstance(source, HubSource):
        place = repository.place(commit, source.file)
        got = replace(got, path=place, hub_file=source.file)
        if len(brought) == 1:
            return got
    hashes = {each.file.name: each.sha256 for each in brought}
    total = sum(each.stamp.size_bytes for each in brought)
    parts = sorted((_part(each, source) for each in brought), key=lambda part: part.name)
    return replace(
        got,
        sha256=listing_sha256(hashes),
        stamp=Stamp(size_bytes=total, mtime_ns=0, inode=0),
        parts=tuple(parts),
    )


def _part(brought: Brought, source: HubSource | RepositorySource) -> Part:
    name = brought.file.name
    if isinstance(source, HubSource):
        name = name.rpartition("/")[2]
    return Part(
        name=name,
        path=str(brought.content),
        sha256=brought.sha256,
        stamp=brought.stamp,
        owned=brought.begun.ours,
        linked=brought.begun.linked,
    )
