from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.prompt import FEATURES, estimate_tokens, features_of, window
from gemd.routing.prompt.window import HEAD_CHARS, TAIL_CHARS

texts = st.text(alphabet=st.characters(), max_size=400)
"""Lone surrogates among them: what a client's JSON may hold."""


def named(text: str) -> dict[str, float]:
    """The features by name."""
    return dict(zip(FEATURES, features_of(text), strict=True))


@given(texts)
def test_features_are_finite_and_the_same_each_time(text: str) -> None:
    """Whatever the text, every feature is a finite number, and looking again changes none."""
    found = features_of(text)
    assert len(found) == len(FEATURES)
    assert all(math.isfinite(value) for value in found)
    assert features_of(text) == found


@given(texts)
def test_tokens_grow_with_the_text(text: str) -> None:
    """A text put behind itself has at least as many tokens, and an empty one has none."""
    assert 0 <= estimate_tokens(text) <= estimate_tokens(text + text)
    assert estimate_tokens("") == 0


def test_features_count_what_their_names_say() -> None:
    """One prompt, counted by hand."""
    found = named("Marie Curie never had 3 cats, did she?\nA. 12 cats\nB. \\frac{1}{2}")
    assert found["log_numbers"] == math.log1p(4)
    assert found["questions"] == math.log1p(1)
    assert found["negations"] == math.log1p(1)
    assert found["newlines"] == math.log1p(2)
    assert found["options"] == math.log1p(2)
    # Marie Curie; «A. 12 cats» and «B. \frac» are no pairs.
    assert found["proper_names"] == math.log1p(1)
    assert found["non_ascii"] == 0
    assert found["math_signs"] > 0


def test_shares_do_not_depend_on_length() -> None:
    """A sentence said ten times has the shares of the sentence, and fewer different words."""
    sentence = "Der Fluss führt 40 % mehr Wasser, heißt es. "
    once, often = named(sentence), named(sentence * 10)
    for name in ("mean_word_length", "long_words", "math_signs", "punctuation", "non_ascii"):
        assert math.isclose(once[name], often[name])
    assert often["type_token_ratio"] < once["type_token_ratio"]


@given(st.text(alphabet="ab .?1", min_size=1, max_size=50), st.integers(10_000, 100_000))
def test_only_a_window_of_a_long_text_is_looked_at(filling: str, size: int) -> None:
    """Two texts of one length, with one head and tail, have the same features."""
    head, tail = "What is not here? " * 200, "Answer in JSON. " * 80
    one = head + "x" * size + tail
    other = head + (filling * size)[:size] + tail
    assert features_of(one) == features_of(other)
    assert len(window(one)) == HEAD_CHARS + TAIL_CHARS + 1


def test_scripts_have_their_own_density() -> None:
    """About four letters of English, and one sign of Chinese or Japanese, make a token."""
    english = "The quick brown fox jumps over the lazy dog near the river bank. " * 4
    assert 3.5 <= len(english) / estimate_tokens(english) <= 5
    chinese = "请把下面的句子翻译成英文并解释语法" * 4
    assert 0.8 <= len(chinese) / estimate_tokens(chinese) <= 1.3
    russian = "Переведите следующее предложение на английский язык. " * 4
    assert 2 <= len(russian) / estimate_tokens(russian) <= 4
    assert estimate_tokens("12345678") == 8


def test_long_texts_are_estimated_from_slices() -> None:
    """A megabyte is estimated within a few percent of a thousand times its thousandth part."""
    part = "Das Wasser des Flusses stieg 1997 um 30 cm, 水位上升. "
    whole = estimate_tokens(part * 20_000)
    assert math.isclose(whole, estimate_tokens(part * 20) * 1000, rel_tol=0.05)
