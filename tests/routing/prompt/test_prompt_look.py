from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd import wire
from gemd.routing.prompt import FEATURES, Task, features_of, look_at, shipped_prior
from tests.support.engine_host import chat

MEGABYTE = 1 << 20


def test_last_user_turn_is_looked_at() -> None:
    """The turns before count as tokens, and nothing else of them is looked at."""
    alone = look_at(chat("Who wrote Faust?"))
    later = look_at(chat("Write an essay.", "Here it is: …", "Who wrote Faust?", system="Be kind"))
    assert later.text == "Who wrote Faust?"
    assert later.prior == alone.prior == shipped_prior().probability(features_of(later.text))
    assert (later.task, later.expected_tokens) == (Task.FACT, alone.expected_tokens)
    assert later.prompt_tokens > alone.prompt_tokens


def test_text_is_looked_at_as_it_is() -> None:
    """A raw text is all that is asked."""
    look = look_at(wire.Prompt(text="Translate to German: cat"))
    assert (look.text, look.task) == ("Translate to German: cat", Task.TRANSLATE)


def test_of_token_ids_only_their_number_is_known() -> None:
    """Nothing is guessed of them: the prior is that of an average prompt."""
    look = look_at(wire.Prompt(tokens=(5, 6, 7)))
    assert (look.text, look.prompt_tokens) == ("", 3)
    assert look.prior == shipped_prior().average


def test_a_chat_without_a_user_turn_asks_nothing() -> None:
    """It is looked at like an empty text."""
    prompt = wire.Prompt(chat=(wire.ChatMessage(role="system", text="Be kind"),))
    assert look_at(prompt).text == ""


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    """Features and prior are finite, the prior is a probability, and a second look is the same."""
    prompt = wire.Prompt(text=text)
    look, features = look_at(prompt), features_of(text)
    assert len(features) == len(FEATURES)
    assert 0 < look.prior < 1
    assert all(math.isfinite(value) for value in features)
    assert look_at(prompt) == look


# A pattern that backtracks does not end on these within a test's time.
HOSTILE = {
    "blanks": " ",
    "lines": "\n",
    "a letter": "a",
    "an opening": "write ",
    "openings and gaps": "fix a ",
    "a question": "is it ",
    "numbers": "1,",
    "digits": "9",
    "signs": "([{",
    "unfinished fences": "```\n",
    "demands": "in 1 1 ",
    "accents": "é",
    "marks that combine": "e\u0301\u0301",
    "emoji": "👩‍👩‍👧",
    "ideographs": "写",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_work_is_bounded(unit: str) -> None:
    """A megabyte of whatever patterns might stumble over is looked at, and like a part of it.

    Only a bounded window is: what the middle of the megabyte is makes no difference.
    """
    text = unit * (MEGABYTE // len(unit))
    look = look_at(wire.Prompt(text=text))
    middle = len(text) // 2
    other = look_at(wire.Prompt(text=f"{text[:middle]}?{text[middle + 1 :]}"))
    assert other.prior == look.prior
    assert other.task is look.task


def test_of_many_turns_the_last_is_looked_at() -> None:
    """A conversation of ten thousand turns, all of which have tokens."""
    look = look_at(chat(*(f"turn {number}" for number in range(9999))))
    assert look.text == "turn 9998"
    assert look.prompt_tokens > 9999 * 5
