"""What a clean-up removes: the plan, out of what lies in the store.

Looking (`take_stock`) blocks; planning is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.store import quota
from gemd.store.kept import files_of
from gemd.store.leftovers import Leftover, find_leftovers
from gemd.store.quota import Holding
from gemd.store.results import Pruned, PrunedItem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from gemd.store.kept import Entry
    from gemd.store.leftovers import Places
    from gemd.store.quota import Key
    from gemd.store.results import PruneReason
    from gemd.store.usage import Usage

LEFTOVER_S: Final = 86_400.0
"""An unfinished file is left alone for a day: who pulled yesterday may go on today."""


@dataclass(frozen=True, slots=True)
class Stock:
    """All that lies in the store, as far as it is gemd's.

    Attributes:
        holdings: Variants whose files are there.
        lost: Variants of which a file is gone; their `files` are what is left.
        leftovers: Unfinished and orphaned files.

    """

    holdings: tuple[Holding, ...] = ()
    lost: tuple[Holding, ...] = ()
    leftovers: tuple[Leftover, ...] = ()

    @property
    def owned_bytes(self) -> int:
        """What all of it takes on disk."""
        loose = sum(each.size_bytes for each in self.leftovers)
        return quota.owned_bytes((*self.holdings, *self.lost)) + loose


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall go besides leftovers.

    Attributes:
        unused_for_s: Variants that were not used for so long; None: none for that reason.
        keep_bytes: Variants until at most so much is left; None: none for that reason.

    """

    unused_for_s: float | None = None
    keep_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Going:
    """One thing that goes: either a leftover or a variant.

    Attributes:
        item: What is told of it.
        leftover: Its files, if it is no variant.
        holding: The variant as it was when the plan was made.

    """

    item: PrunedItem
    leftover: Leftover | None = None
    holding: Holding | None = None


@dataclass(frozen=True, slots=True)
class Spared:
    """What does not go, whatever is wished.

    Attributes:
        models: Ids of models that are loaded, pinned or worked on.
        busy: Models and variants on whose unfinished files an operation works.
        last: Variants that go only when no other one is left.

    """

    models: Collection[str] = ()
    busy: Collection[Key] = ()
    last: Collection[Key] = ()


NOTHING_SPARED: Final = Spared()


def plan(stock: Stock, wish: Wish, *, now: float, spared: Spared = NOTHING_SPARED) -> list[Going]:
    """What goes, in that order: leftovers, what lost its files, what is unused, what is too much.

    Args:
        stock: What there is.
        wish: What is asked for.
        now: Seconds since the epoch.
        spared: What stays.

    """
    old = [
        each
        for each in stock.leftovers
        if each.touched < now - LEFTOVER_S and (each.model, each.variant) not in spared.busy
    ]
    lost = [held for held in stock.lost if held.model not in spared.models]
    # What a lost one still has is shared with nobody who would miss it: it is no model any more.
    staying = sum(each.size_bytes for each in stock.leftovers if each not in old)
    staying += quota.owned_bytes(held for held in stock.lost if held not in lost)
    variants = _variants(stock, wish, now=now, spared=spared, staying=staying)
    return [
        *(Going(_loose_item(each), leftover=each) for each in old),
        *_in_turn((*((held, _ORPHANED) for held in lost), *variants), stock),
    ]


def foretold(stock: Stock, going: Iterable[Going]) -> Pruned:
    """What a clean-up of that stock would end with."""
    items = tuple(each.item for each in going)
    kept = stock.owned_bytes - sum(item.size_bytes for item in items)
    return Pruned(dry_run=True, items=items, kept_bytes=kept)


def take_stock(entries: Iterable[Entry], usage: Usage, places: Places) -> Stock:
    """What lies there now. Blocks."""
    holdings: list[Holding] = []
    lost: list[Holding] = []
    for entry in entries:
        held = held_of(entry, usage.since(entry), places.root)
        (lost if _is_lost(entry, places) else holdings).append(held)
    return Stock(tuple(holdings), tuple(lost), tuple(find_leftovers(places)))


def held_of(entry: Entry, last_used: float, root: Path) -> Holding:
    """What gemd holds of a variant: the files that it put there and nobody has changed since.

    Blocks.
    """
    files = {
        str(each.content): each.stamp.size_bytes
        for each in files_of(entry.manifest, root)
        if each.owned and entry.manifest.source != "local" and each.is_intact()
    }
    return Holding(entry.manifest.model, entry.manifest.variant, last_used, files)


_ORPHANED: Final[PruneReason] = "orphaned"


def _variants(
    stock: Stock, wish: Wish, *, now: float, spared: Spared, staying: int
) -> list[tuple[Holding, PruneReason]]:
    """Those that go as they were wished away; `staying` is what stays besides variants."""
    protected = {held.key for held in stock.holdings if held.model in spared.models}
    found: dict[Key, tuple[Holding, PruneReason]] = {}
    if wish.unused_for_s is not None:
        before = now - wish.unused_for_s
        for held in quota.unused(stock.holdings, before=before, protected=protected):
            found[held.key] = (held, "unused")
    if wish.keep_bytes is not None:
        left = [held for held in stock.holdings if held.key not in found]
        for held in quota.evictable(
            left, keep_bytes=wish.keep_bytes - staying, protected=protected, last=spared.last
        ):
            found[held.key] = (held, "over-limit")
    return list(found.values())


def _in_turn(gone: Collection[tuple[Holding, PruneReason]], stock: Stock) -> list[Going]:
    freed = quota.freed_in_turn([held for held, _ in gone], (*stock.holdings, *stock.lost))
    return [
        Going(PrunedItem(reason, size, held.model, held.variant), holding=held)
        for (held, reason), size in zip(gone, freed, strict=True)
    ]


def _loose_item(leftover: Leftover) -> PrunedItem:
    return PrunedItem(leftover.reason, leftover.size_bytes, path=str(leftover.paths[0]))


def _is_lost(entry: Entry, places: Places) -> bool:
    """Whether a file of it is gone, and not just the disk away that it is on."""
    return any(
        not each.place.exists() and _is_reachable(each.place, places)
        for each in files_of(entry.manifest, places.root)
    )


def _is_reachable(path: Path, places: Places) -> bool:
    for folder in (places.root, places.hub_cache):
        if folder is not None and path.is_relative_to(folder):
            return folder.is_dir()
    return path.parent.is_dir()
