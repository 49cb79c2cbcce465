"""How much of a draft stays: typical acceptance, and where it is cut."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd import wire
from gemd.routing.checks.accepted import DELTA, EPSILON, accepted_prefix, passes


def token(
    piece: str | bytes, *, good: bool = True, entropy: float = 0.1, logprob: float | None = None
) -> wire.TokenLogprob:
    """A scored token that the model would have written, or would not."""
    if logprob is None:
        logprob = -0.01 if good else -9.0
    return wire.TokenLogprob(
        token=1,
        piece=piece.encode() if isinstance(piece, str) else piece,
        logprob=logprob,
        rank=0 if good else 5,
        entropy=entropy,
    )


def draft(*pieces: str) -> list[wire.TokenLogprob]:
    """Tokens by their pieces; one in «~» is rejected."""
    return [token(each.removeprefix("~"), good=not each.startswith("~")) for each in pieces]


def test_the_bar_is_the_papers() -> None:
    """The smaller of epsilon and delta times exp(-H); a first choice always passes."""
    for entropy in (0.0, 0.5, 1.0, 2.0, 5.0):
        bar = min(EPSILON, DELTA * math.exp(-entropy))
        above = token("a", good=False, entropy=entropy, logprob=math.log(bar * 1.001))
        below = token("a", good=False, entropy=entropy, logprob=math.log(bar * 0.999))
        assert passes(above)
        assert not passes(below)
    assert passes(token("a", logprob=-20.0))
    assert not passes(token("a", good=False, logprob=-math.inf))
    assert not passes(token("a", good=False, logprob=math.nan))


def test_an_accepted_draft_stays_whole() -> None:
    """Nothing is cut off it, wherever it ends."""
    found = accepted_prefix(draft("The", " tide", " comes"))
    assert (found.tokens, found.text, found.share) == (3, "The tide comes", 1.0)
    assert found.first_rejected is None


@pytest.mark.parametrize(
    "pieces, kept",
    [
        (["One", ".", " Two", " is", "~ bad", " here", "."], "One."),
        (["One", ". ", "Two", "~ bad"], ""),
        (["One", ".\n", "Two", "~ bad"], "One.\n"),
        (["- a", "\n", "- b", "\n", "- ", "~bad"], "- a\n- b\n"),
        (["It", " is", "~ bad", "."], ""),
        (["~bad", " text", "."], ""),
        (["It", " costs", " 3", ".", "5", "~ bad"], ""),
        (["Dr", ".", " Ann", " came", ".", " She", "~ bad"], "Dr. Ann came."),
        (["1", ".", " Tea", ".", "\n", "2", ".", "~ bad"], "1. Tea.\n"),
        (["好", "。", "不", "~坏"], "好。"),
        (["So", "!", "”", " And", "~ bad"], "So!”"),
        (["One", ".", "~ bad"], "One."),
    ],
)
def test_a_cut_is_at_a_sentence_or_a_line(pieces: list[str], kept: str) -> None:
    """The last one inside of the accepted run, between tokens."""
    found = accepted_prefix(draft(*pieces))
    assert found.text == kept
    assert found.first_rejected == next(i for i, each in enumerate(pieces) if each[0] == "~")
    assert found.share == found.tokens / len(pieces)


def test_code_is_cut_at_a_line() -> None:
    """A full stop in it ends nothing; behind the block a sentence does again."""
    code = ["Here", ".\n", "```py\n", "x", " = 1", "\n", "# Done", ".", " And", "~ bad"]
    assert accepted_prefix(draft(*code)).text == "Here.\n```py\nx = 1\n"
    behind = ["```py\n", "x\n", "```\n", "Done", ".", " And", "~ bad"]
    assert accepted_prefix(draft(*behind)).text == "```py\nx\n```\nDone."


@pytest.mark.parametrize("layout", [" ", "\n\n", ",", " **", "“"])
def test_one_miss_in_the_layout_is_forgiven(layout: str) -> None:
    """If four tokens behind it pass."""
    good = [token(each) for each in (" a", " b", " c", " d", ".")]
    found = accepted_prefix([token("So"), token(layout, good=False), *good])
    assert found.first_rejected is None
    few = accepted_prefix([token("So"), token(layout, good=False), *good[:3]])
    assert few.first_rejected == 1


def test_a_second_miss_is_not_forgiven() -> None:
    """Two are no accident."""
    good = [token(each) for each in (" a", " b", " c", " day", ".")]
    miss = token(" **", good=False)
    found = accepted_prefix([token("So"), miss, *good, miss, *good])
    assert found.first_rejected == 7
    assert found.text == "So ** a b c day."


@pytest.mark.parametrize("piece", [" not", "7", "=", "+", "-", " x", "%"])
def test_a_miss_in_a_word_or_a_figure_is_never_forgiven(piece: str) -> None:
    """What follows a wrong figure is consistent with it and proves nothing."""
    good = [token(each) for each in (" a", " b", " c", " d", ".")]
    found = accepted_prefix([token("So"), token(piece, good=False), *good])
    assert found.first_rejected == 1


def test_a_point_between_digits_is_no_layout() -> None:
    """3.5 is another number than 35."""
    rest = [token(each) for each in ("5", " a", " b", " c", " d")]
    found = accepted_prefix([token("3"), token(".", good=False), *rest])
    assert found.first_rejected == 1


def test_characters_are_never_cut() -> None:
    """Bytes of one character may be several tokens."""
    snow = "Schnee ☃.\n".encode()
    parts = [token(snow[:8]), token(snow[8:10]), token(snow[10:]), token("bad", good=False)]
    assert accepted_prefix(parts).text == "Schnee ☃.\n"
    broken = [token("Ja.\n"), token("☃".encode()[:1]), token("bad", good=False)]
    assert accepted_prefix(broken).text == "Ja.\n"


def test_no_tokens_are_no_text() -> None:
    """And no share."""
    found = accepted_prefix([])
    assert (found.tokens, found.text, found.share, found.first_rejected) == (0, "", 0.0, None)


PIECES = st.sampled_from(["a", " b", ".", "\n", "```\n", "☃", " 3", ",", "!", " Dr", "。", "1"])


@given(st.lists(st.tuples(PIECES, st.booleans()), max_size=40))
def test_a_prefix_is_one(pieces: list[tuple[str, bool]]) -> None:
    """The text is that of the first tokens, before the first rejected one, and whole or ended."""
    tokens = [token(piece, good=good) for piece, good in pieces]
    found = accepted_prefix(tokens)
    assert found.text == "".join(piece for piece, _ in pieces[: found.tokens])
    if found.first_rejected is None:
        assert found.tokens == len(tokens)
    else:
        assert found.tokens <= found.first_rejected
        assert not pieces[found.first_rejected][1]
        assert found.text == "" or found.text[-1] in ".!\n。"


@given(st.lists(st.binary(max_size=4), max_size=20), st.integers(0, 19))
def test_any_bytes_can_be_looked_at(pieces: list[bytes], bad: int) -> None:
    """A model may write anything."""
    accepted_prefix([token(piece, good=index != bad) for index, piece in enumerate(pieces)])


@given(st.lists(st.tuples(PIECES, st.floats(-12, 0), st.floats(0, 6)), max_size=30))
def test_a_lower_bar_keeps_no_less(scored: list[tuple[str, float, float]]) -> None:
    """Acceptance grows with tolerance."""
    tokens = [
        token(piece, good=False, logprob=logprob, entropy=entropy)
        for piece, logprob, entropy in scored
    ]
    strict, mild = accepted_prefix(tokens), accepted_prefix(tokens, epsilon=0.01, delta=0.03)
    assert mild.tokens >= strict.tokens
