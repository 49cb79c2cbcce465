"""Evidence as numbers: named, finite, bounded, and the higher the worse."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.prompt import Task
from gemd.routing.risk import SIGNALS, Evidence, draft_signals, signals_of
from gemd.routing.risk.scoring import absolute, mixed, relative
from gemd.routing.risk.signals import OF_THE_CHECK, Group
from tests.support.drafts import MILD, SEVERE, evidence, likelihood, look, trace

VALUES = st.fixed_dictionaries(
    {name: st.floats(signal.least, signal.most) for name, signal in SIGNALS.items()}
)
ODD = st.floats(allow_nan=True, allow_infinity=True)


def test_what_is_not_known_is_left_out() -> None:
    """No guess stands for a trace, a likelihood or a probability that there is not."""
    bare = signals_of(Evidence(look(prior=0.4), None, ()))
    assert bare == {"severe_faults": 0.0, "mild_faults": 0.0, "prior": 0.4}
    full = signals_of(Evidence(look(), trace(), (MILD,), likelihood(), 0.8))
    assert list(full) == list(SIGNALS)
    assert not OF_THE_CHECK & draft_signals(full).keys()
    assert set(draft_signals(full)) | OF_THE_CHECK == set(SIGNALS)


def test_severe_and_mild_faults_are_counted_apart() -> None:
    """Both are no more than their bounds."""
    found = signals_of(Evidence(look(), None, (SEVERE, MILD, MILD)))
    assert (found["severe_faults"], found["mild_faults"]) == (1, 2)
    assert signals_of(Evidence(look(), None, (SEVERE,) * 9))["severe_faults"] == 3


def test_every_signal_rises_with_what_it_tells() -> None:
    """From a draft known by heart to garbage."""
    good = signals_of(Evidence(look(prior=0.1), trace(0), (), likelihood(0), 0.9))
    bad = signals_of(Evidence(look(prior=0.9), trace(1), (SEVERE, MILD), likelihood(1), 0.1))
    assert [name for name in SIGNALS if bad[name] <= good[name]] == []


@given(st.lists(ODD, min_size=9, max_size=9), ODD, ODD)
def test_signals_are_finite_whatever_a_worker_says(
    figures: list[float], prior: float, p_true: float
) -> None:
    """A worker's numbers may be anything."""
    names = [name for name in type(trace()).model_fields if "entropy" in name or "flips" in name]
    fields = dict(zip((*names, "margin_q10"), [*figures, 0.5], strict=False))
    odd = trace().model_copy(update=fields)
    signals = signals_of(Evidence(look(prior=prior), odd, (), None, p_true))
    for name, value in signals.items():
        assert math.isfinite(value)
        assert SIGNALS[name].least <= value <= SIGNALS[name].most


@given(VALUES, st.sampled_from(sorted(SIGNALS)), st.floats(0, 30), st.sampled_from(list(Task)))
def test_a_worse_signal_lowers_no_score(
    values: dict[str, float], name: str, more: float, task: Task
) -> None:
    """On the reference scales; what a score consists of adds up to it."""
    before = absolute(values, task.name)
    worse = {**values, name: SIGNALS[name].bounded(values[name] + more)}
    after = absolute(worse, task.name)
    assert 0 <= before.value <= after.value + 1e-12 <= 1 + 1e-9
    assert math.isclose(sum(before.shares.values()), before.value, abs_tol=1e-9)
    half = mixed(before, relative(values, task.name, {}), 0.5)
    assert math.isclose(sum(half.shares.values()), half.value, abs_tol=1e-9)


def test_what_is_no_number_counts_as_the_worst() -> None:
    """An engine that computes NaN has not shown that its draft is good."""
    odd = trace().model_copy(update={"first_entropy_mean": math.nan, "margin_q10": math.nan})
    found = signals_of(Evidence(look(prior=math.nan), odd, ()))
    for name in ("first_entropy", "margin", "prior"):
        assert found[name] == SIGNALS[name].most


def test_one_alarming_signal_is_heard_among_calm_ones() -> None:
    """A group counts for more than the mean of its signals."""
    signals = {name: SIGNALS[name].good for name in SIGNALS}
    signals["capped"] = 1.0
    score = absolute(signals, "FACT")
    assert score.groups[Group.CONVERGED] > 0.4
    assert set(score.groups) == set(Group)
    assert [name for name, share in score.shares.items() if share > 0] == ["capped"]


def test_likelihood_says_less_of_style() -> None:
    """The same draft, unlikely and else faultless: a riskier answer than piece of writing."""
    signals = signals_of(evidence(0.0, read=1.0))
    assert absolute(signals, "FACT").value > absolute(signals, "WRITING").value + 0.05
