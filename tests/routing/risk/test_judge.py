"""Ship, check or refine: three phases, a budget, and floors that no phase moves."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.prompt import Task
from gemd.routing.risk import (
    Basis,
    Evidence,
    Fitted,
    Judge,
    Judgement,
    Label,
    Source,
    State,
    Verdict,
    fit,
)
from gemd.routing.risk.judge import BUDGET_FROM, REFERENCE_UNTIL, REFIT_AFTER
from tests.support.drafts import MILD, SEVERE, evidence, labels, look, stream

BADNESS = st.floats(0, 1)


def decided(judge: Judge, badness: float, read: float, **fields: float) -> Judgement:
    """A draft's way through the judge: alone, and if it wants, after the check; it learns."""
    found = judge.judge(evidence(badness, **fields), checked=False, may_check=True)  # type: ignore[arg-type]
    if found.verdict is Verdict.CHECK:
        found = judge.judge(evidence(badness, read=read, **fields), checked=True, may_check=True)  # type: ignore[arg-type]
    judge.learn(found)
    return found


def seasoned(drafts: int = 300) -> Judge:
    """A judge that has seen so many drafts of a middling drafter."""
    judge = Judge()
    for badness, read in itertools.islice(stream(1), drafts):
        decided(judge, badness, read)
    return judge


SEASONED = seasoned()


def calibrated(judge: Judge | None = None, *, harm: float = 0.2) -> Judge:
    """A judge with labels."""
    made = judge if judge is not None else Judge(harm=harm)
    for label in labels(1, 400):
        made.add(label)
    made.adopt(fit(made.labels, made.harm))
    assert made.report().basis is Basis.CALIBRATED
    return made


JUDGES = {"REFERENCE": Judge(), "BUDGET": SEASONED, "CALIBRATED": calibrated()}


@pytest.mark.parametrize("basis", JUDGES)
@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("may_check", [False, True])
def test_a_severe_fault_is_never_shipped(basis: str, checked: bool, may_check: bool) -> None:  # noqa: FBT001
    """However good all else looks, and no check is paid for it."""
    found = JUDGES[basis].judge(
        evidence(0.0, read=0.0 if checked else None, faults=(SEVERE,), prior=0.0),
        checked=checked,
        may_check=may_check,
    )
    assert (found.verdict, found.code) == (Verdict.REFINE, "SEVERE_FAULT")
    assert found.basis == basis


@pytest.mark.parametrize("basis", JUDGES)
@given(BADNESS, BADNESS, st.booleans(), st.booleans())
def test_check_is_said_only_where_there_can_be_one(
    basis: str,
    badness: float,
    read: float,
    checked: bool,  # noqa: FBT001
    may_check: bool,  # noqa: FBT001
) -> None:
    """A draft that was checked, or cannot be, is decided; numbers are within bounds."""
    given_evidence = evidence(badness, read=read if checked else None)
    found = JUDGES[basis].judge(given_evidence, checked=checked, may_check=may_check)
    if checked or not may_check:
        assert found.verdict is not Verdict.CHECK
    assert 0 <= found.risk <= 1
    assert 0 <= found.limit <= 1
    assert found.explanation


@pytest.mark.parametrize("basis", ["REFERENCE", "BUDGET"])
@given(
    st.tuples(BADNESS, BADNESS, BADNESS),
    st.tuples(BADNESS, BADNESS, BADNESS),
    st.sampled_from([None, 0]),
    st.booleans(),
)
def test_worse_evidence_lowers_no_risk(
    basis: str,
    one: tuple[float, float, float],
    other: tuple[float, float, float],
    unread: int | None,
    may_check: bool,  # noqa: FBT001
) -> None:
    """And never turns a verdict for the better."""
    order = [Verdict.SHIP, Verdict.CHECK, Verdict.REFINE]
    good, bad = (tuple(map(pick, one, other)) for pick in (min, max))
    found = [
        JUDGES[basis].judge(
            evidence(each[0], read=each[1] if unread is None else None, prior=each[2]),
            checked=unread is None,
            may_check=may_check,
        )
        for each in (good, bad)
    ]
    assert found[0].risk <= found[1].risk + 1e-12
    assert order.index(found[0].verdict) <= order.index(found[1].verdict)


