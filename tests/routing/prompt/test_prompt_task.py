from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.prompt import Task, expected_length, task_of
from gemd.routing.prompt.openings import Openings
from gemd.routing.request import CANVAS_TOKENS


@pytest.mark.parametrize(
    "text,task",
    [
        ("Translate to German: good morning", Task.TRANSLATE),
        ("Übersetze das ins Englische: Guten Morgen", Task.TRANSLATE),
        ("Traduis cette phrase en anglais", Task.TRANSLATE),
        ("Traduce esta frase al inglés", Task.TRANSLATE),
        ("Summarize the article below.", Task.SUMMARISE),
        ("Fasse den folgenden Text kurz zusammen:", Task.SUMMARISE),
        ("Résume ce texte", Task.SUMMARISE),
        ("Resume el texto siguiente", Task.SUMMARISE),
        ("Is the sentiment of this review good? Classify it.", Task.CLASSIFY),
        ("Extract all dates from the letter", Task.EXTRACT),
        ("Rewrite this e-mail so that it is polite", Task.REWRITE),
        ("Please correct the grammar: he go home", Task.REWRITE),
        ("Write a Python function that summarises a text", Task.CODE),
        ("Schreibe ein Programm, das Primzahlen findet", Task.CODE),
        ("Fix the bug in this function: def f(): pas", Task.DEBUG),
        ("My script crashes at start, why?", Task.DEBUG),
        ("Prove that there are infinitely many primes.", Task.MATH),
        ("Berechne 12 * 7", Task.MATH),
        ("Tom has 3 apples and eats one. How many does he have?", Task.MATH),
        ("What is 17 * 23?", Task.MATH),
        ("Compare and contrast the two proposals", Task.REASONING),
        ("Löse das Rätsel Schritt für Schritt", Task.MATH),
        ("Write a poem about rain", Task.WRITING),
        ("Escribe un cuento sobre un gato", Task.WRITING),
        ("Who wrote Faust?", Task.FACT),
        ("Wer schrieb den Faust?", Task.FACT),
        ("Hi there!", Task.CHAT),
        ("Danke dir", Task.CHAT),
        ("```\nx = 1\n```", Task.CODE),
        ("Bananas.", Task.OTHER),
        ("", Task.OTHER),
    ],
)
def test_kind_is_told_by_the_words_that_ask(text: str, task: Task) -> None:
    """Verbs of four languages, and the looks of a text where there is none."""
    assert task_of(text) is task


def test_first_request_counts() -> None:
    """A summary of a text about translation is a summary; the request may stand behind, too."""
    about = "The committee discussed how to translate the treaty. " * 100
    assert task_of(f"Summarise this: {about}") is Task.SUMMARISE
    filling = "The committee met on Monday and on Tuesday. " * 100
    assert task_of(f"{filling}\nTranslate the text above into French.") is Task.TRANSLATE


def test_lists_of_easy_and_hard_kinds_have_nothing_in_common() -> None:
    """No kind is on both, and facts, where small models invent, are not on the easy one."""
    assert not any(task.easy and task.hard for task in Task)
    assert Task.TRANSLATE.easy
    assert Task.MATH.hard
    assert not Task.FACT.easy


@pytest.mark.parametrize(
    "text,tokens",
    [
        ("Tell me about bees in 600 words", 852),
        ("Write a 600-word story", 852),
        ("Erkläre das in 100 Wörtern", 142),
        ("écris une histoire de 300 mots", 426),
        ("Escribe un texto de 200 palabras", 284),
        ("Give an answer of at least 1,000 words", 1420),
        ("Explain it in three short sentences", 84),
        ("Explain it in at most two sentences.", 56),
        ("Write a paragraph about rain", 100),
        ("Summarise it in a sentence: the river rose.", 28),
        ("List ten reasons", 280),
        ("Give me a line of thought that leads there", 160),
        ("What does it mean to be at a word's mercy?", 80),
        ("Answer with one word: what is the capital of France?", 4),
        ("Is 17 a prime? Yes or no.", 4),
        ("Nur die Zahl: was ist 2 + 2?", 4),
        ("Briefly, what is a monad", 80),
    ],
)
def test_length_is_what_is_asked_for(text: str, tokens: int) -> None:
    """In words, sentences and items of four languages, or by «one word» and «briefly»."""
    assert expected_length(text, task_of(text)).tokens == tokens


@pytest.mark.parametrize(
    "text",
    [
        "Write an essay about the French revolution",
        "Schreib einen Aufsatz über Bienen",
        "Rédige un article sur Paris",
        "Write a short story about a dog",
        "Write a complete snake game in Python",
        "Build a website for my bakery",
        "Explain in detail how TCP works",
        "Write 181 words about rain",
        "Translate to French: " + "The river rose again in the night. " * 60,
    ],
)
def test_long_answers_say_why(text: str) -> None:
    """Whatever takes more than one canvas has a reason in words."""
    found = expected_length(text, task_of(text))
    assert found.tokens > CANVAS_TOKENS
    assert found.why_long


@pytest.mark.parametrize(
    "text",
    [
        "Write 180 words about rain",
        "Here is a text of 600 words: summarise it",
        "Summarise this essay",
        "The story has 900 words. Who wrote it?",
        "Translate to French: Good morning.",
        "What does «in a word» mean?",
        "Bananas.",
    ],
)
def test_a_text_that_merely_speaks_of_length_asks_for_none(text: str) -> None:
    """180 words fit on a canvas, and words about another text are no request."""
    found = expected_length(text, task_of(text))
    assert found.tokens <= CANVAS_TOKENS
    assert not found.why_long


@given(st.text(alphabet=st.characters(), max_size=300), st.sampled_from(Task))
def test_reason_and_length_agree(text: str, task: Task) -> None:
    """There is a reason exactly where the answer does not fit on a canvas."""
    found = expected_length(text, task)
    assert found.tokens >= 1
    assert bool(found.why_long) == (found.tokens > CANVAS_TOKENS)


@given(st.lists(st.sampled_from(["Tell", "tell me", "TELL", "a", "joke.", "İtell", "é", "\n"])))
def test_looking_for_words_first_changes_nothing(parts: list[str]) -> None:
    """It only spares the search where no word of the table stands."""
    table = Openings((("found", "tell joke", r"\W"),))
    text = " ".join(parts)
    assert table.first(text) == table.first(text, frozenset({"tell"}))
