"""From labels to probabilities and a limit that bounds the harm."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.risk import (
    Calibration,
    Label,
    Source,
    auroc,
    fit,
)
from gemd.routing.risk.calibration import CLEAR_MARGIN, _split
from gemd.routing.risk.conformal import Case, harm_limit
from gemd.routing.risk.isotonic import fit_isotonic
from gemd.routing.risk.logistic import fit_logistic
from gemd.routing.risk.signals import draft_signals
from tests.support.drafts import labels

PAIRS = st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=1, max_size=60)


# --- isotonic ----------------------------------------------------------------------------


@given(PAIRS, st.floats(-6, 6), st.floats(-6, 6))
def test_isotonic_never_falls(pairs: list[tuple[float, bool]], one: float, other: float) -> None:
    """And stays within the outcomes that were seen."""
    scores, outcomes = zip(*pairs, strict=True)
    made = fit_isotonic(scores, [float(each) for each in outcomes], [1.0] * len(pairs))
    assert list(made.values) == sorted(set(made.values))
    low, high = sorted((one, other))
    assert min(outcomes) <= made(low) <= made(high) <= max(outcomes)


@given(PAIRS)
def test_isotonic_keeps_the_mean(pairs: list[tuple[float, bool]]) -> None:
    """Pools carry all the weight and all the outcomes."""
    outcomes = [float(bad) for _, bad in pairs]
    weights = [1.0 + index % 3 for index in range(len(pairs))]
    made = fit_isotonic([score for score, _ in pairs], outcomes, weights)
    assert (
        min(made.values)
        <= sum(outcome * weight for outcome, weight in zip(outcomes, weights, strict=True))
        / sum(weights)
        + 1e-9
    )
    assert len(made.values) == len(made.points)


def test_isotonic_pools_what_is_in_the_wrong_order() -> None:
    """By hand: the middle two are one pool; between pools the line is straight."""
    made = fit_isotonic([0, 1, 2, 3], [0, 1, 0, 1], [1, 1, 1, 1])
    assert made.points == (0, 1.5, 3)
    assert made.values == (0, 0.5, 1)
    assert made(0.75) == pytest.approx(0.25)
    assert (made(-9), made(9)) == (0, 1)


# --- logistic ----------------------------------------------------------------------------


def test_logistic_finds_the_odds_that_made_the_data() -> None:
    """With many rows the penalty hardly counts."""
    draws = random.Random(1)
    rows, bad = [], []
    for _ in range(6000):
        row = {"steps": draws.gauss(0, 1), "prior": draws.gauss(0, 1)}
        odds = -1.0 + 1.5 * row["steps"] - 0.5 * row["prior"]
        rows.append(row)
        bad.append(draws.random() < 1 / (1 + math.exp(-odds)))
    made = fit_logistic(rows, bad, [1.0] * len(rows))
    assert made.log_odds({"steps": 0, "prior": 0}) == pytest.approx(-1.0, abs=0.12)
    assert made.log_odds({"steps": 1, "prior": 0}) == pytest.approx(0.5, abs=0.15)
    assert made.log_odds({"steps": 0, "prior": 1}) == pytest.approx(-1.5, abs=0.15)


def test_logistic_takes_what_is_missing_for_the_mean() -> None:
    """A row without a signal is as one with its mean; what never varies has no say."""
    rows = [{"steps": index / 40, "capped": 1.0} for index in range(40)]
    made = fit_logistic(rows, [index > 20 for index in range(40)], [1.0] * 40)
    assert list(made.terms) == ["steps"]
    assert made.log_odds({}) == pytest.approx(made.log_odds({"steps": 39 / 80}))
    assert made.shares({"capped": 3.0}) == {}


def test_logistic_stays_finite_where_one_signal_tells_all() -> None:
    """Without the penalty the odds would grow without end."""
    rows = [{"steps": float(index >= 50)} for index in range(100)]
    made = fit_logistic(rows, [index >= 50 for index in range(100)], [1.0] * 100)
    assert 1.0 < made.log_odds({"steps": 1}) < 10.0


def test_logistic_counts_rows_by_weight() -> None:
    """Half a row says half as much."""
    rows = [{"steps": 0.0}, {"steps": 1.0}] * 30
    heavy = fit_logistic(rows, [False, True] * 30, [1.0] * 60)
    light = fit_logistic(rows, [False, True] * 30, [0.1] * 60)
    assert heavy.terms["steps"][0] > light.terms["steps"][0] > 0
    # Three to one at the same place, so those are the odds there.
    rows = [{"steps": float(index % 2)} for index in range(400)]
    bad = [index % 4 < 2 for index in range(400)]
    made = fit_logistic(rows, bad, [3.0 if is_bad else 1.0 for is_bad in bad])
    assert made.log_odds({"steps": 1.0}) == pytest.approx(math.log(3), abs=0.05)


# --- conformal ---------------------------------------------------------------------------


def test_the_limit_by_hand() -> None:
    """19 cases: (harm + 1) / 20 at most 0.1 allows one bad one."""
    cases = [Case(float(index), bad=index in {5, 9}) for index in range(19)]
    assert harm_limit(cases, 0.1) == 8.0
    assert harm_limit(cases, 0.15) == 18.0
    assert harm_limit(cases, 0.04) is None
    assert harm_limit(cases, 0.05) == 4.0
    assert harm_limit([], 0.5) is None


def test_equal_scores_are_shipped_together() -> None:
    """A limit cannot part them, so one bad one among them counts for all."""
    cases = [Case(0.0, bad=False)] * 30 + [Case(1.0, bad=index < 5) for index in range(10)]
    assert harm_limit(cases, 0.1) == 0.0


@given(
    st.lists(
        st.tuples(st.floats(-3, 3), st.booleans(), st.sampled_from([0.5, 1.0, 20.0])),
        min_size=1,
        max_size=60,
    ),
    st.floats(0.01, 0.5),
    st.floats(0.01, 0.5),
)
def test_more_harm_allowed_lowers_no_limit(
    drawn: list[tuple[float, bool, float]], one: float, other: float
) -> None:
    """And at the limit the bound holds for the cases themselves."""
    cases = [Case(*each) for each in drawn]
    low, high = (harm_limit(cases, alpha) for alpha in sorted((one, other)))
    if low is not None:
        assert high is not None
        assert high >= low
        heaviest = max(case.weight for case in cases)
        harm = sum(case.weight for case in cases if case.bad and case.score <= low)
        total = sum(case.weight for case in cases)
        assert harm + heaviest <= min(one, other) * (total + heaviest) + 1e-9


def test_the_harm_stays_bounded_in_repeated_draws() -> None:
    """Expected harm of the next draft over 2,000 machines with 60 labels each."""
    draws = random.Random(2)

    def case() -> Case:
        score = draws.random()
        return Case(score, bad=draws.random() < score)

    harmed = 0
    machines = 2000
    for _ in range(machines):
        limit = harm_limit([case() for _ in range(60)], 0.1)
        following = case()
        harmed += limit is not None and following.bad and following.score <= limit
    # Three standard errors above; and not far below, or the limit would be of no use.
    assert 0.06 < harmed / machines < 0.1 + 3 * math.sqrt(0.1 * 0.9 / machines)


# --- all together ------------------------------------------------------------------------


def shipped(made: Calibration, signals: dict[str, float]) -> bool:
    """As the judge does with a calibration: at once, or after the check."""
    alone = made.draft.log_odds(draft_signals(signals))
    if made.regression(signals) is made.draft:
        return alone <= made.limit
    return alone <= made.limit - CLEAR_MARGIN or made.checked.log_odds(signals) <= made.limit


def test_calibration_recovers_the_order() -> None:
    """The signals tell bad from good, and the check's tell more."""
    made = fit(labels(1, 600), 0.2).calibration
    assert made is not None
    assert (made.labels, made.bad) == (600, sum(not one.good for one in labels(1, 600)))
    assert made.auroc > 0.8
    fresh = labels(50, 2000, checked=1.0)
    bad = [not label.good for label in fresh]
    alone = auroc([made.draft.log_odds(draft_signals(one.signals)) for one in fresh], bad)
    both = auroc([made.checked.log_odds(one.signals) for one in fresh], bad)
    assert 0.7 < alone < both - 0.05
    assert both > 0.9


