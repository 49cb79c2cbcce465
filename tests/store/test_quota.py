"""Which variants give way to a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from gemd.store.quota import (
    Holding,
    evictable,
    exclusive_bytes,
    freed_in_turn,
    owned_bytes,
    unused,
)

if TYPE_CHECKING:
    from random import Random

_FILES = st.dictionaries(st.sampled_from("abcdef"), st.just(0), max_size=3)
_SIZES = {name: 1 << position for position, name in enumerate("abcdef")}


@st.composite
def _holdings(draw: st.DrawFn) -> list[Holding]:
    """Up to eight variants that share some of six files of different sizes."""
    made = []
    for number in range(draw(st.integers(0, 8))):
        files = {name: _SIZES[name] for name in draw(_FILES)}
        made.append(Holding(f"m{number}", "q4", draw(st.integers(0, 5)), files))
    return made


def _held(name: str, last_used: float, **files: int) -> Holding:
    return Holding(name, "q4", last_used, files)


def _left(holdings: list[Holding], gone: list[Holding]) -> int:
    keys = {held.key for held in gone}
    return owned_bytes(held for held in holdings if held.key not in keys)


def test_the_longest_unused_goes_first_and_no_more() -> None:
    """Of three the oldest one is enough; for more the next goes too."""
    holdings = [_held("new", 30.0, n=10), _held("old", 10.0, o=10), _held("mid", 20.0, m=10)]
    assert [held.model for held in evictable(holdings, keep_bytes=25)] == ["old"]
    assert [held.model for held in evictable(holdings, keep_bytes=19)] == ["old", "mid"]
    assert evictable(holdings, keep_bytes=30) == []


def test_what_two_share_is_counted_once_and_freed_with_the_last() -> None:
    """One of them frees only what is its own."""
    holdings = [_held("a", 10.0, shared=100, own=1), _held("b", 20.0, shared=100)]
    assert owned_bytes(holdings) == 101
    assert exclusive_bytes(holdings[0], holdings) == 1
    assert exclusive_bytes(holdings[1], holdings) == 0
    assert exclusive_bytes(holdings[0], holdings, {"own"}) == 0
    assert [held.model for held in evictable(holdings, keep_bytes=50)] == ["a", "b"]
    assert freed_in_turn(holdings, holdings) == [1, 100]


def test_one_that_would_free_nothing_stays() -> None:
    """Its bytes are a protected one's too: nothing would be won."""
    holdings = [
        _held("twin", 10.0, shared=100),
        _held("kept", 5.0, shared=100),
        _held("b", 20.0, b=9),
    ]
    gone = evictable(holdings, keep_bytes=100, protected={("kept", "q4")})
    assert [held.model for held in gone] == ["b"]
    assert unused(holdings, before=15.0, protected={("kept", "q4")}) == []


def test_the_default_goes_last() -> None:
    """Though it was not used for the longest time."""
    holdings = [_held("default", 1.0, d=10), _held("b", 20.0, b=10)]
    last = {("default", "q4")}
    assert [held.model for held in evictable(holdings, keep_bytes=10, last=last)] == ["b"]
    assert [held.model for held in evictable(holdings, keep_bytes=0, last=last)] == ["b", "default"]


def test_unused_is_what_was_last_used_before() -> None:
    """The longest unused first; the moment itself is not before."""
    holdings = [_held("a", 20.0, a=1), _held("b", 10.0, b=1), _held("c", 30.0, c=1)]
    assert [held.model for held in unused(holdings, before=30.0)] == ["b", "a"]


@given(_holdings(), st.integers(0, 64), st.sets(st.integers(0, 7)))
def test_it_fits_or_nothing_more_could_go(
    holdings: list[Holding], keep: int, protected: set[int]
) -> None:
    """No protected one goes; if it does not fit, all that would free anything has gone."""
    keys = {(f"m{number}", "q4") for number in protected}
    gone = evictable(holdings, keep_bytes=keep, protected=keys)
    assert not keys & {held.key for held in gone}
    if _left(holdings, gone) > keep:
        free = [held for held in holdings if held.key not in keys]
        assert _left(holdings, gone) == _left(holdings, free)


@given(_holdings(), st.integers(0, 64), st.sets(st.integers(0, 7)))
def test_it_stops_as_soon_as_it_fits(
    holdings: list[Holding], keep: int, protected: set[int]
) -> None:
    """Without the last one it would not fit, and each one of them frees something in the end."""
    keys = {(f"m{number}", "q4") for number in protected}
    gone = evictable(holdings, keep_bytes=keep, protected=keys)
    if gone:
        assert _left(holdings, gone[:-1]) > keep
    for held in gone:
        others = [each for each in gone if each is not held]
        assert _left(holdings, others) > _left(holdings, gone)


@given(_holdings(), st.integers(0, 64), st.integers(0, 64), st.randoms())
def test_less_room_never_saves_anybody(
    holdings: list[Holding], one: int, other: int, shuffled: Random
) -> None:
    """What goes for a larger limit goes for a smaller one, in whatever order they are listed."""
    less, more = sorted((one, other))
    gone = evictable(holdings, keep_bytes=less)
    assert {held.key for held in evictable(holdings, keep_bytes=more)} <= {
        held.key for held in gone
    }
    mixed = list(holdings)
    shuffled.shuffle(mixed)
    assert evictable(mixed, keep_bytes=less) == gone


@given(_holdings(), st.integers(0, 64))
def test_the_bytes_add_up(holdings: list[Holding], keep: int) -> None:
    """What goes in turn and what is left are all there was."""
    gone = evictable(holdings, keep_bytes=keep)
    freed = freed_in_turn(gone, holdings)
    assert sum(freed) + _left(holdings, gone) == owned_bytes(holdings)
