"""The language of an answer: told only where it is certain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.checks.language import language_of, wrong_language

TEXTS = {
    "en": "The river is deepest where it turns, and most of the boats have to wait there until the "
    "tide comes in.",
    "de": "Der Fluss ist dort am tiefsten, wo er sich wendet, und die meisten Boote müssen auf "
    "die Flut warten.",
    "fr": "La rivière est plus profonde là où elle tourne, et la plupart des bateaux doivent "
    "attendre la marée dans le port.",
    "es": "El río es más profundo donde gira, y la mayoría de los barcos tienen que esperar "
    "allí hasta que suba la marea.",
    "it": "Il fiume è più profondo dove gira, e la maggior parte delle barche deve aspettare "
    "lì che la marea salga nel porto.",
    "pt": "O rio é mais fundo onde faz a curva, e a maior parte dos barcos tem de esperar ali até "
    "que a maré suba no porto.",
    "nl": "De rivier is het diepst waar zij een bocht maakt, en de meeste boten moeten daar "
    "wachten tot het water in de haven stijgt.",
    "ru": "Река глубже всего там, где она поворачивает, и большинство лодок ждут прилива.",
    "zh": "河流在转弯的地方最深,大多数船只必须在那里等待潮水上涨。",
    "ja": "川は曲がるところが一番深く、ほとんどの船はそこで潮が満ちるのを待たなければならない。",
    "ko": "강은 굽이치는 곳에서 가장 깊고 대부분의 배는 그곳에서 밀물을 기다려야 한다.",
    "ar": "النهر أعمق حيث ينعطف ومعظم القوارب تنتظر هناك حتى يرتفع المد",
}


@pytest.mark.parametrize("code", TEXTS)
def test_a_sentence_tells_its_language(code: str) -> None:
    """By its letters or its frequent words."""
    assert language_of(TEXTS[code]) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "42",
        "que se como para por de que em no se que por como para de que em la no se",
        "Anna, Ben, Clara, David, Emma, Felix, Greta, Hanno, Ida, Jan, Karl, Lena, Max, Nora, Otto",
        "x = y + z; print(x)",
        "Ångström Řehoř Łukasz żółć čeština příliš žluťoučký kůň úpěl ďábelské ódy a lid se smál",
        "Річка найглибша там, де вона повертає, і човни чекають припливу",
    ],
)
def test_what_is_not_certain_is_not_said(text: str) -> None:
    """Names, code, short texts, and languages that are not known."""
    assert language_of(text) is None


@pytest.mark.parametrize("asked", TEXTS)
@pytest.mark.parametrize("said", TEXTS)
def test_an_answer_in_another_language_is_severe(asked: str, said: str) -> None:
    """Of every pair; in the question's own language it is right."""
    fault = wrong_language(TEXTS[asked], TEXTS[said])
    if asked == said:
        assert fault is None
    else:
        assert fault is not None
        assert fault.severe


@pytest.mark.parametrize(
    "asked",
    [
        "Translate into German: the river is deep where it turns and we have to wait.",
        "How do I say in Spanish that I would like to have a coffee with milk?",
        "Réponds en anglais : où est la gare de la ville et comment y aller ?",
        "Which language is this, and what does it say?",
        "Bonjour",
        "12 + 3?",
    ],
)
def test_another_language_may_be_wanted(asked: str) -> None:
    """Where the request speaks of languages, or is too short to be of one."""
    assert wrong_language(asked, TEXTS["de"]) is None


def test_a_quoted_text_may_set_the_language() -> None:
    """An instruction and its text in two languages allow an answer in either."""
    asked = f"Please summarise what this says and what we should do about it:\n{TEXTS['de']}"
    assert wrong_language(asked, TEXTS["de"]) is None
    assert wrong_language(asked, TEXTS["en"]) is None
    assert wrong_language(asked, TEXTS["fr"]) is not None


def test_instructions_may_set_the_language() -> None:
    """Those before the conversation count as the request does."""
    assert wrong_language(TEXTS["en"], TEXTS["de"], system=TEXTS["de"]) is None


def test_a_short_question_counts_if_nothing_speaks_against_it() -> None:
    """Two frequent words of one language and none of another."""
    assert wrong_language("Wo ist der Fluss am tiefsten?", TEXTS["en"]) is not None
    assert wrong_language("河流在哪里最深?", TEXTS["en"]) is not None
    assert wrong_language("河流在哪里最深?", TEXTS["zh"]) is None


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_can_be_looked_at(asked: str, answer: str) -> None:
    """Nothing raises."""
    wrong_language(asked, answer)