PROVEN = State(
    drafts=(0.0,) * REFERENCE_UNTIL,
    finals=(0.0,) * REFERENCE_UNTIL,
    refined=(0.0,) * REFERENCE_UNTIL,
    judged=REFERENCE_UNTIL,
)
"""Of a drafter that is no longer new; the reference scales still rule."""


def test_a_known_drafter_ships_what_is_clear_and_what_is_hopeless_is_refined() -> None:
    """By the reference scales, without a check; what lies between is checked."""
    judge = Judge(state=PROVEN)
    verdicts = {
        badness: judge.judge(evidence(badness), checked=False, may_check=True)
        for badness in (0.0, 0.4, 1.0)
    }
    assert [each.verdict for each in verdicts.values()] == [
        Verdict.SHIP,
        Verdict.CHECK,
        Verdict.REFINE,
    ]
    assert [each.code for each in verdicts.values()] == ["CLEAR", "UNSURE", "HOPELESS"]
    assert "steps" in verdicts[1.0].explanation


def test_the_first_drafts_are_checked_however_good_they_look() -> None:
    """A canvas can settle on nonsense; what is hopeless is refined at once all the same."""
    judge = Judge()
    found = [judge.judge(evidence(each), checked=False, may_check=True) for each in (0.0, 1.0)]
    assert [(each.verdict, each.code) for each in found] == [
        (Verdict.CHECK, "UNPROVEN"),
        (Verdict.REFINE, "HOPELESS"),
    ]
    assert {each.basis for each in found} == {Basis.REFERENCE}
    assert "0 drafts were judged here" in found[0].explanation


def test_the_check_decides_between() -> None:
    """A middling draft that the other model finds likely ships; one that it does not is mended."""
    judge = Judge()
    likely = judge.judge(evidence(0.4, read=0.0), checked=True, may_check=True)
    unlikely = judge.judge(evidence(0.4, read=1.0), checked=True, may_check=True)
    assert likely.verdict is Verdict.SHIP
    assert unlikely.verdict is Verdict.REFINE
    assert unlikely.code == "RISK_ABOVE_LIMIT"
    assert sum(unlikely.shares.values()) == pytest.approx(unlikely.risk)


def test_without_a_trace_or_with_a_fault_nothing_is_clear() -> None:
    """A short text without faults is no proof of anything."""
    judge = Judge()
    untraced = Evidence(look(prior=0.0), None, ())
    assert judge.judge(untraced, checked=False, may_check=True).verdict is Verdict.CHECK
    mild = evidence(0.0, faults=(MILD,), prior=0.0)
    assert judge.judge(mild, checked=False, may_check=True).verdict is Verdict.CHECK
    assert judge.judge(mild, checked=False, may_check=False).verdict is Verdict.SHIP


@pytest.mark.parametrize("budget", [0.1, 0.25, 0.4])
@pytest.mark.parametrize("level", [0.3, 0.45])
def test_the_refine_rate_becomes_the_budget(budget: float, level: float) -> None:
    """Whatever the drafter's level on the reference scales, as long as no floor is reached."""
    judge = Judge(budget=budget)
    refined = []
    for badness, read in itertools.islice(stream(7, level=level, spread=0.08), 1500):
        refined.append(decided(judge, badness, read).verdict is Verdict.REFINE)
    rate = sum(refined[500:]) / 1000
    assert rate == pytest.approx(budget, abs=0.04)
    report = judge.report()
    assert (report.basis, report.judged) == (Basis.BUDGET, 1500)
    assert report.refine_rate == pytest.approx(budget, abs=0.08)


