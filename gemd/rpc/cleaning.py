"""What nobody needs, removed from disk."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from gemd.errors import GemdError, ModelBusyError
from gemd.residency.states import State
from gemd.rpc.convert.fields import seconds
from gemd.store import Kind, Pruned
from gemd.store.leftovers import Places, remove, sweep_empty_folders
from gemd.store.progress import Tracker, Unit
from gemd.store.prune import Going, Spared, Stock, Wish, foretold, plan, take_stock
from gemd.store.threads import in_thread
from gemd.store.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from gemd.residency.manager import Manager
    from gemd.rpc.library import Library
    from gemd.store import Operation, Operations, PrunedItem, PullProgress
    from gemd.store.leftovers import Leftover
    from gemd.store.operations import Work
    from gemd.store.quota import Holding
    from gemd.v1 import store_service_pb2 as service

    Report = Callable[[PullProgress], None]

log = structlog.get_logger(__name__)

_COLD: Final = frozenset({State.COLD, State.FAILED})


class Cleaning:
    """Removes what nobody needs; see `gemd.store.prune` for what that is.

    Args:
        library: Catalogue and store.
        manager: Knows what is loaded and pinned, and lets go of files.
        operations: Runs the work, and knows what else is worked on.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        *,
        library: Library,
        manager: Manager,
        operations: Operations,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = library.store
        self._library = library
        self._manager = manager
        self._operations = operations
        self._wall = wall
        self._usage = Usage(self._store.root, wall=wall)
        self._places = Places(self._store.root, self._store.hub_cache)
        self._removing = asyncio.Lock()
        operations.register(Kind.PRUNE, self._again)

    def begin(self, request: service.PruneStoreRequest) -> Operation:
        """Start the operation."""
        wish = Wish(
            unused_for_s=seconds(request.unused_for, field="unused_for")
            if request.HasField("unused_for")
            else None,
            keep_bytes=request.keep_bytes if request.HasField("keep_bytes") else None,
        )
        return self.start(wish, dry_run=request.dry_run)

    def start(self, wish: Wish, *, dry_run: bool = False) -> Operation:
        """Start an operation that removes what is wished, or only says what that would be."""
        resume: dict[str, JsonValue] | None = None
        if not dry_run:
            resume = {"unused_for_s": wish.unused_for_s, "keep_bytes": wish.keep_bytes}
        work = self._work(wish, dry_run=dry_run)
        return self._operations.start(Kind.PRUNE, "", work, resume=resume)

    async def done(self, started: Operation) -> None:
        """Return when an operation has ended, in whatever way."""
        async with aclosing(self._operations.watch(started.id)) as snapshots:
            async for _ in snapshots:
                pass

    async def stock(self) -> Stock:
        """What lies in the store now."""
        return await in_thread(lambda _: self._take_stock(), abandon=True)

    def spared(self) -> Spared:
        """What has to stay at this moment."""
        models = set(self._manager.pins())
        models |= {
            model
            for model, seen in self._manager.residences().items()
            if seen.state not in _COLD or seen.waiting
        }
        running = [each for each in self._operations.list() if not each.done and each.model]
        models |= {each.model for each in running}
        return Spared(
            models={_files_of(model) for model in models},
            busy={(_files_of(each.model), each.variant) for each in running},
            last={
                (profile.model, variant.id)
                for profile in self._library.profiles()
                if "default" in profile.roles
                for variant in profile.variants
            },
        )

    def planned(self, stock: Stock, wish: Wish) -> list[Going]:
        """What of a stock would go now if that were wished."""
        return plan(stock, wish, now=self._wall(), spared=self.spared())

    async def clean(self, wish: Wish, report: Report, *, dry_run: bool = False) -> Pruned:
        """Remove what is wished, or only say what that would be; what is in use meanwhile stays."""
        async with self._removing:
            stock = await self.stock()
            planned = self.planned(stock, wish)
            if dry_run:
                return foretold(stock, planned)
            tracker = Tracker(report, clock=time.monotonic, wall=self._wall)
            tracker.enter("deleting")
            tracker.plan(tuple(_unit(number, each) for number, each in enumerate(planned)))
            gone: list[PrunedItem] = []
            for number, each in enumerate(planned):
                tracker.begin(str(number))
                freed = await self._remove(each)
                if freed is not None:
                    gone.append(replace(each.item, size_bytes=freed))
                tracker.complete(str(number))
            await in_thread(lambda _: self._tidy())
            kept = (await self.stock()).owned_bytes
            return Pruned(dry_run=False, items=tuple(gone), kept_bytes=kept)

    def _work(self, wish: Wish, *, dry_run: bool) -> Work:
        async def work(report: Report) -> Pruned:
            return await self.clean(wish, report, dry_run=dry_run)

        return work

    def _again(self, resume: Mapping[str, JsonValue]) -> Work:
        """The work that an earlier daemon has left."""
        unused_for, keep = resume.get("unused_for_s"), resume.get("keep_bytes")
        wish = Wish(
            unused_for_s=float(unused_for) if isinstance(unused_for, int | float) else None,
            keep_bytes=keep if isinstance(keep, int) else None,
        )
        return self._work(wish, dry_run=False)

    async def _remove(self, going: Going) -> int | None:
        """Bytes that it freed; None if it stays. One that cannot go does not keep the others."""
        try:
            if going.leftover is not None:
                freed = await self._remove_leftover(going.leftover)
            else:
                assert going.holding is not None
                freed = await self._evict(going.holding)
        except (OSError, GemdError) as error:
            log.warning("store.not_removed", error=str(error), **_facts(going))
            return None
        if freed is not None:
            log.info("store.removed", **_facts(going))
        return freed

    async def _remove_leftover(self, leftover: Leftover) -> int | None:
        if (leftover.model, leftover.variant) in self.spared().busy:
            return None
        discard = self._store.discard_unfinished
        return await in_thread(lambda _: remove(leftover, self._places, discard))

    async def _evict(self, held: Holding) -> int | None:
        """Removes a variant unless somebody has begun to use it."""
        ids = {profile.id for profile in self._library.profiles() if profile.model == held.model}
        ids |= {each for each in self._manager.residences() if _files_of(each) == held.model}
        async with AsyncExitStack() as stack:
            try:
                for identity in sorted(ids | {held.model}):
                    await stack.enter_async_context(self._manager.files_of(identity, force=False))
            except ModelBusyError:
                return None
            if held.model in self.spared().models:
                return None
            return await in_thread(lambda _: self._remove_variant(held))

    def _remove_variant(self, held: Holding) -> int | None:
        entry = self._store.entry(held.model, held.variant)
        if entry is None or self._usage.since(entry) > held.last_used:
            return None
        return self._store.remove(entry).freed_bytes

    def _take_stock(self) -> Stock:
        return take_stock(self._store.entries(), self._usage, self._places)

    def _tidy(self) -> None:
        """Removes notes and folders that are about nothing any more."""
        known = {(each.manifest.model, each.manifest.variant) for each in self._store.entries()}
        known |= {
            (profile.model, variant.id)
            for profile in self._library.profiles()
            for variant in profile.every_variant
            if self._store.as_found(variant) is not None
        }
        self._usage.forget(known)
        sweep_empty_folders(self._places.root)


def _files_of(model: str) -> str:
    """The id under which the files of a model or of `model:variant` are kept."""
    return model.partition(":")[0]


def _unit(number: int, going: Going) -> Unit:
    item = going.item
    name = f"{item.model} {item.variant}" if item.model else item.path
    return Unit(id=str(number), name=name, total=item.size_bytes)


def _facts(going: Going) -> dict[str, object]:
    item = going.item
    what = {"model": item.model, "variant": item.variant} if item.model else {"path": item.path}
    return {**what, "reason": item.reason, "bytes": item.size_bytes}
