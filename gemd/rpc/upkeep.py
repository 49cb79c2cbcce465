"""The quota of the store: who gives way to a variant that comes, and when none could."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import structlog

from gemd.catalog.sources import HubSource
from gemd.errors import DiskFullError, GemdError
from gemd.quantities import format_bytes, human_bytes
from gemd.store import PullProgress
from gemd.store.hub_cache import CachedRepository
from gemd.store.prune import Wish
from gemd.store.quota import owned_bytes
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from gemd.catalog import Variant
    from gemd.rpc.cleaning import Cleaning
    from gemd.store import PrunedItem, Store
    from gemd.store.prune import Stock

    Report = Callable[[PullProgress], None]

Result = TypeVar("Result")

log = structlog.get_logger(__name__)

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Coming:
    """A variant that is going to be on disk.

    Attributes:
        model: Id of its model.
        variant: Its id.
        size_bytes: What it will take.
        pulled: As the catalogue has it, if a pull brings it: then some of it may be here already.

    """

    model: str
    variant: str
    size_bytes: int
    pulled: Variant | None = None


class Upkeep:
    """Keeps what gemd fetched or made within a quota.

    Args:
        store: The files.
        cleaning: Removes what is too much.
        quota_bytes: The most that gemd's own files may take; 0 for no limit.

    """

    def __init__(self, *, store: Store, cleaning: Cleaning, quota_bytes: int) -> None:
        self._store = store
        self._cleaning = cleaning
        self._quota = quota_bytes
        self._limited = 0
        self._changed = False
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look whether it is kept, now and whenever a variant has come to disk. Never waits."""
        if self._quota:
            loop = asyncio.get_running_loop()

            def changed() -> None:
                # A thread may outlive the loop.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._look)

            self._store.changed.append(changed)
            self._look()

    def within_quota(
        self, work: Callable[[Report], Awaitable[Result]], *coming: Coming
    ) -> Callable[[Report], Awaitable[Result]]:
        """The same work, which brings variants of one model, between looks at the quota.

        Before it begins it is refused if nothing could make room for it; once it has ended, what
        was not used for the longest time gives way. Its model has to be worked on by an operation
        meanwhile, which is what keeps it from giving way to itself.

        Args:
            work: Takes snapshots of its progress.
            coming: What comes to disk, the one that it is done for last.

        Raises:
            DiskFullError: By the work that is returned: it does not fit in the quota.

        """
        if not self._quota:
            return work

        async def limited(report: Report) -> Result:
            last = PullProgress()

            def remember(progress: PullProgress) -> None:
                nonlocal last
                last = progress if progress.message else replace(progress, message=last.message)
                report(last)

            self._limited += 1
            try:
                if told := await self._admit(coming):
                    remember(PullProgress(phase="resolving", message=told))
                done = await work(remember)
                if told := await self._settle():
                    remember(replace(last, phase="deleting", message=told))
            finally:
                self._limited -= 1
            return done

        return limited

    def _look(self) -> None:
        """Begin to remove what is too much, unless somebody who brings a variant will do it."""
        if self._limited:
            return
        self._changed = True
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        wish = Wish(keep_bytes=self._quota)
        while self._changed:
            self._changed = False
            try:
                stock = await self._cleaning.stock()
                if stock.owned_bytes > self._quota and self._cleaning.planned(stock, wish):
                    await self._cleaning.done(self._cleaning.start(wish))
            except (GemdError, OSError) as error:
                log.warning("store.quota_not_kept", error=str(error))

    async def _admit(self, coming: Sequence[Coming]) -> str:
        """What will have to give way to variants, for people; empty if nothing."""
        stock = await self._cleaning.stock()
        needed = await in_thread(
            lambda _: sum(self._needed(stock, each) for each in coming), abandon=True
        )
        if not needed:
            return ""
        spared = self._cleaning.spared().models
        staying = owned_bytes(held for held in stock.holdings if held.model in spared)
        if staying + needed > self._quota:
            raise self._too_much(coming[-1], needed, staying)
        going = self._cleaning.planned(stock, Wish(keep_bytes=self._quota - needed))
        names = _names(each.item for each in going if each.item.reason == "over-limit")
        return f"{names} will be removed for it: {self._why}" if names else ""

    async def _settle(self) -> str:
        """Removes what is too much; what that was, for people."""
        try:
            stock = await self._cleaning.stock()
            if stock.owned_bytes <= self._quota:
                return ""
            pruned = await self._cleaning.clean(Wish(keep_bytes=self._quota), lambda _: None)
        except (GemdError, OSError) as error:
            # What was brought is there all the same.
            log.warning("store.quota_not_kept", error=str(error))
            return ""
        if pruned.kept_bytes > self._quota:
            log.warning("store.over_quota", bytes=pruned.kept_bytes, quota_bytes=self._quota)
        names = _names(pruned.items)
        return f"removed {names}: {self._why}" if names else ""

    @property
    def _why(self) -> str:
        return f"the quota for models is {human_bytes(self._quota)} (store_quota)"

    def _needed(self, stock: Stock, coming: Coming) -> int:
        """Bytes that a variant adds; 0 if it is here already, be it in the hub's cache. Blocks."""
        if any(held.key == (coming.model, coming.variant) for held in stock.holdings):
            return 0
        pulled = coming.pulled
        if pulled is not None and (
            self._store.as_found(pulled) or _is_cached(pulled, self._store.hub_cache)
        ):
            return 0
        return coming.size_bytes

    def _too_much(self, coming: Coming, needed: int, staying: int) -> DiskFullError:
        missing = staying + needed - self._quota
        enough = -(-(staying + needed) // _GIB) * _GIB
        why = f"{human_bytes(missing)} are missing"
        if staying:
            why += (
                f"; {human_bytes(staying)} are of models that are loaded, pinned or worked on, and "
                "stay"
            )
        return DiskFullError(
            f"{coming.model} ({coming.variant}, {human_bytes(needed)}) does not fit in the quota "
            f"of {human_bytes(self._quota)} for models",
            why=why,
            advice=("gemctl list --variants", f"export GEMD_STORE_QUOTA={format_bytes(enough)}"),
            metadata={
                "model": coming.model,
                "variant": coming.variant,
                "key": "store_quota",
                "quota_bytes": self._quota,
                "needed_bytes": needed,
                "staying_bytes": staying,
                "missing_bytes": missing,
            },
        )


def _is_cached(variant: Variant, cache: Path | None) -> bool:
    """Whether its one file is in the hub's cache, in whatever revision."""
    return cache is not None and any(
        any(CachedRepository.named(cache, source.repository).snapshots.glob(f"*/{source.file}"))
        for source in variant.sources
        if isinstance(source, HubSource)
    )


def _names(items: Iterable[PrunedItem]) -> str:
    return ", ".join(
        f"{item.model} {item.variant} ({human_bytes(item.size_bytes)})"
        for item in items
        if item.model
    )