def test_calibrated_harm_holds_on_fresh_drafts() -> None:
    """Mean over 60 machines with 150 labels: share of all drafts that is shipped and bad."""
    harms, shares = [], []
    for seed in range(60):
        made = fit(labels(seed, 150), 0.1).calibration
        if made is None:
            continue
        fresh = labels(1000 + seed, 400)
        kept = [not one.good for one in fresh if shipped(made, dict(one.signals))]
        harms.append(sum(kept) / len(fresh))
        shares.append(len(kept) / len(fresh))
    assert len(harms) > 40
    assert sum(harms) / len(harms) < 0.105
    assert sum(shares) / len(shares) > 0.35


def test_labels_of_a_sample_stand_for_all_of_it() -> None:
    """Every refined draft has a label, and one shipped draft in ten.

    Weighted, the bound holds for all drafts; unweighted, most labels are of refined ones, which do
    no harm and hide that of the others.
    """
    draws = random.Random(5)
    harms: list[float] = []
    unweighted: list[float] = []
    for seed in range(20):
        sampled = []
        for label in labels(seed, 2500, bad=0.5, checked=1.0):
            is_shipped = label.signals["ar_q10"] < 4.5
            propensity = 0.1 if is_shipped else 1.0
            if draws.random() < propensity:
                sampled.append(replace(label, propensity=propensity))
        fresh = labels(2000 + seed, 500, bad=0.5, checked=1.0)
        for found, fitted in (
            (harms, fit(sampled, 0.1)),
            (unweighted, fit([replace(one, propensity=1.0) for one in sampled], 0.1)),
        ):
            made = fitted.calibration
            kept = [made is not None and shipped(made, dict(one.signals)) for one in fresh]
            bad = [keep and not one.good for keep, one in zip(kept, fresh, strict=True)]
            found.append(sum(bad) / len(fresh))
    assert sum(harms) / len(harms) < 0.1
    assert sum(unweighted) / len(unweighted) > 0.105


