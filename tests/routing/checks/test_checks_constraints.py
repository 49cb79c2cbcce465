"""Demands that a request makes of its answer's form: read from it, and checked."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.checks.constraint import Demand
from gemd.routing.checks.constraints import broken, constraints_of

TWENTY = (
    "The tide comes in slowly here and the boats wait for it near the old wall until they can "
    "leave."
)
"""Twenty words, one sentence."""


def words(count: int) -> str:
    """One sentence of so many words."""
    return " ".join(["pear"] * (count - 1)) + " plum."


COUNTS = [
    ("Explain tides in at most 50 words.", Demand.WORDS, 0, 50),
    ("Summarise it in under 20 words.", Demand.WORDS, 0, 19),
    ("Your answer should contain no more than 120 words.", Demand.WORDS, 0, 120),
    ("Limit your answer to 40 words.", Demand.WORDS, 0, 40),
    ("max 15 words: what is tea?", Demand.WORDS, 0, 15),
    ("Do not use more than 30 words.", Demand.WORDS, 0, 30),
    ("Describe tea in 60 words or less.", Demand.WORDS, 0, 60),
    ("Write at least 300 words about tea.", Demand.WORDS, 300, None),
    ("Write at least 1,200 words about tea.", Demand.WORDS, 1200, None),
    ("Write exactly 12 words about tea.", Demand.WORDS, 12, 12),
    ("Write between 50 and 100 words about cats.", Demand.WORDS, 50, 100),
    ("Answer in one word.", Demand.WORDS, 1, 1),
    ("Give me a one-word answer: who wrote it?", Demand.WORDS, 1, 1),
    ("Erkläre Regen in höchstens 30 Wörtern.", Demand.WORDS, 0, 30),
    ("Schreibe mindestens 80 Wörter über Katzen.", Demand.WORDS, 80, None),
    ("Schreibe zwischen 50 und 100 Wörter über Katzen.", Demand.WORDS, 50, 100),
    ("Antworte in einem Wort.", Demand.WORDS, 1, 1),
    ("Explique la pluie en moins de 30 mots.", Demand.WORDS, 0, 29),
    ("Écris au moins 80 mots sur la pluie.", Demand.WORDS, 80, None),
    ("Réponds en un seul mot.", Demand.WORDS, 1, 1),
    ("Explica la lluvia en menos de 30 palabras.", Demand.WORDS, 0, 29),
    ("Escribe al menos 80 palabras sobre la lluvia.", Demand.WORDS, 80, None),
    ("Responde con una sola palabra.", Demand.WORDS, 1, 1),
    ("Answer in exactly three sentences.", Demand.SENTENCES, 3, 3),
    ("in 3 sentences or less, what is rain?", Demand.SENTENCES, 0, 3),
    ("Use 2-3 sentences to describe rain.", Demand.SENTENCES, 2, 3),
    ("Fass den Text in einem Satz zusammen.", Demand.SENTENCES, 1, 1),
    ("Donne-moi au moins 3 phrases sur le thé.", Demand.SENTENCES, 3, None),
    ("Your response should have 3 paragraphs.", Demand.PARAGRAPHS, 3, 3),
    ("Give me 5 bullet points about tea.", Demand.ITEMS, 5, 5),
    ("Nenne drei Stichpunkte zu Tee.", Demand.ITEMS, 3, 3),
    ("List at least 4 numbered items for a picnic", Demand.ITEMS, 4, None),
]


@pytest.mark.parametrize("asked, demand, low, high", COUNTS)
def test_a_limit_is_read(asked: str, demand: Demand, low: int, high: int | None) -> None:
    """In four languages, with its bounds."""
    (found,) = constraints_of(asked)
    assert (found.demand, found.low, found.high, found.about) == (demand, low, high, False)


@pytest.mark.parametrize(
    "asked",
    [
        "Write a 100-word summary of the revolution.",
        "Write about 100 words on tea.",
        "Schreibe etwa 100 Wörter über Tee.",
        "Describe it in 100 words.",
    ],
)
def test_a_wish_is_no_limit(asked: str) -> None:
    """It may be missed by half, and then the fault is not severe."""
    assert not broken(asked, words(60))
    assert not broken(asked, words(140))
    (fault,) = broken(asked, words(400))
    assert not fault.severe


@pytest.mark.parametrize(
    "asked",
    [
        "Write a script that prints at most 10 words.",
        "Give me at least 3 words that rhyme with cat.",
        "Keep the explanation within 3 sentences.",
        "The article says that nobody reads at most 50 words. Why?",
        "> in at most 5 words\nWhat does this line mean?",
        "```\nanswer in at most 5 words\n```\nWhat does this do?",
        "How many words are in a sentence of at most 10 words?",
        "Write a story in which he says exactly 3 words.",
        "Write two essays with at most 50 words each.",
        "What is a sentence?",
        'Does he use the word "very" too often?',
        "A string consists of only lower case and upper case letters. Count them.",
        "Why should one avoid commas?",
        "Write a function that returns the words in all lowercase letters.",
        "Explain the French Revolution.",
        "Who said \"start your answer with 'Dear friend'\"?",
        "Put the plates on the table.",
        "Use the table of contents.",
        "I lost two sentences of it at work, and in one word: chaos reigned in the office.",
    ],
)
def test_what_limits_something_else_is_no_demand(asked: str) -> None:
    """Programs, other texts, quotations, questions about words."""
    assert broken(asked, f"{TWENTY} It is, after all, A QUIET town. {TWENTY}\n\n{TWENTY}") == []


KEPT = [
    ("Explain tides in at most 20 words.", TWENTY),
    ("Explain tides in at least 20 words.", TWENTY),
    ("Answer in one word.", "Canberra."),
    ("Answer in one word.", "New York City"),
    ("Write two sentences.", "Dr. Ann came at 3.5 p.m. and left. We stayed!"),
    ("Write exactly 3 sentences.", "One is here. Two is e.g. there. Three?"),
    ("Write two paragraphs about tea.", "First one.\n\nSecond one."),
    ("Give me 3 bullet points.", "Here:\n- a\n- b\n- c\n\nDone."),
    ("Give me 3 bullet points.", "1. a\n2. b\n3. c"),
    ("Give me 2 bullet points.", "- a\n  - inner\n- b"),
    ("Your answer must be in capital letters only.", "THIS IS IT, SAYS TOM!"),
    ("Write in all lowercase letters.", "this is it."),
    ("Answer without commas.", "No such thing here."),
    ('Do not use the word "very" in your answer.', "Every day is delivery day."),
    ('Include the words "moon" and "river" at least twice.', "Moon, river, moons, rivers."),
    ('Include the keyword "sun".', "The SUN rises."),
    ('Include the word "sun" exactly 2 times.', "Sun and sun."),
    ('Start your answer with "Dear friend".', "**Dear Friend**, hello."),
    ('End your answer with "That is all".', "So it goes. That is all."),
    ("Wrap your entire response in double quotation marks.", '"Like this."'),
    ("Add a title wrapped in double angular brackets, such as <<x>>.", "<<tea>>\nGood."),
    ("It must contain at least two placeholders in square brackets.", "[name] and [place]"),
    ("At the end, please add a postscript.", "Bye.\nP.S. Come soon."),
    ("Answer only yes or no: is it raining?", "Yes."),
    (r"Put your answer in \boxed{}.", r"It is \boxed{4}."),
    ("Make a table of planets.", "| a | b |\n|---|---|\n| 1 | 2 |"),
    ("Antworte nur mit ja oder nein: regnet es?", "Nein."),
    (
        "Answer in French: what is the capital of Italy?",
        "La capitale de l'Italie est Rome, une ville qui est aussi la plus grande du pays.",
    ),
    ("Write exactly 3 words about tea. Write exactly 5 words about it.", "a b c d e f g h"),
]
BROKEN = [
    ("Explain tides in at most 15 words.", TWENTY, "20 words, at most 15 were asked for"),
    ("Explain tides in at least 50 words.", TWENTY, "20 words, at least 50 were asked for"),
    ("Erkläre Gezeiten in höchstens 15 Wörtern.", TWENTY, "20 words"),
    ("Explique les marées en moins de 15 mots.", TWENTY, "20 words"),
    ("Explica las mareas en menos de 15 palabras.", TWENTY, "20 words"),
    ("Answer in one word.", "It is the city of Canberra.", "exactly 1 was asked for"),
    ("Write exactly 2 sentences.", "One. Two. Three. Four.", "4 sentences, exactly 2"),
    ("Write two paragraphs about tea.", "Only one.", "1 paragraph, exactly 2"),
    ("Give me 3 bullet points.", "- a\n- b\n- c\n- d", "4 list items, exactly 3"),
    ("Give me 3 bullet points.", "Tea is good.", "0 list items, exactly 3"),
    ("Your answer must be in capital letters only.", "This is it.", "not in capital letters"),
    ("Write in all lowercase letters.", "This is It, and That.", "has capital letters"),
    ("Answer without commas.", "Well, no.", "has commas"),
    ("Antworte ohne Kommas.", "Nun, nein.", "has commas"),
    ('Do not use the word "very" in your answer.', "It is very good.", "has «very»"),
    ('Write it without the letter "z".', "A zebra.", "has «z»"),
    ('Include the words "moon" and "river" at least twice.', "Moon moon river.", "«river» 1 times"),
    ('Include the keyword "sun".', "The moon.", "lacks «sun»"),
    ('Verwende das Wort "Sonne".', "Der Mond.", "lacks «Sonne»"),
    ('Include the word "sun" at most 2 times.', "sun sun sun", "3 times, at most 2"),
    ('Start your answer with "Dear friend".', "Hello.", "does not begin with"),
    ('End your answer with "That is all".', "Bye.", "does not end with"),
    ("Wrap your entire response in double quotation marks.", "Like this.", "not wrapped"),
    ("Add a title wrapped in double angular brackets, such as <<x>>.", "Tea", "no title"),
    ("It must contain at least two placeholders in square brackets.", "[name]", "1 placeholders"),
    ("At the end, please add a postscript.", "Bye.", "no postscript"),
    ("Answer only yes or no: is it raining?", "Yes, it is raining in the north.", "only yes or no"),
    (r"Put your answer in \boxed{}.", "It is 4.", "boxed"),
    ("Make a table of planets.", "Mars, Venus.", "table"),
    ("Answer in French: what is tea?", f"{TWENTY}", "is in English, French was asked for"),
    ("Antworte auf Deutsch: what is tea?", f"{TWENTY}", "German was asked for"),
]


@pytest.mark.parametrize("asked, answer", KEPT)
def test_what_is_kept_is_no_fault(asked: str, answer: str) -> None:
    """By any usual way of counting."""
    assert broken(asked, answer) == []


@pytest.mark.parametrize("asked, answer, message", BROKEN)
def test_what_is_broken_is_said(asked: str, answer: str, message: str) -> None:
    """With the figures; severe."""
    faults = broken(asked, answer)
    assert any(message in fault.message and fault.severe for fault in faults), faults


@given(count=st.integers(1, 300), limit=st.integers(1, 300))
def test_plain_words_are_counted_exactly(count: int, limit: int) -> None:
    """«At most» and «at least» hold to the word."""
    text = words(count)
    assert bool(broken(f"Write at most {limit + 1} words.", text)) == (count > limit + 1)
    assert bool(broken(f"Write at least {limit} words.", text)) == (count < limit)


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_can_be_looked_at(asked: str, answer: str) -> None:
    """Nothing raises."""
    broken(asked, answer)
    broken(f'Write at most 5 words. Include the word "{asked[:20]}". No commas.', answer)


@pytest.mark.parametrize(
    "seed",
    ["at most 5 ", 'include the words "a", ', "do not use the word ", "in 5 ", "your answer "],
)
def test_hostile_requests_take_bounded_time(seed: str) -> None:
    """Only the head and tail of a long one are read."""
    start = time.process_time()
    constraints_of(seed * (100_000 // len(seed)))
    assert time.process_time() - start < 10
