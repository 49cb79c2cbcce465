"""Leases at work: the book, the manager and its loop on one clock that only tests move."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.residency.lease_book import LeaseBook
from gemd.residency.states import State
from tests.support.residency import GIB, Plant, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gemd.residency.leases import Lease
    from gemd.residency.manager import Manager


@dataclass
class House:
    """A plant, its manager and its leases."""

    plant: Plant
    manager: Manager
    book: LeaseBook

    async def lease(self, model: str, *, ttl_s: float = 600.0, load: bool = False) -> Lease:
        """A lease, and all that follows from it at once."""
        made = self.book.create(model, ttl_s=ttl_s, client="", load=load, request_id="")
        await settle()
        return made

    async def use(self, model: str) -> None:
        """Ask the model something."""
        async with self.manager.hold(model) as hold:
            await hold.worker()
        await settle()

    def warm(self) -> set[str]:
        """Models that answer at once."""
        seen = self.manager.residences().values()
        return {each.model for each in seen if each.state is State.READY}


@asynccontextmanager
async def house(*, budget_bytes: int = 2 * GIB, keep_warm_s: float = 60.0) -> AsyncIterator[House]:
    """Two models of 1 GiB fit."""
    plant = Plant()
    manager = plant.manager(budget_bytes=budget_bytes, keep_warm_s=keep_warm_s)
    book = LeaseBook(
        wish=lambda wishes: manager.wish("leases", wishes),
        publish=lambda _: None,
        clock=plant.clock,
    )
    async with manager:
        yield House(plant, manager, book)


async def test_a_leased_model_stays_until_its_lease_is_over() -> None:
    """It is idle for ten times `keep_warm`, and goes when its lease expires."""
    async with house() as at:
        await at.use("a")
        await at.lease("a", ttl_s=600.0)
        await at.plant.clock.advance(599.0)
        assert at.warm() == {"a"}
        await at.plant.clock.advance(1.0)
        assert at.warm() == set()


async def test_a_renewed_lease_keeps_its_model() -> None:
    """For as long as somebody renews it, and no longer."""
    async with house() as at:
        await at.use("a")
        made = await at.lease("a", ttl_s=100.0)
        for _ in range(5):
            await at.plant.clock.advance(90.0)
            at.book.renew(made.id, None)
        assert at.warm() == {"a"}
        await at.plant.clock.advance(100.0)
        assert at.warm() == set()


async def test_a_leased_model_is_dearer_than_one_just_used() -> None:
    """Without the lease, the one that nobody used for long would go."""
    for leased, left in ((True, {"a", "c"}), (False, {"b", "c"})):
        async with house(keep_warm_s=1e6) as at:
            await at.use("a")
            if leased:
                await at.lease("a", ttl_s=80_000.0)
            await at.plant.clock.advance(50_000.0)
            await at.use("b")
            await at.plant.clock.advance(300.0)
            await at.use("c")
            assert at.warm() == left


async def test_a_lease_forbids_nothing() -> None:
    """Where there is no other victim, a leased model goes: it is no pin."""
    async with house(budget_bytes=GIB) as at:
        await at.use("a")
        await at.lease("a")
        await at.plant.clock.advance(300.0)
        await at.use("b")
        assert at.warm() == {"b"}


async def test_a_lease_that_loads_waits_for_free_memory() -> None:
    """Nobody goes for it; it is loaded once another one has gone by itself."""
    async with house(budget_bytes=GIB) as at:
        await at.use("b")
        await at.lease("a", load=True)
        await at.plant.clock.advance(30.0)
        assert at.warm() == {"b"}
        await at.plant.clock.advance(40.0)
        assert at.warm() == {"a"}


async def test_two_leases_on_a_model_are_two() -> None:
    """It is kept until both have ended, whichever ends first."""
    async with house() as at:
        await at.use("a")
        first = await at.lease("a", ttl_s=1000.0)
        await at.lease("a", ttl_s=200.0)
        await at.plant.clock.advance(300.0)
        assert at.warm() == {"a"}
        at.book.release(first.id)
        await settle()
        # The time it could stay without a lease is over already: its alarm rings at once.
        await at.plant.clock.advance(0.0)
        assert at.warm() == set()
