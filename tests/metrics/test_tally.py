"""Counters that only grow, and one page of all figures."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.metrics.families import BY_NAME, FAMILIES, Kind, listed
from gemd.metrics.tally import Page, Tally

LOADS = "gemd_model_loads_total"
QUEUED = "gemd_request_queue_seconds"


def test_what_is_counted_adds_up_by_label() -> None:
    """A page is a copy: what happens later is not on it."""
    tally = Tally()
    tally.count(LOADS, model="a")
    tally.count(LOADS, 2, model="b")
    page = tally.page()
    tally.count(LOADS, model="a")
    assert page.values[LOADS] == {("a",): 1.0, ("b",): 2.0}


@pytest.mark.parametrize("amount", [-1, -0.001, math.nan, math.inf])
def test_a_counter_cannot_be_made_smaller(amount: float) -> None:
    """Nor can it stop being a number; a reader would take that for a restart."""
    tally = Tally()
    tally.count(LOADS, model="a")
    with pytest.raises(ValueError, match="cannot grow"):
        tally.count(LOADS, amount, model="a")
    assert tally.page().values[LOADS] == {("a",): 1.0}


def test_a_bound_belongs_to_its_bucket() -> None:
    """«Less or equal», as the format has it; what is above all bounds is counted too."""
    bounds = BY_NAME[QUEUED].buckets
    tally = Tally()
    for value in (0.0, bounds[0], bounds[0] * 1.01, bounds[-1] + 1):
        tally.observe(QUEUED, value, model="a")
    made = tally.page().histograms[QUEUED]["a",]
    assert (made.counts[0], made.counts[1], made.counts[-1], sum(made.counts)) == (2, 1, 1, 4)
    assert made.total == pytest.approx(bounds[0] * 2.01 + bounds[-1] + 1)


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_unknown_is_not_observed(value: float | None) -> None:
    """It is no observation of 0."""
    tally = Tally()
    tally.observe(QUEUED, value, model="a")
    assert tally.page().histograms == {}


def test_a_clock_that_went_backwards_counts_as_nothing() -> None:
    """So that no sum decreases."""
    tally = Tally()
    tally.observe(QUEUED, -5.0, model="a")
    assert tally.page().histograms[QUEUED]["a",].total == 0.0


def test_unknown_figures_are_left_out_and_shared_labels_add_up() -> None:
    """All models that have no name of their own are one line."""
    page = Page()
    page.put("gemd_model_memory_bytes", 5, model="local", device="cpu")
    page.put("gemd_model_memory_bytes", 7, model="local", device="cpu")
    page.put("gemd_device_free_bytes", None, device="gpu0")
    assert page.values == {"gemd_model_memory_bytes": {("local", "cpu"): 12.0}}


def test_a_name_a_kind_or_a_label_that_does_not_exist_is_a_defect() -> None:
    """It shows where it is written, and not on somebody's dashboard."""
    tally = Tally()
    with pytest.raises(KeyError):
        tally.count("gemd_other_total")
    with pytest.raises(ValueError, match="gauge"):
        tally.count("gemd_uptime_seconds")
    with pytest.raises(ValueError, match="labels"):
        tally.count(LOADS, model="a", path="/home/me")
    with pytest.raises(ValueError, match="labels"):
        Page().put("gemd_uptime_seconds", 1, model="a")


def test_what_is_in_no_list_is_other() -> None:
    """Labels have few values, whatever clients send."""
    assert listed("Generate", frozenset({"Generate"})) == "Generate"
    assert listed("Generate; drop", frozenset({"Generate"})) == "OTHER"


COUNTERS = [each for each in FAMILIES if each.kind is Kind.COUNTER]
HISTOGRAMS = [each for each in FAMILIES if each.kind is Kind.HISTOGRAM]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*COUNTERS, *HISTOGRAMS]),
            st.floats(allow_nan=True, allow_infinity=True),
            st.sampled_from("ab"),
        ),
        max_size=60,
    )
)
def test_no_figure_that_counts_ever_decreases(steps: list[tuple[object, float, str]]) -> None:
    """Whatever is put in, in whatever order."""
    tally = Tally()
    before = tally.page()
    for family, amount, label in steps:
        labels = dict.fromkeys(family.labels, label)  # type: ignore[attr-defined]
        name = family.name  # type: ignore[attr-defined]
        if family in HISTOGRAMS:
            tally.observe(name, amount, **labels)
        else:
            try:
                tally.count(name, amount, **labels)
            except ValueError:
                assert not (math.isfinite(amount) and amount >= 0)
        now = tally.page()
        for one, values in before.values.items():
            assert all(now.values[one][key] >= value for key, value in values.items())
        for one, made in before.histograms.items():
            for key, old in made.items():
                new = now.histograms[one][key]
                assert new.total >= old.total
                assert all(a >= b for a, b in zip(new.counts, old.counts, strict=True))
        before = now
