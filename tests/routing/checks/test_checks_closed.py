"""Final answers to closed questions in one spelling, and the agreement of several."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.checks.closed import (
    Agreement,
    Closed,
    agreement,
    answer_missing,
    closed_answer,
    closed_kind,
    enough,
    options_of,
)

CHOICE = "Which one is a fruit?\nA. slate\nB. pear\nC. rain\nD. none of these"
COUNT = "Tom has 3 boxes of 4 pens. How many pens does he have?"
YES = "Is Rome in Italy? Answer yes or no."


@pytest.mark.parametrize(
    "asked, kind",
    [
        (CHOICE, Closed.LETTER),
        ("Pick: A) tea B) milk C) wine", Closed.LETTER),
        (YES, Closed.YES_NO),
        ("Ist das wahr? Antworte mit ja oder nein.", Closed.YES_NO),
        ("Tea is a plant. True or false?", Closed.TRUE_FALSE),
        (COUNT, Closed.NUMBER),
        ("Wie viele Beine hat eine Spinne?", Closed.NUMBER),
        ("Combien de jours a une semaine ?", Closed.NUMBER),
        ("¿Cuántos días tiene una semana?", Closed.NUMBER),
        ("What is the total cost of the trip?", Closed.NUMBER),
        ("What is 12 * (3 + 4)?", Closed.NUMBER),
        ("Who wrote Faust?", None),
        ("Write a story about how many stars there are.", None),
        ("Why is the sky blue?", None),
        ("A. I like tea.", None),
        ("There are 20 true/false questions. Who wrote them?", None),
    ],
)
def test_the_kind_of_question_is_seen(asked: str, kind: Closed | None) -> None:
    """Offered letters, yes or no, a number."""
    assert closed_kind(asked) is kind


def test_options_are_lettered_in_order() -> None:
    """From A, at least two."""
    assert [letter for letter, _ in options_of(CHOICE)] == ["A", "B", "C", "D"]
    assert options_of("B. pear\nC. rain") == ()


@pytest.mark.parametrize(
    "asked, answer, final",
    [
        (CHOICE, "B", "B"),
        (CHOICE, "B. pear", "B"),
        (CHOICE, "(B)", "B"),
        (CHOICE, "**B**", "B"),
        (CHOICE, "The correct answer is B.", "B"),
        (CHOICE, "The answer is (B) pear, because A is a stone.", "B"),
        (CHOICE, r"\boxed{B} since slate is a stone", "B"),
        (CHOICE, "It is the pear.", "B"),
        (CHOICE, "A pear grows on trees, so the answer is option B.", "B"),
        (CHOICE, "I do not know.", None),
        (YES, "Yes, it is.", "yes"),
        (YES, "The answer is no.", "no"),
        (YES, "Rome lies in Italy, so yes.", "yes"),
        (YES, "Rome is old.", None),
        ("Tea is a plant. True or false?", "True.", "yes"),
        ("Regnet es, ja oder nein?", "Nein, heute nicht.", "no"),
        (COUNT, "12", "12"),
        (COUNT, "He has 3 * 4 = 12 pens.", "12"),
        (COUNT, "Each box has 4.\n#### 12", "12"),
        (COUNT, "twelve", "12"),
        (COUNT, "He has 12.0 pens", "12"),
        ("What is the total cost?", "It comes to $1,000.00.", "1000"),
        ("What is the total cost?", "1000 dollars", "1000"),
        ("What is the total cost?", "Das sind 1.000,50 €.", "1000.5"),
        ("What fraction of it is left?", r"\boxed{\frac{1}{4}}", "0.25"),
        ("What fraction of it is left?", "1/4", "0.25"),
        ("How many degrees is it?", "It is -5 degrees.", "-5"),
        ("Who wrote Faust?", "Goethe.", "goethe"),
        ("Who wrote Faust?", " GOETHE ", "goethe"),
        ("Who wrote Faust?", r"I think of \boxed{Goethe}, because he did.", "goethe"),
        (
            "Who wrote Faust?",
            "It was written over sixty years by a German poet called Goethe.",
            None,
        ),
        ("Write a loop", "```python\nfor x in y:\n    pass\n```", None),
        ("Who wrote Faust?", "", None),
    ],
)
def test_the_final_answer_has_one_spelling(asked: str, answer: str, final: str | None) -> None:
    """However it is put."""
    assert closed_answer(asked, answer) == final


@given(st.integers(-(10**9), 10**9))
def test_a_number_is_the_same_in_all_its_forms(number: int) -> None:
    """With grouping, decimals, currency and words around it."""
    sign, plain = ("-" if number < 0 else ""), abs(number)
    forms = (
        f"{sign}{plain}",
        f"{sign}{plain:,}",
        f"{sign}{plain}.0",
        f"It is {sign}{plain} in all.",
    )
    assert {closed_answer(COUNT, form) for form in forms} == {str(number)}


@pytest.mark.parametrize(
    "asked, answer",
    [
        (CHOICE, "Fruit grows on trees and stones do not."),
        (YES, "Rome is a city with a long history."),
        ("Tea is a plant. True or false?", "Tea is drunk hot."),
        (COUNT, "He has some pens in boxes."),
    ],
)
def test_an_answer_that_is_missing_is_severe(asked: str, answer: str) -> None:
    """Nothing of it is what was asked for."""
    fault = answer_missing(asked, answer)
    assert fault is not None
    assert fault.severe


@pytest.mark.parametrize(
    "asked, answer",
    [
        (CHOICE, "pear"),
        (YES, "Yes"),
        (COUNT, "A dozen."),
        (COUNT, "None."),
        ("How many people came?", "Several hundred did."),
        ("How many planets have life?", "Only one is known."),
        ("Wie viele Beine hat ein Hund?", "Vier."),
        ("How much does it cost?", "It is free."),
        ("Who wrote Faust?", "I do not know."),
        ("他有多少支笔?", "他有十二支笔。"),
    ],
)
def test_an_answer_in_words_is_not_missing(asked: str, answer: str) -> None:
    """Numbers have many words; a question for an amount may have another answer."""
    assert answer_missing(asked, answer) is None


def test_the_largest_class_wins() -> None:
    """The first of it, and its share of all answers."""
    assert agreement(COUNT, ["13", "12", "He has 12.", "$12.00"]) == Agreement(0.75, 1)
    assert agreement(COUNT, ["13", "12"]) == Agreement(0.5, 0)


def test_open_answers_agree_with_nobody() -> None:
    """Not even with themselves."""
    text = "It was written over sixty years by a poet from Frankfurt."
    assert agreement("Who wrote Faust?", [text, text]) == Agreement(0.0, None)
    assert agreement("Who wrote Faust?", [text, "Goethe", "goethe."]) == Agreement(2 / 3, 1)
    assert agreement("Who wrote Faust?", []) == Agreement(0.0, None)


@pytest.mark.parametrize(
    "share, seen, total, stop",
    [
        (1.0, 1, 4, False),
        (1.0, 2, 4, True),
        (0.5, 2, 4, False),
        (2 / 3, 3, 8, True),
        (0.5, 4, 8, False),
        (0.6, 5, 8, False),
        (0.75, 4, 8, True),
        (0.0, 3, 8, False),
        (0.25, 8, 8, True),
        (1.0, 1, 1, True),
    ],
)
def test_two_of_three_are_enough(share: float, seen: int, total: int, stop: bool) -> None:  # noqa: FBT001
    """Two equal ones that are two thirds of what was seen, or all there may be."""
    assert enough(Agreement(share, 0), seen, total) is stop


@given(st.lists(st.sampled_from(["12", "13", "It is 12.", "many"]), max_size=8))
def test_a_share_counts_the_winners_class(answers: list[str]) -> None:
    """Recounted by hand."""
    found = agreement(COUNT, answers)
    if found.winner is None:
        assert all(each == "many" for each in answers)
        return
    finals = [closed_answer(COUNT, each) for each in answers]
    assert found.share == finals.count(finals[found.winner]) / len(answers)
    assert finals.index(finals[found.winner]) == found.winner


@given(st.text(max_size=400), st.text(max_size=400))
def test_any_text_can_be_looked_at(asked: str, answer: str) -> None:
    """Nothing raises, and an answer is never empty."""
    assert closed_answer(asked, answer) != ""
    answer_missing(asked, answer)
    answer_missing(CHOICE, answer)
    closed_answer(COUNT, answer)


def test_a_long_request_is_not_kept() -> None:
    """Caches hold the part that is looked at, and not megabytes of somebody's text."""
    asked = "x" * 1_000_000 + " How many cats are there?"
    tracemalloc.start()
    try:
        assert closed_answer(asked, "There are 12 cats.") == "12"
        again = "y" + asked
        assert closed_answer(again, "There are 12 cats.") == "12"
        del again
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 200_000
