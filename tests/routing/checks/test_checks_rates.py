"""Fire rates on real answers: a fault on a right answer is rare, whatever it catches."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from gemd.routing.checks import find_faults
from tests.bench.routing.sets import GSM8K, ROUTERARENA, load_set

if TYPE_CHECKING:
    from collections.abc import Iterable

ANSWERS: Final = Path(__file__).with_name("data") / "answers.jsonl.gz"
"""A sample of answers, half of them wrong: 300 by Mixtral-8x7B to GSM8K (from RouteLLM), 80 by
Claude 3 Haiku to RouterArena; both Apache-2.0."""

Answers = list[tuple[str, str, bool]]
"""What was asked, what was answered, and whether that is right."""


def sample(name: str) -> Answers:
    """The part of the sample that is of one set."""
    with gzip.open(ANSWERS, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["prompt"], row["response"], row["ok"]) for row in rows if row["set"] == name]


def whole(name: str) -> Answers:
    """A public set; the test is left out where it is not beside the checkout."""
    try:
        rows = load_set(name)
    except FileNotFoundError as error:
        pytest.skip(f"{error.filename} is not there; GEMD_ROUTING_SETS names its folder")
    return [(row.prompt, row.response, not row.bad) for row in rows]


def rate(answers: Iterable[tuple[str, str, bool]], code: str = "") -> tuple[float, float]:
    """The share of right answers, and of wrong ones, with a severe fault or one of a code."""
    total: Counter[bool] = Counter()
    found: Counter[bool] = Counter()
    for asked, answer, good in answers:
        total[good] += 1
        faults = find_faults(asked, answer)
        found[good] += any(fault.code == code if code else fault.severe for fault in faults)
    return found[True] / total[True], found[False] / total[False]


def test_false_equations_tell_wrong_answers() -> None:
    """At least ten times as many of them have one as of the right answers."""
    right, wrong = rate(sample("gsm8k"), "ARITHMETIC")
    assert right <= 0.014
    assert wrong >= 0.12


def test_right_answers_have_hardly_a_severe_fault() -> None:
    """One in forty is within what the sample can tell of one in a hundred."""
    assert rate(sample("routerarena"))[0] <= 1 / 40


@pytest.mark.slow
def test_all_of_gsm8k() -> None:
    """A sixth of the wrong answers has a severe fault, and under one in a hundred right ones."""
    right, wrong = rate(whole(GSM8K))
    assert right <= 0.01
    assert wrong >= 0.15


@pytest.mark.slow
def test_all_of_routerarena() -> None:
    """Few answers of it have any: what is wrong there is knowledge."""
    assert rate(whole(ROUTERARENA))[0] <= 0.01
