"""Reasoning and answer, told apart by tokens."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.prompting.reasoning import Splitter
from tests.support.tiny_diffusion import TINY
from tests.support.tokenizer_files import vocabulary_of

TINY_VOCABULARY = vocabulary_of(TINY, ends=(1, 7))
OPEN, CLOSE, TURN_END = 8, 9, 7


class Said(NamedTuple):
    """Both parts of an answer, as text, and how many tokens each has."""

    reasoning: str
    answer: str
    reasoned: int
    answered: int


def tokens_of(text: str) -> list[int]:
    """Tokens of a text with control tokens written out."""
    return TINY_VOCABULARY.tokenize(text, add_special=False, parse_special=True)


def split(tokens: list[int], prompt: list[int] | None = None) -> Said:
    """Everything that a splitter makes of an answer."""
    splitter = Splitter(TINY_VOCABULARY, prompt or ())
    pieces = [piece for token in tokens if (piece := splitter.take(token)) is not None]
    reasoning = [piece.data for piece in pieces if piece.reasoning]
    answer = [piece.data for piece in pieces if not piece.reasoning]
    return Said(
        b"".join(reasoning).decode(), b"".join(answer).decode(), len(reasoning), len(answer)
    )


@pytest.mark.parametrize(
    "text,reasoning,answer",
    [
        ("Paris.", "", "Paris."),
        ("<|channel>thought\nSo.\n<channel|>Paris.", "So.\n", "Paris."),
        ("<|channel>thought\nSo.", "So.", ""),
        ("<|channel>thought\n<channel|>Paris.", "", "Paris."),
        ("<|channel>thought<channel|>Paris.", "", "Paris."),
        ("<|channel>thought\n\n\nSo.<channel|>", "\n\nSo.", ""),
        # A thought without its name line loses nothing.
        ("<|channel>thoughtful\n<channel|>a", "thoughtful\n", "a"),
        ("<|channel>tho<channel|>a", "tho", "a"),
        ("<|channel>plan\nSo.<channel|>a", "plan\nSo.", "a"),
        # Again, and in the middle.
        ("a<|channel>thought\nb<channel|>c<|channel>thought\nd<channel|>e", "bd", "ace"),
        ("<|channel>thought\na<|channel>thought\nb<channel|>c", "ab", "c"),
        # Markers that open or close nothing, and other control tokens, are no text.
        ("a<channel|>b", "", "ab"),
        ("a<|think|><|turn>b<turn|>", "", "ab"),
        ("<|channel>thought\na<|think|>b<channel|>", "ab", ""),
        ("thought\nSo.", "", "thought\nSo."),
    ],
)
def test_what_stands_in_a_thought_is_reasoning(text: str, reasoning: str, answer: str) -> None:
    """The channel's name is neither, and each token counts for one part or none."""
    said = split(tokens_of(text))
    assert (said.reasoning, said.answer) == (reasoning, answer)


def test_markers_and_the_name_count_as_reasoning() -> None:
    """They were written, and it was for the reasoning."""
    thought, answer = tokens_of("<|channel>thought\nSo.<channel|>"), tokens_of("Paris.")
    said = split([*thought, *answer, TURN_END])
    assert (said.reasoned, said.answered) == (len(thought), len(answer))


@pytest.mark.parametrize(
    "prompt,inside",
    [
        ("<|turn>model\n<|channel>thought\n<channel|>", False),
        ("<|turn>model\n<|channel>thought\n", True),
        ("<|channel>thought\nSo far", True),
        ("<|channel>thou", True),
        ("<channel|>", False),
        ("", False),
    ],
)
def test_an_answer_may_begin_within_a_thought(prompt: str, *, inside: bool) -> None:
    """One that the prompt has opened; the template's empty one is closed."""
    rest = "ght\n" if prompt.endswith("thou") else ""
    said = split(tokens_of(f"{rest}so<channel|>Paris."), tokens_of(prompt))
    assert said[:2] == (("so", "Paris.") if inside else ("", "soParis."))


class Plain:
    """A vocabulary of bytes; the markers are there, as ordinary text or not at all."""

    special: frozenset[int] = frozenset()

    def __init__(self, markers: dict[str, int]) -> None:
        self.markers = markers

    def token(self, text: str) -> int:
        """See `Vocabulary`."""
        return self.markers.get(text, -1)

    def piece(self, token: int) -> bytes:
        """See `Vocabulary`."""
        return bytes([token])


@pytest.mark.parametrize("markers", [{}, {"<|channel>": 8}, {"<|channel>": 8, "<channel|>": 9}])
@given(tokens=st.lists(st.integers(0, 255), max_size=30))
def test_without_markers_nothing_is_split(markers: dict[str, int], tokens: list[int]) -> None:
    """And a marker that is no control token is none: a user could spell it."""
    splitter = Splitter(Plain(markers))
    taken = [splitter.take(token) for token in tokens]
    assert all(piece is not None and not piece.reasoning for piece in taken)
    assert b"".join(piece.data for piece in taken if piece) == bytes(tokens)


@given(st.lists(st.sampled_from([OPEN, CLOSE]) | st.integers(0, 511), max_size=60))
def test_no_text_is_lost_and_none_is_made(tokens: list[int]) -> None:
    """Each part is its tokens' pieces in order; the reasoning may lack names of channels."""
    splitter = Splitter(TINY_VOCABULARY)
    pieces = [splitter.take(token) for token in tokens]
    inside, reasoning, answer = False, b"", b""
    for token in tokens:
        if token == OPEN:
            inside = True
        elif token == CLOSE:
            inside = False
        elif inside:
            reasoning += TINY_VOCABULARY.piece(token)
        else:
            answer += TINY_VOCABULARY.piece(token)
    said = b"".join(piece.data for piece in pieces if piece and piece.reasoning)
    assert answer == b"".join(piece.data for piece in pieces if piece and not piece.reasoning)
    # What is missing is names, whole or only begun where the text ends or a thought is reopened.
    assert len(reasoning) - len(said) <= len(b"thought\n") * tokens.count(OPEN)
    remaining = iter(reasoning)
    assert all(byte in remaining for byte in said)