def test_what_must_be_refined_uses_up_the_budget() -> None:
    """With a severe fault in 15 of 100 drafts, ten more are refined for a budget of 25."""
    judge = Judge(budget=0.25)
    refined = []
    for index, (badness, read) in enumerate(
        itertools.islice(stream(8, level=0.4, spread=0.1), 1500)
    ):
        faults = (SEVERE,) if index % 20 < 3 else ()
        given_evidence = evidence(badness, read=read, faults=faults)
        found = judge.judge(given_evidence, checked=True, may_check=True)
        judge.learn(found)
        refined.append(found.verdict is Verdict.REFINE)
    assert sum(refined[500:]) / 1000 == pytest.approx(0.25, abs=0.04)


def test_the_worst_are_refined() -> None:
    """Of a mixed stream, with the check: refined drafts are worse than shipped ones."""
    judge = seasoned()
    refined: list[float] = []
    shipped: list[float] = []
    for badness, read in itertools.islice(stream(3), 500):
        found = decided(judge, badness, read)
        (refined if found.verdict is Verdict.REFINE else shipped).append(badness + read)
    assert min(len(refined), len(shipped)) > 50
    assert sum(refined) / len(refined) > sum(shipped) / len(shipped) + 0.3


def test_some_drafts_are_decided_without_a_check() -> None:
    """Between a fifth and a half ships at once."""
    judge = seasoned()
    found = [
        judge.judge(evidence(badness), checked=False, may_check=True).verdict
        for badness, _ in itertools.islice(stream(5), 500)
    ]
    assert 100 < found.count(Verdict.SHIP) < 250
    assert found.count(Verdict.CHECK) > 150


def test_an_excellent_drafter_is_not_refined_for_a_budget() -> None:
    """All known by heart: after hundreds of drafts the rate is 0."""
    judge = Judge()
    for badness, _ in itertools.islice(stream(2, level=0.01, spread=0.01), 300):
        ev = evidence(min(badness, 0.04), read=0.0, prior=0.1)
        found = judge.judge(ev, checked=True, may_check=True)
        assert found.verdict is Verdict.SHIP
        judge.learn(found)
    assert judge.report().basis is Basis.BUDGET


def test_a_hopeless_drafter_is_refined_beyond_the_budget() -> None:
    """A budget is no licence to ship garbage."""
    judge = Judge()
    for _ in range(300):
        assert decided(judge, 1.0, 1.0).verdict is Verdict.REFINE
    assert judge.report().refine_rate == 1.0


def test_nothing_jumps_between_the_phases() -> None:
    """Risk and limit of one draft move by little from each draft to the next, to the ranks."""
    judge = Judge()
    fixed = evidence(0.4, read=0.3)
    seen = []
    for badness, read in itertools.islice(stream(9), 250):
        found = judge.judge(fixed, checked=True, may_check=True)
        seen.append((found.risk, found.limit, found.basis))
        decided(judge, badness, read)
    for before, after in itertools.pairwise(seen):
        assert abs(before[0] - after[0]) < 0.03
        assert abs(before[1] - after[1]) < 0.03
    bases = [basis for _, _, basis in seen]
    assert bases.index(Basis.BUDGET) == REFERENCE_UNTIL
    assert BUDGET_FROM > REFERENCE_UNTIL


def test_another_task_weighs_the_likelihood_less() -> None:
    """A piece of writing that the other model finds unlikely ships where a fact does not."""
    judge = Judge()
    found = {
        task: judge.judge(evidence(0.35, read=0.6, task=task), checked=True, may_check=True)
        for task in (Task.FACT, Task.WRITING)
    }
    assert found[Task.FACT].risk > found[Task.WRITING].risk


def test_labels_take_over_when_there_are_enough() -> None:
    """A fit is due at the hundredth label, and after every 25 new ones."""
    judge = Judge(harm=0.2)
    made = labels(4, 175, bad=0.4)
    for label in made[:99]:
        judge.add(label)
        assert not judge.fit_due
    judge.add(made[99])
    assert judge.fit_due
    assert judge.report().basis is Basis.REFERENCE
    assert judge.report().note
    judge.adopt(fit(judge.labels, judge.harm))
    report = judge.report()
    assert (report.basis, report.labels) == (Basis.CALIBRATED, 100)
    assert report.note == ""
    assert report.auroc is not None
    due = []
    for label in made[100:]:
        judge.add(label)
        due.append(judge.fit_due)
    assert due.index(True) == REFIT_AFTER - 1


