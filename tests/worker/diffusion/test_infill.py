"""Texts with gaps: where every token lies, and what comes back."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd import wire
from gemd.errors import InvalidRequestError
from gemd.worker.diffusion.draws import SeededDraws
from gemd.worker.diffusion.infill import MAX_CHOSEN, Layout, lay_out
from gemd.worker.diffusion.sampler import RANDOM, Canvas, Schedule
from gemd.worker.prompting.prompt import PromptBuilder
from tests.support.tiny_diffusion import TINY
from tests.support.tokenizer_files import vocabulary_of

VOCABULARY = vocabulary_of(TINY, ends=(1, 7))
TOKENIZE = PromptBuilder(VOCABULARY, None).continued
PAD, EOS, TURN_END = 0, 1, 7
CANVAS = 256


def fixed(text: str) -> wire.Span:
    """Text that stays."""
    return wire.Span(text=text)


def free(text: str = "", max_tokens: int = 0) -> wire.Span:
    """A gap."""
    return wire.Span(free=True, text=text, max_tokens=max_tokens)


def laid_out(*spans: wire.Span, canvas: int = CANVAS) -> Layout:
    """These spans on a canvas of the tiny model's vocabulary."""
    return lay_out(spans, tokenize=TOKENIZE, vocabulary=VOCABULARY, canvas_tokens=canvas)


def filled_with(layout: Layout, *texts: str, end: tuple[int, ...] = (EOS, 50, 51)) -> list[int]:
    """The canvas with these texts in its gaps, from each one's start, and these tokens behind."""
    canvas = layout.tokens.copy()
    (free_positions,) = np.nonzero(~layout.fixed)
    gaps = np.split(free_positions, np.nonzero(np.diff(free_positions) > 1)[0] + 1)
    for gap, text in zip(gaps, texts, strict=True):
        tokens = [*TOKENIZE(text), *end * len(gap)][: len(gap)]
        canvas[gap] = tokens
    assert (canvas != RANDOM).all()
    return [int(token) for token in canvas]


def refused(*spans: wire.Span, canvas: int = CANVAS) -> InvalidRequestError:
    """Why these spans cannot be had."""
    with pytest.raises(InvalidRequestError) as caught:
        laid_out(*spans, canvas=canvas)
    assert caught.value.why
    assert caught.value.advice
    return caught.value


def test_a_gap_between_two_texts() -> None:
    """The first is read like a prompt; the canvas has the gap, the second, and the end."""
    layout = laid_out(fixed("The capital of"), free(max_tokens=4), fixed(" is Paris."))

    behind = TOKENIZE(" is Paris.")
    assert list(layout.head) == TOKENIZE("The capital of")
    assert layout.tokens.shape == layout.fixed.shape == (CANVAS,)
    assert layout.tokens.dtype == np.int64
    assert layout.fixed.dtype == np.bool_
    assert layout.tokens.tolist() == [
        *[RANDOM] * 4,
        *behind,
        TURN_END,
        *[EOS] * (CANVAS - 4 - len(behind) - 1),
    ]
    assert layout.fixed.tolist() == [False] * 4 + [True] * (CANVAS - 4)
    canvas = np.array(filled_with(layout, " France"))
    filling = layout.filled(canvas)
    assert filling.text == "The capital of France is Paris."
    assert filling.spans == (" France",)
    assert filling.tokens == len(TOKENIZE(" France"))


def test_the_sampler_starts_from_a_layout() -> None:
    """And leaves what is fixed as it is."""
    layout = laid_out(free("Rome", 9), fixed("."))
    canvas = Canvas.start(
        Schedule(), SeededDraws(1, 0, 0), vocabulary=512, given=layout.tokens, fixed=layout.fixed
    )
    initial = TOKENIZE("Rome")
    assert canvas.tokens[: len(initial)].tolist() == initial
    assert (canvas.tokens >= 0).all()
    assert (canvas.tokens[layout.fixed] == layout.tokens[layout.fixed]).all()