@pytest.mark.parametrize(
    "count,bad",
    [(99, 30), (120, 14), (120, 106)],
)
def test_too_few_labels_calibrate_nothing(count: int, bad: int) -> None:
    """A hundred are needed, and 15 of each kind."""
    made = [
        Label({"steps": index / count}, good=index >= bad, source=Source.USER)
        for index in range(count)
    ]
    fitted = fit(made, 0.5)
    assert fitted.calibration is None
    assert str(count) in fitted.reason


def test_labels_of_refined_drafts_alone_bound_no_harm() -> None:
    """Where nothing is known of shipped drafts, it takes 15 labels of them."""
    refined = [replace(one, source=Source.SHADOW) for one in labels(3, 300)]
    fitted = fit(refined, 0.2)
    assert fitted.calibration is None
    assert "0 of shipped ones" in fitted.reason
    sampled = [replace(one, propensity=0.5) for one in refined[:14]]
    assert fit([*sampled, *refined[14:]], 0.2).calibration is None
    sampled = [replace(one, propensity=0.5) for one in refined[:15]]
    assert fit([*sampled, *refined[15:]], 0.2).calibration is not None


def test_the_split_holds_out_a_third_of_each_kind() -> None:
    """The same for the same labels; bad ones are rather held out than not."""
    made = labels(3, 200)
    learnt, held = _split(made)
    assert len(learnt) + len(held) == 200
    bad = sum(not one.good for one in made)
    assert sum(not one.good for one in held) == math.ceil(bad / 3)
    assert _split(made) == (learnt, held)


def test_a_fit_of_all_labels_does_not_hold_up_a_daemon_for_long() -> None:
    """Two thousand labels with every signal converge; run in a thread all the same."""
    made = fit(labels(8, 2000, checked=1.0), 0.1)
    assert made.calibration is not None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auroc_counts_pairs(pairs: list[tuple[int, bool]]) -> None:
    """As the definition does, ties by half."""
    good = [score for score, bad in pairs if not bad]
    worse = [score for score, bad in pairs if bad]
    found = auroc([float(score) for score, _ in pairs], [bad for _, bad in pairs])
    if not good or not worse:
        assert found == 0.5
        return
    won = sum((b > g) + 0.5 * (b == g) for g in good for b in worse)
    assert found == pytest.approx(won / (len(good) * len(worse)))


def test_praise_alone_ships_nothing_more() -> None:
    """Who only likes answers says nothing of those that he kept silent about."""
    refined = [replace(each, source=Source.SHADOW) for each in labels(1, 200, bad=0.6)]
    praise = [replace(each, source=Source.USER) for each in labels(2, 400, bad=0.0) if each.good]
    found = fit([*refined, *praise], 0.1)
    assert found.calibration is None
    assert "complained" in found.reason
    complaints = [replace(each, source=Source.USER) for each in labels(3, 20, bad=1.0)]
    assert fit([*refined, *praise, *complaints], 0.1).calibration is not None


def test_drawn_labels_tell_the_harm_without_praise() -> None:
    """Where shipped drafts were drawn, what users like raises no limit."""
    drawn = [
        replace(each, source=Source.SHADOW, propensity=0.5) for each in labels(1, 400, checked=1.0)
    ]
    praise = [replace(each, source=Source.USER) for each in labels(2, 1500, bad=0.0, checked=1.0)]
    alone, praised = fit(drawn, 0.1).calibration, fit([*drawn, *praise], 0.1).calibration
    assert alone is not None
    assert praised is not None
    fresh = labels(9, 2000, checked=1.0)
    for made in (alone, praised):
        harm = sum(shipped(made, dict(each.signals)) and not each.good for each in fresh)
        assert harm / len(fresh) <= 0.13
