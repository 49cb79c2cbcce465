from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gemd.errors import (
    InvalidRequestError,
    QueueFullError,
    ResourceNotFoundError,
    ShuttingDownError,
)
from gemd.residency.lease_book import LeaseBook
from gemd.residency.leases import (
    DEFAULT_TTL_S,
    LONGEST_TTL_S,
    MOST_ACTIVE,
    SHORTEST_TTL_S,
    Lease,
    Leases,
    LeaseState,
)
from gemd.residency.wishes import Wish
from tests.support.residency import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

IN_RANGE = st.floats(min_value=SHORTEST_TTL_S, max_value=LONGEST_TTL_S)
MODELS = ("a", "b")
REQUESTS = ("", "r1", "r2")


class LeasesLikeAList(RuleBasedStateMachine):
    """Whatever is done in whatever order, the book says what a plain list of ends says."""

    @initialize()
    def begin(self) -> None:
        """An empty book at second 0."""
        self.now = 0.0
        self.leases = Leases()
        self.ends: dict[str, float] = {}
        self.first: dict[str, tuple[str, tuple[Any, ...]]] = {}
        self.told: set[str] = set()

    def alive(self) -> list[str]:
        """Ids that count now, oldest first."""
        return [identity for identity, end in self.ends.items() if end > self.now]

    def some(self, data: st.DataObject) -> str:
        """The id of a lease that was once created, or of none."""
        return data.draw(st.sampled_from([*self.ends, "nobody"]))

    @rule(
        model=st.sampled_from(MODELS),
        ttl_s=st.none() | st.sampled_from((1.0, 5.0, 60.0)),
        load=st.booleans(),
        request_id=st.sampled_from(REQUESTS),
    )
    def create(self, model: str, ttl_s: float | None, load: bool, request_id: str) -> None:  # noqa: FBT001
        """A request that is repeated gets the lease of the first one, while that counts."""
        asked = (model, ttl_s or DEFAULT_TTL_S, load)
        known, before = self.first.get(request_id, ("", ()))

        def ask() -> Lease:
            return self.leases.create(
                model, ttl_s=ttl_s, load=load, request_id=request_id, now=self.now
            )

        if request_id and known in self.alive():
            if before == asked:
                assert ask().id == known
            else:
                with pytest.raises(InvalidRequestError):
                    ask()
            return
        made = ask()
        assert made.id not in self.ends
        assert (made.model, made.load, made.ttl_s) == (model, load, asked[1])
        assert (made.created, made.expires) == (self.now, self.now + asked[1])
        self.ends[made.id] = made.expires
        self.first[request_id] = made.id, asked

    @rule(data=st.data(), ttl_s=st.none() | st.sampled_from((1.0, 30.0)))
    def renew(self, data: st.DataObject, ttl_s: float | None) -> None:
        """Only one that counts can be renewed; its time begins anew."""
        identity = self.some(data)
        if identity not in self.alive():
            with pytest.raises(ResourceNotFoundError):
                self.leases.renew(identity, ttl_s, now=self.now)
            return
        renewed = self.leases.renew(identity, ttl_s, now=self.now)
        assert renewed.expires == self.now + renewed.ttl_s
        assert ttl_s in {None, renewed.ttl_s}
        self.ends[identity] = renewed.expires

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Always succeeds, and tells an end once."""
        identity = self.some(data)
        ended = self.leases.release(identity)
        if identity in self.alive():
            assert ended is not None
            assert (ended.id, ended.state) == (identity, LeaseState.RELEASED)
        if ended is not None:
            assert identity not in self.told
            self.told.add(identity)
        if identity in self.ends:
            self.ends[identity] = min(self.ends[identity], self.now)

    @rule(seconds=st.sampled_from((0.0, 0.5, 1.0, 5.0, 600.0)))
    def wait(self, seconds: float) -> None:
        """Time passes without anybody's looking."""
        self.now += seconds

    @rule()
    def expire(self) -> None:
        """Every end is told once, in the order of the ends."""
        over = self.leases.expire(self.now)
        assert [each.expires for each in over] == sorted(each.expires for each in over)
        for each in over:
            assert each.state is LeaseState.EXPIRED
            assert each.expires <= self.now
            assert each.id not in self.told
            self.told.add(each.id)
        assert [each.id for each in self.leases.list()] == self.alive()

    @invariant()
    def nothing_that_counts_is_missing(self) -> None:
        """All that count are there, oldest first, and the next end is the earliest one."""
        listed = self.leases.list()
        assert [each.id for each in listed if each.expires > self.now] == self.alive()
        assert [each.number for each in listed] == sorted(each.number for each in listed)
        assert self.leases.next_expiry() == min((each.expires for each in listed), default=None)


