"""What is guessed of a draft, however it differs from the answer."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.llama.speculation import FAILURES, LARGEST_CHUNK, Speculation

if TYPE_CHECKING:
    from collections.abc import Sequence

few = st.lists(st.integers(0, 3), max_size=40)
"""Of four tokens: they repeat, and every alignment has rivals."""
TEXT = tuple(range(100, 200))


def decodes(answer: Sequence[int], speculation: Speculation, *, most: int = LARGEST_CHUNK) -> int:
    """How many decodes an answer takes, each with at most so many guesses."""
    place, count = 0, 0
    while place < len(answer):
        guess = speculation.guess(len(answer) - place - 1)[:most]
        right = 0
        while right < len(guess) and guess[right] == answer[place + right]:
            right += 1
        for token in answer[place : place + right + 1]:
            speculation.follow(token)
        if guess:
            speculation.judge(len(guess), right)
        place += right + 1
        count += 1
    return count


@given(few, few, st.integers(1, 40))
def test_an_answer_is_never_slower_than_without_a_draft(
    answer: list[int], draft: list[int], most: int
) -> None:
    """A decode gives a token at least, and what was accepted besides."""
    speculation = Speculation(draft)
    assert decodes(answer, speculation, most=most) == len(answer) - speculation.accepted
    assert 0 <= speculation.accepted <= speculation.drafted


@given(few, few, st.integers(0, 40))
def test_a_guess_stands_in_the_draft(answer: list[int], draft: list[int], room: int) -> None:
    """In order, and not longer than there is room."""
    speculation = Speculation(draft)
    for token in answer:
        guess = speculation.guess(room)
        assert len(guess) <= room
        assert any(
            tuple(draft[place : place + len(guess)]) == guess for place in range(len(draft) + 1)
        )
        speculation.follow(token)


def test_a_right_draft_takes_ever_larger_chunks() -> None:
    """8, 16, 32 and 32, one more with each, and the rest."""
    speculation = Speculation(TEXT)
    assert decodes(TEXT, speculation) == 5
    assert speculation.accepted == speculation.drafted == len(TEXT) - 5


def test_words_replaced_put_in_or_left_out_cost_a_few_tokens_each() -> None:
    """The draft is found again behind them, and most of it is taken over."""
    changes = {
        "replaced": (*TEXT[:40], 1, 2, *TEXT[42:]),
        "put in": (*TEXT[:40], 1, 2, *TEXT[40:]),
        "left out": (*TEXT[:40], *TEXT[45:]),
    }
    for what, draft in changes.items():
        speculation = Speculation(draft)
        assert decodes(TEXT, speculation) < len(TEXT) / 4, what
        assert speculation.drafted - speculation.accepted < LARGEST_CHUNK, what


def test_another_text_costs_no_more_than_a_few_guesses() -> None:
    """Common pairs of words are no alignment: after some failures nothing is guessed any more."""
    choose = random.Random(7)
    answer = [choose.randrange(12) for _ in range(400)]
    draft = [choose.randrange(12) for _ in range(400)]
    speculation = Speculation(draft)
    decodes(answer, speculation)
    assert speculation.guess(10) == ()
    assert speculation.drafted < len(answer) / 4


def test_failures_count_only_in_a_row() -> None:
    """One right token, and the draft has all its chances again."""
    speculation = Speculation(TEXT)
    for accepted in (*[0] * (FAILURES - 1), 1, *[0] * (FAILURES - 1)):
        speculation.judge(2, accepted)
        assert speculation.guess(1) == TEXT[:1]
    speculation.judge(2, 0)
    assert speculation.guess(1) == ()
