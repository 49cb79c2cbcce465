"""Labels, and the memory in which feedback finds a draft's signals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.request import Feedback
from gemd.routing.risk import Label, Labels, Memory, Source
from gemd.routing.risk.labels import KEPT_LABELS, MEANING, REMEMBERED

SIGNALS = {"steps": 0.3, "prior": 0.2}


def label(origin: str = "", *, good: bool = True, source: Source = Source.USER) -> Label:
    """Of some draft."""
    return Label(SIGNALS, good=good, source=source, origin=origin)


@pytest.mark.parametrize(
    "signal,good,weight",
    [
        (Feedback.LIKED, True, 1.0),
        (Feedback.ACCEPTED, True, 0.5),
        (Feedback.DISLIKED, False, 1.0),
        (Feedback.REGENERATED, False, 1.0),
        (Feedback.EDITED, False, 0.5),
    ],
)
def test_feedback_finds_the_signals_of_its_draft(
    signal: Feedback,
    good: bool,  # noqa: FBT001
    weight: float,
) -> None:
    """Each kind says whether the draft was good, and how surely."""
    memory = Memory()
    memory.remember("r1", 0, SIGNALS, task="FACT", mode="balanced")
    memory.remember("r1", 1, {"steps": 0.9}, task="FACT", mode="balanced")
    found = memory.feedback("r1", 0, signal, now=12.0)
    assert found == Label(
        SIGNALS,
        good=good,
        source=Source.USER,
        weight=weight,
        at=12.0,
        task="FACT",
        mode="balanced",
        origin="r1/0",
    )
    assert set(MEANING) == set(Feedback)


def test_feedback_on_an_unknown_draft_is_no_label() -> None:
    """Another request, or another candidate."""
    memory = Memory()
    memory.remember("r1", 0, SIGNALS)
    assert memory.feedback("r2", 0, Feedback.LIKED, now=0) is None
    assert memory.feedback("r1", 1, Feedback.LIKED, now=0) is None


def test_what_is_remembered_is_a_copy() -> None:
    """The caller may use its own further."""
    memory = Memory()
    mine = dict(SIGNALS)
    memory.remember("r1", 0, mine)
    mine["steps"] = 0.9
    found = memory.feedback("r1", 0, Feedback.LIKED, now=0)
    assert found is not None
    assert found.signals == SIGNALS


def test_memory_is_bounded_and_forgets_the_longest_unused() -> None:
    """Feedback counts as use."""
    memory = Memory()
    for index in range(REMEMBERED):
        memory.remember(f"r{index}", 0, SIGNALS)
    assert memory.feedback("r0", 0, Feedback.LIKED, now=0) is not None
    memory.remember("new", 0, SIGNALS)
    assert len(memory) == REMEMBERED
    assert memory.feedback("r0", 0, Feedback.LIKED, now=0) is not None
    assert memory.feedback("r1", 0, Feedback.LIKED, now=0) is None


def test_a_second_feedback_replaces_the_first() -> None:
    """On the same draft, of the same source; the newest is the last in order."""
    kept = Labels()
    for one in (
        label("a"),
        label("b"),
        label("a", good=False),
        label("a", source=Source.SHADOW),
        label(),
        label(),
    ):
        kept.add(one)
    assert [(one.origin, one.source, one.good) for one in kept.all] == [
        ("b", Source.USER, True),
        ("a", Source.USER, False),
        ("a", Source.SHADOW, True),
        ("", Source.USER, True),
        ("", Source.USER, True),
    ]


def test_labels_are_bounded() -> None:
    """The oldest go."""
    kept = Labels(tuple(replace(label(), at=float(index)) for index in range(KEPT_LABELS + 10)))
    assert len(kept) == KEPT_LABELS
    assert kept.all[0].at == 10.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40))
def test_bad_ones_are_counted_as_they_come(given_labels: list[tuple[bool, int]]) -> None:
    """Also where a label takes the place of another one."""
    kept = Labels()
    for good, origin in given_labels:
        kept.add(Label({}, good, Source.USER, origin=str(origin) if origin else ""))
        assert kept.bad == sum(not label.good for label in kept.all)


def test_forgotten_bad_ones_do_not_count() -> None:
    """The oldest go where there are too many."""
    kept = Labels(tuple(Label({}, number > 0, Source.USER) for number in range(KEPT_LABELS + 1)))
    assert kept.bad == 0
