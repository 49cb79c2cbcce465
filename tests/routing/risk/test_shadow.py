"""Shadow runs: which drafts, what is asked, and what the answers mean."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd import wire
from gemd.routing.risk import (
    SHARE,
    combine,
    compare,
    is_drawn,
    log_odds,
    p_true,
    p_true_prompt,
    pairwise,
)
from gemd.routing.risk.shadow import SHOWN_CHARS
from tests.support.drafts import scored
from tests.support.engine_host import chat


def scores(*sums: float) -> tuple[wire.Continuation, ...]:
    """Continuations of two tokens each."""
    return tuple(wire.Continuation(tokens=scored([each / 2, each / 2])) for each in sums)


@pytest.mark.parametrize("share", [SHARE, 0.5])
def test_so_large_a_share_is_drawn(share: float) -> None:
    """Of 20,000 drafts, within four standard errors; and not the same ones with another seed."""
    drawn = [is_drawn(number, 7, share) for number in range(20_000)]
    assert sum(drawn) / 20_000 == pytest.approx(
        share, abs=4 * math.sqrt(share * (1 - share) / 20_000)
    )
    other = [is_drawn(number, 8, share) for number in range(20_000)]
    both = sum(one and two for one, two in zip(drawn, other, strict=True)) / 20_000
    assert both == pytest.approx(share**2, abs=0.02)


@given(st.integers(0, 2**70), st.integers(0, 2**64))
def test_a_draw_is_the_same_every_time(number: int, seed: int) -> None:
    """Nothing is always drawn, and everything never."""
    assert is_drawn(number, seed) == is_drawn(number, seed)
    assert not is_drawn(number, seed, 0.0)
    assert is_drawn(number, seed, 1.0)


def test_closed_questions_are_compared_by_their_answers() -> None:
    """However they are worded."""
    asked = "How many legs has a spider?"
    assert compare(asked, "A spider has 8 legs.", "8") is True
    assert compare(asked, "A spider has 6 legs.", "8") is False


def test_open_answers_need_a_judge_unless_they_are_the_same() -> None:
    """Spaces and line ends do not count."""
    asked = "Describe the sea in spring."
    assert compare(asked, "Grey and  cold.\n", "Grey and cold.") is True
    assert compare(asked, "Grey and cold, as ever.", "A silver mirror full of wind.") is None
    assert compare("Who wrote it?", "Shakespeare", "William Shakespeare.") is None
    assert compare("Who wrote it?", "shakespeare", "Shakespeare.") is True
    long = "It was grey. " * 30
    assert compare(asked, long, "Grey and cold.") is None


def test_both_orders_show_both_answers() -> None:
    """The letter that speaks for the draft moves with it."""
    first, second = pairwise("Which?", "the draft", "the strong one")
    assert first.prompt.chat is not None
    assert second.prompt.chat is not None
    one, two = first.prompt.chat[0].text, second.prompt.chat[0].text
    assert one.index("the draft") < one.index("the strong one")
    assert two.index("the draft") > two.index("the strong one")
    assert (first.continuations, second.continuations) == (("A", "B"), ("B", "A"))


def test_braces_in_a_text_are_text() -> None:
    """Code has them."""
    first, _ = pairwise("{asked}", "{0} {first!r}", "{")
    assert first.prompt.chat is not None
    assert "{0} {first!r}" in first.prompt.chat[0].text


def test_long_texts_are_cut_and_say_so() -> None:
    """Beginning and end stay."""
    first, _ = pairwise("q" * 100_000, "start" + "x" * 100_000 + "end", "short")
    assert first.prompt.chat is not None
    text = first.prompt.chat[0].text
    assert len(text) < 3 * SHOWN_CHARS
    assert "start" in text
    assert "end\n</answer_a>" in text
    assert "characters left out" in text


@given(st.floats(-5, 5), st.floats(-3, 3))
def test_an_advantage_of_the_first_place_makes_no_draft_bad(better: float, place: float) -> None:
    """What is equal but for the place is a tie, and a tie will do."""
    assert combine(0.0 + place, 0.0 - place)
    if combine(better + place, better - place) is False:
        assert better < 0


def test_the_strong_answer_wins_only_in_both_orders() -> None:
    """One order alone is no verdict."""
    assert combine(-2.0, -0.1) is False
    assert combine(-2.0, 0.1) is True
    assert combine(1.0, 1.0) is True


def test_log_odds_are_those_of_the_whole_continuations() -> None:
    """In the order of the question; impossible ones stay ordered."""
    assert log_odds(scores(-0.5, -2.0)) == pytest.approx(1.5)
    assert log_odds(scores(-math.inf, -1.0)) == -math.inf
    assert log_odds(scores(-math.inf, -math.inf)) == 0.0


def test_p_true_goes_on_from_prompt_and_draft() -> None:
    """So that what has been read is read no second time."""
    asked = chat("Who?", "Ann.", "And why?", system="Be brief.")
    question = p_true_prompt(asked, "Because.")
    assert question is not None
    assert asked.chat is not None
    assert question.prompt.chat is not None
    assert question.prompt.chat[: len(asked.chat)] == asked.chat
    assert question.prompt.chat[-2] == wire.ChatMessage(role="assistant", text="Because.")
    assert question.prompt.chat[-1].role == "user"
    assert question.continuations == ("Yes", "No")
    plain = p_true_prompt(wire.Prompt(text="Once"), " upon a time")
    assert plain is not None
    assert plain.prompt.text is not None
    assert plain.prompt.text.startswith("Once upon a time\n")
    assert p_true_prompt(wire.Prompt(tokens=(1, 2)), "x") is None


@given(st.floats(-60, 0), st.floats(-60, 0))
def test_p_true_is_a_probability(yes: float, no: float) -> None:
    """Of the two answers; one half where they are equal."""
    found = p_true(scores(yes, no))
    assert 0 <= found <= 1
    assert found == pytest.approx(1 / (1 + math.exp(no - yes)), abs=1e-9)
