"""What long work on files ends with, besides a file or a deletion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gemd.store.manifest import Checked

PruneReason = Literal["unfinished", "orphaned", "unused", "over-limit"]


@dataclass(frozen=True, slots=True)
class Quantized:
    """A variant that was made here.

    Attributes:
        variant: Its id.
        size_bytes: Its size.
        origin: What it was made from, with its revision.
        checks: What was looked at before it was accepted.

    """

    variant: str
    size_bytes: int
    origin: str
    checks: tuple[Checked, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found; its checks in the order they were made."""

    checks: tuple[Checked, ...]

    @property
    def passed(self) -> bool:
        """Whether every one did."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, slots=True)
class PrunedItem:
    """One thing that a clean-up removes.

    Attributes:
        reason: Why.
        size_bytes: What is free without it.
        model: Of a variant; else empty.
        variant: Likewise.
        path: Of what is no variant; else empty.

    """

    reason: PruneReason
    size_bytes: int
    model: str = ""
    variant: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a clean-up removed, or would have removed.

    Attributes:
        dry_run: Nothing was removed.
        items: What goes, in that order.
        kept_bytes: Of what gemd fetched or made and stays.

    """

    dry_run: bool
    items: tuple[PrunedItem, ...]
    kept_bytes: int

    @property
    def freed_bytes(self) -> int:
        """Of all items."""
        return sum(item.size_bytes for item in self.items)