def test_labels_decide_before_the_check_too() -> None:
    """What is surely good ships, what is surely bad is not checked, the rest is."""
    judge = calibrated(harm=0.1)
    codes = {
        badness: judge.judge(
            evidence(badness, faults=faults, prior=prior), checked=False, may_check=True
        ).code
        for badness, faults, prior in ((0.0, (), 0.2), (0.45, (), 0.3), (1.0, (MILD,), 0.5))
    }
    assert list(codes.values()) == ["CLEAR", "UNSURE", "HOPELESS"]
    risks = [
        judge.judge(evidence(0.3, read=read), checked=True, may_check=True)
        for read in (0.0, 0.3, 1.0)
    ]
    assert [each.verdict for each in risks] == sorted(
        [each.verdict for each in risks], key=[Verdict.SHIP, Verdict.REFINE].index
    )
    assert (risks[0].verdict, risks[-1].verdict) == (Verdict.SHIP, Verdict.REFINE)
    assert "calibrated with 400 labels" in risks[0].explanation
    assert "log-odds" in risks[-1].explanation


def test_calibrated_risks_are_probabilities_that_were_seen() -> None:
    """Of many drafts with about the same risk, about so many are bad."""
    judge = Judge(harm=0.2)
    for label in labels(1, 2000):
        judge.add(label)
    judge.adopt(fit(judge.labels, judge.harm))
    made = judge._calibration
    assert made is not None
    fresh = labels(99, 4000)
    risks = [made.risk(made.regression(one.signals).log_odds(one.signals)) for one in fresh]
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = [
            not label.good
            for label, risk in zip(fresh, risks, strict=True)
            if low <= risk < low + 0.2
        ]
        if len(inside) > 100:
            assert sum(inside) / len(inside) == pytest.approx(low + 0.1, abs=0.12)


def test_a_harm_that_cannot_be_bounded_leaves_the_budget_in_force() -> None:
    """And the report says why."""
    judge = seasoned()
    for index in range(120):
        signals = {"steps": 0.4, "severe_faults": 0.0, "mild_faults": 0.0, "prior": 0.3}
        judge.add(Label(signals=signals, good=index % 2 == 0, source=Source.USER))
    fitted = fit(judge.labels, 0.05)
    assert fitted.calibration is None
    judge.adopt(fitted)
    report = judge.report()
    assert report.basis is Basis.BUDGET
    assert "do not bound the harm" in report.note
    assert not judge.fit_due


def test_a_lost_calibration_falls_back() -> None:
    """A later fit that fails takes the earlier one with it."""
    judge = calibrated(Judge(harm=0.2))
    judge.adopt(Fitted(None, "why", 400))
    assert judge.report().basis is Basis.REFERENCE


def test_a_judge_goes_on_where_another_ended() -> None:
    """What was learnt says the same; what happens later is due to be kept."""
    judge = seasoned(150)
    assert judge.save_due
    state = judge.snapshot()
    assert not judge.save_due
    again = Judge(state=state)
    for badness in (0.1, 0.4, 0.7):
        one, other = (
            each.judge(evidence(badness, read=badness), checked=True, may_check=True)
            for each in (judge, again)
        )
        assert one == other
    judge.add(replace(labels(1, 1)[0], origin="r1/0"))
    assert not judge.save_due
    for index in range(3):
        judge.add(replace(labels(1, 1)[0], origin=f"r{index + 2}/0"))
    assert judge.save_due


def test_a_check_is_no_last_verdict() -> None:
    """Learning from one is a mistake of the caller."""
    judge = Judge()
    with pytest.raises(AssertionError, match="judged again"):
        judge.learn(judge.judge(evidence(0.4), checked=False, may_check=True))