@pytest.mark.parametrize(
    "spans,lengths",
    [
        # As long as the text it is edited from.
        ([free("The capital of France")], [len(TOKENIZE("The capital of France"))]),
        ([free("Rome", 30)], [30]),
        # Nobody said: equal shares of what is left, and never more than the most.
        ([free()], [MAX_CHOSEN]),
        ([free(), free()], [MAX_CHOSEN, MAX_CHOSEN]),
        ([free("", 200), free()], [200, 56]),
        ([free("", 201), free(), fixed("."), free()], [201, 27, 27]),
        ([free("", 254), free(), free()], [254, 1, 1]),
        ([free("", 256)], [256]),
    ],
)
def test_lengths_of_gaps(spans: list[wire.Span], lengths: list[int]) -> None:
    """The request's own, or else chosen."""
    layout = laid_out(*spans)
    assert int((~layout.fixed).sum()) == sum(lengths)
    filling = layout.filled(np.where(layout.fixed, layout.tokens, TOKENIZE("a")[0]))
    assert [len(text) for text in filling.spans] == lengths


def test_a_text_to_be_edited_starts_its_gap() -> None:
    """What is left of the gap is random."""
    layout = laid_out(fixed("x"), free("Rome", 6), free("", 2))
    initial = TOKENIZE("Rome")
    assert layout.tokens[:8].tolist() == [*initial, *[RANDOM] * (8 - len(initial))]


@pytest.mark.parametrize("behind", [(EOS, 50), (TURN_END, 50), (PAD,), (PAD, EOS, 50)])
def test_a_gap_ends_where_an_answer_would(behind: tuple[int, ...]) -> None:
    """What stands behind its end is dropped, and padding is no text; in the last gap too."""
    layout = laid_out(free("", 20), fixed(" is "), free("", 20))
    filling = layout.filled(np.array(filled_with(layout, "The sky", "blue.", end=behind)))
    assert filling.spans == ("The sky", "blue.")
    assert filling.text == "The sky is blue."
    words, rest = len(TOKENIZE("The sky")), len(TOKENIZE("blue."))
    assert filling.tokens == words + rest
    # Only these are judged: of what stands behind an end every model is sure.
    first, second = 0, 20 + len(TOKENIZE(" is "))
    places = [*range(first, first + words), *range(second, second + rest)]
    assert np.flatnonzero(filling.written).tolist() == places


def test_a_gap_may_stay_empty() -> None:
    """Of padding alone, or of an end at once."""
    layout = laid_out(fixed("a"), free("", 3), fixed("b"))
    for token in (PAD, EOS, TURN_END):
        filling = layout.filled(np.where(layout.fixed, layout.tokens, token))
        assert (filling.text, filling.spans, filling.tokens) == ("ab", ("",), 0)


def test_half_a_character_in_a_gap_is_one_that_is_unknown() -> None:
    """It cannot be completed by what is given behind it."""
    layout = laid_out(fixed("a"), free("", 1), fixed("é"))
    first = TOKENIZE("€")[0]
    assert layout.filled(np.where(layout.fixed, layout.tokens, first)).text == "a�é"


def test_given_text_side_by_side_is_one_text() -> None:
    """Borders of spans are no borders of tokens, and empty spans are none at all."""
    together = laid_out(fixed("The capital"), free("", 2), fixed(" is Paris."))
    apart = laid_out(
        *(fixed("The ca"), fixed(""), fixed("pital")),
        free("", 2),
        *(fixed(" is Pa"), fixed("ris"), fixed("."), fixed("")),
    )
    assert apart.head == together.head
    assert apart.tokens.tolist() == together.tokens.tolist()
    canvas = np.where(together.fixed, together.tokens, EOS)
    assert apart.filled(canvas) == together.filled(canvas)


@pytest.mark.parametrize("text", ["<turn|>", "a<|turn>model\n", "<eos><eos>", "<|channel>"])
def test_no_span_can_write_a_control_token(text: str) -> None:
    """Not in front, not behind, and not in what a gap is edited from."""
    layout = laid_out(fixed(text), free(text), fixed(text))
    length = len(TOKENIZE(text))
    spoken = [*layout.head, *layout.tokens[: 2 * length].tolist()]
    assert len(spoken) == 3 * length
    assert all(VOCABULARY.piece(token) for token in spoken)
    assert layout.filled(layout.tokens).text == text * 3


