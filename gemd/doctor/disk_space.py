"""`disk-space`: what models take, what is free for them and for state, and what would still fit."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.catalog import Catalog
from gemd.doctor.catalogue import AUTO, embedded
from gemd.doctor.diagnosis import CannotCheckError, conclude, failure, warning
from gemd.doctor.folders import look_at
from gemd.doctor.words import quoted
from gemd.errors import GemdError
from gemd.quantities import format_bytes
from gemd.quantities import human_bytes as size
from gemd.store import Store, Transport
from gemd.store.disk import SPARE_BYTES
from gemd.store.leftovers import Places
from gemd.store.prune import Stock, Wish, foretold, plan, take_stock
from gemd.store.snapshots import hub_cache
from gemd.store.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "disk-space"
STATE_BYTES: Final = 16 * 2**20
"""What the log, operations and corrections together may take."""
PRUNE_BYTES: Final = 256 * 2**20
"""Leftovers of this size are worth a word."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is free in a directory's file system.

    Attributes:
        path: The directory, or the nearest above it that exists.
        free_bytes: What this user may still write.
        free_files: How many files more may be made; None where the file system has no limit.

    """

    path: Path
    free_bytes: int
    free_files: int | None = None


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """Room, and what is wanted of it.

    Attributes:
        store: Where models are.
        state: Where state and log are.
        absent: Bytes of each model of the catalogue that is not on disk, by id.
        default: Id of the model that answers where none is named, or would if it were there.
        used_bytes: What gemd fetched or made of models, unfinished files included.
        quota_bytes: The most that this may be; 0 for no limit.
        leftover_bytes: What `gemctl prune` would free without a further wish.

    """

    store: Room
    state: Room
    absent: tuple[tuple[str, int], ...] = ()
    default: str = ""
    used_bytes: int = 0
    quota_bytes: int = 0
    leftover_bytes: int = 0


def examine_disk_space(around: Surroundings, _: Errand) -> Diagnosis:
    """Look at the file systems and judge."""
    paths, catalog = around.paths, _catalog(around)
    stock = _stock(around)
    gone = plan(stock, Wish(), now=time.time())
    return check_disk_space(
        DiskFacts(
            store=_room(paths.store_dir, around.root),
            state=_room(paths.state_dir, around.root),
            absent=tuple(_absent(around, catalog)),
            default=_default(around, catalog),
            used_bytes=stock.owned_bytes,
            quota_bytes=around.settings.store_quota,
            leftover_bytes=foretold(stock, gone).freed_bytes,
        )
    )


def check_disk_space(facts: DiskFacts) -> Diagnosis:
    """Judge them."""
    where = f"{size(facts.store.free_bytes)} free for models in {facts.store.path}"
    if facts.absent:
        name, least = min(facts.absent, key=lambda each: each[1])
        where += f"; the smallest that is not there, {name}, takes {size(least)}"
    if facts.used_bytes:
        limit = f" of {size(facts.quota_bytes)}" if facts.quota_bytes else ""
        where += f"; those that gemd put there take {size(facts.used_bytes)}{limit}"
    return conclude(NAME, _findings(facts), facts=where)


def _findings(facts: DiskFacts) -> Iterator[Finding]:
    store, state = facts.store, facts.state
    free_up = ("gemctl list", "gemctl rm MODEL", f"df -h {quoted(store.path)}")
    if store.free_bytes < SPARE_BYTES:
        yield failure(
            f"no model can be pulled: the disk of {store.path} is full, {size(SPARE_BYTES)} are "
            "always left free",
            *free_up,
        )
    else:
        for name, needed in facts.absent:
            missing = needed + SPARE_BYTES - store.free_bytes
            if name == facts.default and missing > 0:
                yield warning(
                    f"the model {name} ({size(needed)}) does not fit: {size(missing)} are missing",
                    *free_up,
                )
    yield from _about_the_store(facts)
    if state.free_bytes < STATE_BYTES:
        yield failure(
            f"{size(state.free_bytes)} free for state and log in {state.path}, they need up to "
            f"{size(STATE_BYTES)}",
            f"df -h {quoted(state.path)}",
        )
    for room in {store.path: store, state.path: state}.values():
        if room.free_files == 0:
            yield failure(
                f"no more files can be made in {room.path}, though there is space",
                f"df -i {quoted(room.path)}",
            )


def _about_the_store(facts: DiskFacts) -> Iterator[Finding]:
    if 0 < facts.quota_bytes < facts.used_bytes:
        yield warning(
            f"models take {size(facts.used_bytes)}, more than the quota of "
            f"{size(facts.quota_bytes)} (store_quota)",
            "gemctl list --variants",
            f"gemctl prune --keep {format_bytes(facts.quota_bytes)}",
        )
    if facts.leftover_bytes >= PRUNE_BYTES:
        yield warning(
            f"{size(facts.leftover_bytes)} are left of pulls and quantizations that did not end, "
            "or belong to nothing any more",
            "gemctl prune",
        )


def _stock(around: Surroundings) -> Stock:
    root, cache = around.paths.store_dir, hub_cache(around.environ)
    return take_stock(Store(root).entries(), Usage(root), Places(root, cache))


def _room(folder: Path, root: Path) -> Room:
    nearest = look_at(folder, root=root).nearest
    try:
        found = os.statvfs(nearest)
    except OSError as error:
        raise CannotCheckError(f"{nearest}: {error.strerror}") from None
    return Room(
        nearest,
        found.f_bavail * found.f_frsize,
        found.f_favail if found.f_files else None,
    )


def _catalog(around: Surroundings) -> Catalog:
    try:
        return around.catalog()
    except GemdError:
        # Another check says so.
        return Catalog(())


def _absent(around: Surroundings, catalog: Catalog) -> Iterator[tuple[str, int]]:
    """Id and bytes of what could be pulled."""
    store = Store(around.paths.store_dir, transport=Transport(environ=around.environ))
    for profile in catalog.profiles:
        to_be_had = [each for each in profile.variants if not each.made_here]
        if to_be_had and not store.on_disk(profile):
            yield profile.id, to_be_had[0].size_bytes


def _default(around: Surroundings, catalog: Catalog) -> str:
    """Id of the model that answers where none is named, or would if it were there."""
    name = around.settings.default_model
    try:
        if name != AUTO:
            return catalog.resolve(name).id
    except GemdError:
        return name
    first = embedded(catalog)
    return around.planned() or ("" if first is None else first.id)