TestLeasesLikeAList = LeasesLikeAList.TestCase


@given(ttl_s=IN_RANGE)
def test_a_lease_runs_for_its_time(ttl_s: float) -> None:
    """It counts until the very second, and not at it."""
    leases = Leases()
    made = leases.create("a", ttl_s=ttl_s, now=0.0)
    just_before = ttl_s - ttl_s * 1e-9
    assert leases.expire(just_before) == []
    (over,) = leases.expire(ttl_s)
    assert (over.id, over.state) == (made.id, LeaseState.EXPIRED)
    assert leases.next_expiry() is None


@pytest.mark.parametrize("ttl_s", [0.0, 0.999, -1.0, 86400.5, float("inf"), float("nan")])
def test_a_time_out_of_range_is_refused(ttl_s: float) -> None:
    """When it is created, and when it is renewed, which leaves it as it was."""
    leases = Leases()
    with pytest.raises(InvalidRequestError, match=r"ttl must be from 1 s to 86400 s") as caught:
        leases.create("a", ttl_s=ttl_s, now=0.0)
    assert caught.value.metadata["field"] == "ttl"
    assert leases.list() == []
    made = leases.create("a", now=0.0)
    with pytest.raises(InvalidRequestError):
        leases.renew(made.id, ttl_s, now=1.0)
    assert leases.list() == [made]


def test_a_renewal_does_not_change_what_was_asked_for() -> None:
    """The first request can still be repeated after its lease got another time."""
    leases = Leases()
    made = leases.create("a", ttl_s=5.0, request_id="r", now=0.0)
    renewed = leases.renew(made.id, 60.0, now=1.0)
    assert leases.create("a", ttl_s=5.0, request_id="r", now=2.0) == renewed
    with pytest.raises(InvalidRequestError, match="other fields"):
        leases.create("a", ttl_s=60.0, request_id="r", now=2.0)


@pytest.mark.parametrize("changed", [{"ttl_s": 7.0}, {"client": "other"}, {"load": True}])
def test_every_field_of_a_repeated_request_counts(changed: dict[str, Any]) -> None:
    """An id that is used for something else is a mistake of the client."""
    leases = Leases()
    leases.create("a", request_id="r", now=0.0)
    with pytest.raises(InvalidRequestError) as caught:
        leases.create("a", **changed, request_id="r", now=0.0)
    assert caught.value.metadata["field"] == "request_id"


def test_leases_are_bounded() -> None:
    """One more is refused until one ends; those whose time is over do not count."""
    leases = Leases()
    made = [leases.create("a", ttl_s=2.0 + n, now=0.0) for n in range(MOST_ACTIVE)]
    with pytest.raises(QueueFullError, match="1000 leases are active already") as caught:
        leases.create("b", now=0.5)
    assert caught.value.retry_after == 1.5
    assert leases.create("b", now=2.0).model == "b"
    with pytest.raises(QueueFullError):
        leases.create("b", now=2.0)
    leases.release(made[-1].id)
    leases.create("b", now=2.0)


def test_ids_cannot_be_guessed() -> None:
    """None follows from another."""
    leases = Leases()
    ids = {leases.create("a", now=0.0).id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(each) == 16 and int(each, 16) for each in ids)


class Desk:
    """A book with a clock that is moved by hand, and all that it says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.wishes: list[Mapping[str, Wish]] = []
        self.events: list[Lease] = []
        self.book = LeaseBook(wish=self.wishes.append, publish=self.events.append, clock=self.clock)

    def create(self, model: str = "a", **fields: Any) -> Lease:
        """A lease with what was not named left out."""
        values = {"ttl_s": None, "client": "", "load": False, "request_id": ""}
        return self.book.create(model, **(values | fields))

    def alarms(self) -> int:
        """Alarms that are set."""
        return sum(not alarm.cancelled for _, _, alarm in self.clock._alarms)


async def test_residency_hears_of_every_change() -> None:
    """What all active leases together wish, after each of them came, stayed or went."""
    desk = Desk()
    cold = desk.create("a")
    assert desk.wishes[-1] == {"a": Wish(leased=True)}
    warm = desk.create("a", load=True)
    desk.create("b")
    assert desk.wishes[-1] == {"a": Wish(leased=True, warm=True), "b": Wish(leased=True)}
    desk.book.renew(cold.id, None)
    desk.book.release(warm.id)
    assert len(desk.wishes) == 5
    assert desk.wishes[-1] == {"a": Wish(leased=True), "b": Wish(leased=True)}
    assert [event.state.value for event in desk.events] == ["ACTIVE"] * 4 + ["RELEASED"]


async def test_one_lease_that_loads_is_enough() -> None:
    """Whichever of a model's leases came first."""
    desk = Desk()
    desk.create("a", load=True)
    desk.create("a")
    assert desk.wishes[-1] == {"a": Wish(leased=True, warm=True)}


