"""Wishes of the two tiers: they begin with a request, and end when there are no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from gemd.residency.wishes import Wish
from gemd.routing.route import Pair
from gemd.rpc.warming import FOR_S, SOURCE, Warming

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.residency.manager import Manager


class Desk:
    """Takes wishes, and is a clock whose alarms ring when it is told so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wished: list[dict[str, Wish]] = []
        self.alarms: list[tuple[float, Callable[[], None]]] = []

    def wish(self, source: str, wishes: Mapping[str, Wish]) -> None:
        """As `Manager.wish`."""
        assert source == SOURCE
        self.wished.append(dict(wishes))

    def time(self) -> float:
        """As `Clock.time`."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        """As `Clock.call_at`."""
        alarm = (when, callback)
        self.alarms.append(alarm)
        return SimpleNamespace(cancel=lambda: self.alarms.remove(alarm))

    def advance(self, seconds: float) -> None:
        """Let time pass, and ring what is due."""
        self.now += seconds
        due = [alarm for alarm in self.alarms if alarm[0] <= self.now]
        self.alarms = [alarm for alarm in self.alarms if alarm[0] > self.now]
        for _, callback in due:
            callback()


PAIR = Pair(*(cast("Any", SimpleNamespace(id=name)) for name in ("quick", "large")))
BOTH = {"quick": Wish(warm=True), "large": Wish(warm=True)}


def warming() -> tuple[Warming, Desk]:
    """One, and what it talks to."""
    desk = Desk()
    return Warming(cast("Manager", desk), desk), desk


def test_a_request_wishes_both_and_the_next_ones_nothing_new() -> None:
    """However many there are: the loop that heeds wishes is told once."""
    one, desk = warming()
    for _ in range(3):
        one.used(PAIR)
        desk.advance(1)
    assert desk.wished == [BOTH]


def test_the_wish_ends_a_while_after_the_last_request() -> None:
    """So that what is unloaded for being idle stays so."""
    one, desk = warming()
    one.used(PAIR)
    desk.advance(FOR_S / 2)
    one.used(PAIR)
    desk.advance(FOR_S / 2)
    assert desk.wished == [BOTH]
    desk.advance(FOR_S / 2)
    assert desk.wished == [BOTH, {}]
    assert desk.alarms == []
    one.used(PAIR)
    assert desk.wished[-1] == BOTH


def test_another_pair_takes_the_place_of_the_first() -> None:
    """And of a pair without a strong model there is only one to be wished."""
    one, desk = warming()
    one.used(PAIR)
    one.used(Pair(fast=PAIR.fast))
    assert desk.wished == [BOTH, {"quick": Wish(warm=True)}]


def test_nothing_is_left_at_the_end() -> None:
    """The daemon's loop may close, and memory that becomes free meanwhile loads nobody."""
    one, desk = warming()
    one.used(PAIR)
    one.stop()
    assert desk.alarms == []
    assert desk.wished == [BOTH, {}]
