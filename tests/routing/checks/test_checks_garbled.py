"""Good answers in many forms have no fault; what is no sentence has one."""

from __future__ import annotations

import pytest

from gemd.routing.checks import find_faults
from gemd.routing.checks.garbled import garbled
from tests.routing.checks.good_answers import GOOD

GARBAGE = (
    ("What is the capital of France?", "is is is because"),
    ("What is the capital of France?", "of Italy"),
    ("What is the capital of France?", "the"),
    ("Why is the sky blue?", "the the sky of of blue because is light scat"),
    ("How do I boil an egg?", "egg water the of boil with in minute and the"),
    ("What is the capital of France?", "Capital the France of is Paris the is"),
    ("Who wrote Faust?", "wrote wrote Faust Faust"),
    ("Who wrote Faust?", "and"),
    ("Name a fruit.", "a"),
    ("What colour is grass?", "gr gre green een"),
    ("What is the tallest mountain?", "Mount Mount Everest is is the the tallest"),
    ("Why do birds sing?", "xqz vrtk plmn grrt bzzt"),
    ("Tell me a joke", "Why did the chicken cross the"),
    ("Explain photosynthesis.", "Plants make sugar. They take in carbon di"),
    ("Was ist ein Atom?", "Ein Atom ist und und ein ein Teilchen"),
    ("Why is the sky blue?", "Der Himmel ist blau, weil das Licht gestreut wird und das ist so."),
    ("Why is the sky blue?", "El cielo es azul porque la luz se dispersa más que en el agua"),
)


@pytest.mark.parametrize("asked, answer", GOOD)
def test_good_answers_have_no_fault(asked: str, answer: str) -> None:
    """None at all: a mild one costs a check, and a severe one a second answer."""
    assert find_faults(asked, answer) == ()


@pytest.mark.parametrize("asked, answer", GARBAGE)
def test_garbage_has_a_fault(asked: str, answer: str) -> None:
    """Short garbage too, of which no share of repeated n-grams can be taken."""
    assert find_faults(asked, answer)


def test_what_is_told_by_a_few_words_is_mild() -> None:
    """A slip is a reason to look closer, and no more."""
    faults = [each for asked, answer in GARBAGE for each in find_faults(asked, answer)]
    assert not any(each.severe for each in faults)


@pytest.mark.parametrize(
    "asked, answer",
    [
        ("Fix the typo: I saw the the cat", "You wrote «the the»: I saw the cat"),
        ("What are you afraid of?", "of spiders"),
        ("Write song lyrics with a doubled word", "of of of the the moon"),
        ("Which word fits: a cup __ tea", "of"),
        ("What do they say?", "That that is, is: he had had enough of it."),
        ("Et vous?", "Nous nous levons tôt, et vous vous levez tard."),
        ("Was tun sie?", "Die, die die Arbeit machen, sind müde."),
        ("What do the files contain?", "Run `the the of of is is` to see them."),
    ],
)
def test_doubled_words_that_are_right(asked: str, answer: str) -> None:
    """Pairs of the request, of verse, of code, and those that a language has."""
    assert garbled(asked, answer) is None


def test_one_slip_in_a_long_text_is_none() -> None:
    """Three are."""
    text = "Rivers carry water from the hills to the sea, and towns were built along them. " * 4
    assert garbled("Tell me about rivers.", f"{text}This is the the end.") is None
    assert garbled("Tell me about rivers.", f"{text}{'This is the the end. ' * 3}") is not None