async def test_what_changes_nothing_is_not_told() -> None:
    """A repeated request, and the release of what had ended."""
    desk = Desk()
    made = desk.create(request_id="r")
    assert desk.create(request_id="r") == made
    desk.book.release(made.id)
    desk.book.release(made.id)
    desk.book.release("nobody")
    assert len(desk.wishes) == len(desk.events) == 2


async def test_a_lease_ends_on_time_by_itself() -> None:
    """Each at its own second, and residency hears of it at that second."""
    desk = Desk()
    desk.create("a", ttl_s=10.0)
    desk.create("b", ttl_s=4.0)
    await desk.clock.advance(3.9)
    assert len(desk.wishes) == 2
    await desk.clock.advance(0.1)
    assert desk.wishes[2:] == [{"a": Wish(leased=True)}]
    await desk.clock.advance(6.0)
    assert desk.wishes[3:] == [{}]
    ended = [event.model for event in desk.events if event.state is LeaseState.EXPIRED]
    assert ended == ["b", "a"]
    assert desk.book.list() == []
    assert desk.alarms() == 0


async def test_a_renewal_moves_the_end() -> None:
    """The time begins anew; there is never more than one alarm."""
    desk = Desk()
    made = desk.create(ttl_s=10.0)
    for _ in range(5):
        await desk.clock.advance(9.0)
        desk.book.renew(made.id, None)
        assert desk.alarms() == 1
    await desk.clock.advance(9.9)
    assert [lease.id for lease in desk.book.list()] == [made.id]
    await desk.clock.advance(0.1)
    assert desk.book.list() == []
    with pytest.raises(ResourceNotFoundError, match="no active lease"):
        desk.book.renew(made.id, None)


async def test_an_alarm_that_rings_too_soon_rings_again() -> None:
    """An event loop may call back a moment before the time."""
    desk = Desk()
    desk.create(ttl_s=10.0)
    desk.clock.now += 9.999
    _, _, early = desk.clock._alarms.pop()
    early.callback()
    assert len(desk.book.list()) == desk.alarms() == 1
    await desk.clock.advance(0.002)
    assert desk.book.list() == []


async def test_what_is_over_is_ended_before_anything_else() -> None:
    """However late the alarm, an ended lease can neither be renewed nor stand for a new one."""
    desk = Desk()
    made = desk.create(ttl_s=10.0, request_id="r")
    desk.clock.now += 10.0
    again = desk.create(ttl_s=10.0, request_id="r")
    assert again.id != made.id
    told = [(event.id, event.state) for event in desk.events]
    assert told == [
        (made.id, LeaseState.ACTIVE),
        (made.id, LeaseState.EXPIRED),
        (again.id, LeaseState.ACTIVE),
    ]


async def test_the_end_of_the_daemon_ends_the_book() -> None:
    """It takes no new leases, and leaves no alarm behind."""
    desk = Desk()
    made = desk.create()
    desk.book.close()
    assert desk.alarms() == 0
    with pytest.raises(ShuttingDownError):
        desk.create("b")
    desk.book.renew(made.id, None)
    assert desk.alarms() == 0


async def test_an_event_loop_is_a_clock() -> None:
    """The book works on the clock that the daemon hands in."""
    events: list[Lease] = []
    ended = asyncio.Event()

    def publish(lease: Lease) -> None:
        events.append(lease)
        if lease.state is LeaseState.EXPIRED:
            ended.set()

    book = LeaseBook(wish=lambda _: None, publish=publish, clock=asyncio.get_running_loop())
    book.create("a", ttl_s=SHORTEST_TTL_S, client="", load=False, request_id="")
    async with asyncio.timeout(10):
        await ended.wait()
    assert book.list() == []
