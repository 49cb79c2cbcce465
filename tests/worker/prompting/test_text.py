"""Final text out of the bytes of tokens."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gemd.worker.prompting.text import TextStream

texts = st.text(alphabet="ab\n<é€🙂", max_size=30)
stops = st.lists(st.text(alphabet="ab<é🙂", min_size=1, max_size=4), max_size=3)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in pieces."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def run(pieces: list[bytes], stop: tuple[str, ...]) -> tuple[str, str | None, list[str]]:
    """The whole answer, what stopped it, and what each piece released."""
    stream = TextStream(stop)
    released = [stream.push(piece) for piece in pieces]
    return "".join(released) + stream.finish(), stream.stopped_by, released


@given(texts, st.lists(st.integers(0, 200), max_size=20))
def test_without_stop_strings_any_split_of_the_bytes_gives_the_text(
    text: str, cuts: list[int]
) -> None:
    """Token borders inside a character never show."""
    assert (text, None) == run(split(text.encode(), cuts), ())[:2]


@given(texts, stops, st.lists(st.integers(0, 200), max_size=20))
def test_the_answer_ends_before_the_first_stop_string_however_it_is_split(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    """Streamed piece by piece, text and stop are those of the whole text."""
    hits = [(text.find(s), -len(s), s) for s in stop if s in text]
    pieces = split(text.encode(), cuts)
    # Byte pieces may complete an early, longer match only later: compare by place.
    result, stopped, _ = run(pieces, tuple(stop))
    if hits:
        assert text[: min(hits)[0]] == result
        assert stopped is not None
        assert text.startswith(stopped, min(hits)[0])
    else:
        assert (text, None) == (result, stopped)


@given(texts, stops, st.lists(st.integers(0, 200), max_size=20))
def test_released_text_is_never_withdrawn(text: str, stop: list[str], cuts: list[int]) -> None:
    """What was released is a beginning of the final answer at every moment."""
    result, _, released = run(split(text.encode(), cuts), tuple(stop))
    so_far = ""
    for part in released:
        so_far += part
        assert result.startswith(so_far)


def test_the_beginning_of_a_stop_string_is_held_back() -> None:
    """«END» arrives in three tokens and none of it is shown."""
    stream = TextStream(("END",))

    assert [stream.push(p) for p in (b"yes E", b"N", b"D", b" more")] == ["yes ", "", "", ""]
    assert stream.stopped_by == "END"
    assert not stream.finish()


def test_an_unfinished_stop_string_is_text_after_all() -> None:
    """What only began like a stop string is released at the end."""
    stream = TextStream(("END",))

    assert (stream.push(b"yes EN"), stream.finish()) == ("yes ", "EN")


def test_an_incomplete_character_at_the_end_becomes_a_replacement_character() -> None:
    """An answer cut by max_tokens inside an emoji is still valid text."""
    stream = TextStream()

    assert (stream.push("a🙂".encode()[:3]), stream.finish()) == ("a", "\ufffd")


@given(texts, texts, stops, st.lists(st.integers(0, 200), max_size=20), st.integers(0, 200))
def test_text_before_the_answer_begins_stop_strings_and_is_never_released(
    text: str, rest: str, stop: list[str], cuts: list[int], border: int
) -> None:
    """Behind any beginning, in the middle of a character too, comes what the whole has there."""
    data = (text + rest).encode()
    border %= len(data) + 1
    before = data[:border].decode(errors="ignore")
    stream = TextStream(tuple(stop))
    for piece in split(data[:border], cuts):
        stream.precede(piece)
    answer = "".join(stream.push(piece) for piece in split(data[border:], cuts))
    answer += stream.finish()
    # In the same pieces: of two stop strings that begin in one place the first to end counts.
    whole, stopped_by, _ = run(
        [*split(data[:border], cuts), *split(data[border:], cuts)], tuple(stop)
    )
    assert stream.stopped_by == stopped_by
    assert answer == whole[len(before) :]


def test_a_character_that_began_before_the_answer_is_the_answers() -> None:
    """Whoever sent its first bytes had no text to send yet."""
    stream = TextStream()
    first, last = "é".encode()[:1], "é".encode()[1:]
    stream.precede(b"caf" + first)
    assert stream.push(last) + stream.finish() == "é"
