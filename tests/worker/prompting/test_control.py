"""Control tokens in user text are cut, whatever is put beside it."""

from __future__ import annotations

import itertools
import re
import time

from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.prompting.control import ControlTexts, _any_of

MARK = "\U000f0000"
letters = st.text(alphabet="<|>ab ", max_size=24)
spellings = st.lists(
    st.text(alphabet="<|>ab", min_size=2, max_size=6), min_size=1, max_size=6, unique=True
)
REAL = ("<|im_start|>", "<|im_end|>", "<|im_sep|>", "[INST]", "[/INST]", "<s>", "</s>", "<|x y|>")


@given(spellings, letters)
def test_the_pattern_finds_what_a_plain_alternation_finds(texts: list[str], text: str) -> None:
    """At every place the longest that is there."""
    plain = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))

    assert plain.findall(text) == re.findall(_any_of(texts), text)


@given(spellings, letters)
def test_no_part_of_a_cut_text_holds_a_control_token(texts: list[str], text: str) -> None:
    """And without the marks it is the text that was given."""
    cut = ControlTexts(texts).cut(text, MARK)

    assert text == cut.replace(MARK, "")
    assert not [spelled for spelled in texts for part in cut.split(MARK) if spelled in part]


@given(st.lists(st.tuples(st.sampled_from(["", "<", "<|", "_", "|>", ">"]), letters), max_size=5))
def test_texts_that_are_put_side_by_side_form_none(pieces: list[tuple[str, str]]) -> None:
    """A template's own fragments between them, and its trimming, make no difference."""
    _form_none([(glue, text) for glue, text in pieces])


@given(st.sampled_from(REAL), st.lists(st.integers(1, 11), max_size=4), st.lists(st.booleans()))
def test_a_control_token_in_pieces_forms_none(
    spelled: str, cuts: list[int], from_template: list[bool]
) -> None:
    """Spread over texts, or begun by the template and completed by a user."""
    edges = sorted({0, len(spelled), *(cut for cut in cuts if cut < len(spelled))})
    pieces = [spelled[a:b] for a, b in itertools.pairwise(edges)]
    whose = [*from_template, *[False] * len(pieces)]
    # One piece at least is a user's, else the token is the template's own.
    whose[len(pieces) - 1] = False
    _form_none(
        [(piece, "") if own else ("", piece) for piece, own in zip(pieces, whose, strict=False)]
    )


def _form_none(pieces: list[tuple[str, str]]) -> None:
    control = ControlTexts(REAL)
    for trim in (False, True):
        rendered = ""
        for glue, text in pieces:
            fenced = control.fence(text, MARK)
            rendered += glue + (fenced.strip() if trim else fenced)
        for part in rendered.split(MARK):
            assert not [spelled for spelled in REAL if spelled in part]


def test_ordinary_text_is_not_touched() -> None:
    """Neither inside nor at its ends."""
    control = ControlTexts(REAL)
    for text in ("Hello!", " a < b | c > d ", "", "  \n", "x = [1, 2]; y"):
        assert text == control.fence(text, MARK)
    assert ControlTexts([]).fence("<s>", MARK) == "<s>"
    assert ControlTexts(["x"]).fence("x", MARK) == "x"


def test_a_megabyte_that_begins_like_control_tokens_is_read_at_once() -> None:
    """It took 13 s with Gemma's 6,000, and nothing else in the process could run meanwhile."""
    control = ControlTexts(f"<unused{number}>" for number in range(6000))
    began = time.perf_counter()
    control.fence("<" * 10**6, MARK)
    assert time.perf_counter() - began < 2