def test_a_full_canvas_has_no_end() -> None:
    """There is no position left for one, and none is taken from a span."""
    dot = TOKENIZE(".")
    layout = laid_out(free("", CANVAS - 1), fixed("."))
    assert layout.tokens[-1:].tolist() == dot
    layout = laid_out(free("", CANVAS - 2), fixed("."))
    assert layout.tokens[-2:].tolist() == [*dot, TURN_END]


@pytest.mark.parametrize("spans", [[], [fixed("a")], [fixed(""), fixed("b")]])
def test_a_text_without_a_gap_is_refused(spans: list[wire.Span]) -> None:
    """There is nothing to write."""
    error = refused(*spans)
    assert error.metadata == {"field": "spans", "spans": str(len(spans))}


@pytest.mark.parametrize(
    "spans,needed,given,asked",
    [
        ([free("", 257)], 257, 0, 257),
        ([free("", 100), fixed("." * 100), free("", 60)], 260, 100, 160),
        ([free("", 256), free()], 257, 0, 256),
        ([free("", 255), free(), free()], 257, 0, 255),
        ([free(), fixed("." * 256)], 257, 256, 0),
        ([free("." * 300)], 300, 0, 300),
    ],
)
def test_what_does_not_fit_a_canvas_is_refused_with_its_numbers(
    spans: list[wire.Span], needed: int, given: int, asked: int
) -> None:
    """Given text and gaps each, so that it is clear what to shorten."""
    # The tiny vocabulary has a token for one full stop only.
    assert len(TOKENIZE("." * 9)) == 9
    error = refused(*spans)
    assert error.metadata == {
        "field": "spans",
        "tokens": str(needed),
        "limit": "256",
        "fixed_tokens": str(given),
        "free_tokens": str(asked),
    }
    assert {str(needed), "256"} <= set(re.findall(r"\d+", error.message))


def test_what_stands_before_the_first_gap_takes_nothing_of_the_canvas() -> None:
    """It may be as long as the context."""
    layout = laid_out(fixed("." * 5000), free("", 256))
    assert len(layout.head) == 5000
    assert not layout.fixed.any()


def test_spans_that_contradict_themselves_are_refused() -> None:
    """A fixed one with a length, and a gap that is shorter than what it starts from."""
    error = refused(free(), wire.Span(text="a", max_tokens=3))
    assert error.metadata == {"field": "spans[1]", "max_tokens": "3"}
    error = refused(fixed("a"), free("....", 3))
    assert error.metadata == {
        "field": "spans[1].free.max_tokens",
        "initial_tokens": "4",
        "max_tokens": "3",
    }


texts = st.text(alphabet="the Paris.é\n<|turn>", max_size=12)
spans = st.lists(
    st.builds(fixed, texts)
    | st.builds(free, texts)
    | st.builds(free, max_tokens=st.integers(0, 9)),
    min_size=1,
    max_size=8,
).filter(lambda spans: any(span.free for span in spans))


@given(spans, st.data())
def test_every_text_with_gaps_comes_back_as_it_was_given(
    spans: list[wire.Span], data: st.DataObject
) -> None:
    """Whatever the model writes: fixed text letter by letter, and gaps in the request's order."""
    layout = laid_out(*spans)
    assert ((layout.tokens == RANDOM) <= ~layout.fixed).all()
    assert not np.isin(layout.tokens[~layout.fixed], [EOS, TURN_END]).any()
    noise = data.draw(st.lists(st.integers(0, 511), min_size=CANVAS, max_size=CANVAS))
    filling = layout.filled(np.where(layout.fixed, layout.tokens, noise))

    gaps = iter(filling.spans)
    assert filling.text == "".join(next(gaps) if span.free else span.text for span in spans)
    assert next(gaps, None) is None
    assert 0 <= filling.tokens <= int((~layout.fixed).sum())
    if all(span.text or not span.free for span in spans):
        assert layout.filled(layout.tokens).text == "".join(span.text for span in spans)
