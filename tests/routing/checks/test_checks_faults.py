"""All checks together: what severe faults are, good answers without any, hostile text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.checks import CODES, closed_answer, find_faults

GOOD = [
    ("What is the capital of France?", "Paris."),
    ("2+2?", "4"),
    (
        "Write a haiku about rain.",
        "Rain on the tin roof\na cat counts the single drops\nthen forgets them all",
    ),
    (
        "Write a Python function that doubles a number.",
        "```python\ndef double(x: float) -> float:\n    return 2 * x\n```\nCall `double(3)`.",
    ),
    (
        "Tom has 3 boxes of 4 pens and loses 2. How many pens are left?",
        "He starts with 3 * 4 = 12 pens. After losing 2 there are 12 - 2 = 10.\n#### 10",
    ),
    (
        "Compare tea and coffee in a table.",
        "| | tea | coffee |\n|---|---|---|\n| caffeine | less | more |\n| leaves | yes | no |",
    ),
    (
        "Was ist der Unterschied zwischen Tee und Kaffee?",
        (
            "Tee wird aus Blättern gemacht und Kaffee aus Bohnen, die vorher geröstet werden. "
            "Beide enthalten Koffein, aber im Kaffee ist meist mehr davon."
        ),
    ),
    (
        "Translate into Spanish: the boat waits for the tide.",
        "El barco espera la marea.",
    ),
    (
        "Is a tomato a fruit? Answer yes or no and say why in one sentence.",
        "Yes, because it grows from the flower of the plant and holds its seeds.",
    ),
    ("Give me 3 names for a cat as a bulleted list.", "- Miso\n- Pepper\n- Juno"),
    (
        "Return only JSON: the name and age of Ann, 30.",
        '{"name": "Ann", "age": 30}',
    ),
    (
        "List the planets.",
        "1. Mercury\n2. Venus\n3. Earth\n4. Mars\n5. Jupiter\n6. Saturn\n7. Uranus\n8. Neptune",
    ),
    (
        "What does `for i in range(3): print(i)` print?",
        "It prints 0, 1 and 2, each on a line of its own.",
    ),
    (
        "Write a short email to my landlord about the broken heater.",
        (
            "Dear Ms Hill,\n\nthe heater in my flat stopped working on Monday. Could you please "
            "send somebody to look at it this week?\n\nKind regards,\nTom"
        ),
    ),
]
BAD = [
    ("What is tea?", "", False, "EMPTY"),
    ("What is tea?", "Tea is a drink made of", True, "TRUNCATED"),
    ("What is tea?", "Tea is good. " * 30, False, "REPETITION"),
    ("What is tea?", "Tea is is the of leaves.", False, "GARBLED"),
    (
        "Which of the old harbour towns in the north has the longest quay of all?",
        "Which of the old harbour towns in the north has the longest quay of all?",
        False,
        "PROMPT_ECHO",
    ),
    ("What is tea?", "I'm sorry, but I can't help with that.", False, "REFUSAL"),
    ("Write to Ann.", "Dear Ann, it is [insert name] again.", False, "PLACEHOLDER"),
    (
        "What is the difference between tea and coffee, and which of them is older?",
        (
            "Der Tee ist älter als der Kaffee, und er wird aus den Blättern einer Pflanze gemacht, "
            "die in China wächst."
        ),
        False,
        "LANGUAGE",
    ),
    ("Write a function.", "```python\ndef f(:\n```", False, "CODE_SYNTAX"),
    ("Return only JSON: Ann, 30.", "{'name': 'Ann'}", False, "JSON_SYNTAX"),
    ("What is 17 times 3?", "17 * 3 = 41, so the answer is 41.", False, "ARITHMETIC"),
    ("Describe tea in at most 5 words.", "It is a hot drink made of leaves.", False, "CONSTRAINT"),
    ("Is tea hot? Answer yes or no.", "Tea is a drink.", False, "ANSWER_MISSING"),
]
MILD = {"GARBLED", "REFUSAL", "PLACEHOLDER"}


@pytest.mark.parametrize("asked, answer", GOOD)
def test_a_good_answer_has_no_fault(asked: str, answer: str) -> None:
    """Of any kind."""
    assert find_faults(asked, answer) == ()


@pytest.mark.parametrize("asked, answer, truncated, code", BAD)
def test_each_fault_is_found(
    asked: str,
    answer: str,
    truncated: bool,  # noqa: FBT001
    code: str,
) -> None:
    """Alone, and as severe as it is."""
    (fault,) = find_faults(asked, answer, truncated=truncated)
    assert (fault.code, fault.severe) == (code, code not in MILD)


def test_every_code_is_shown() -> None:
    """None is only a name."""
    assert {code for *_, code in BAD} == set(CODES)


def test_severe_faults_come_first() -> None:
    """A message has room for few."""
    found = find_faults("Write to Ann in at most 4 words.", "Dear Ann, it is [insert name] again.")
    assert [fault.severe for fault in found] == [True, False]


def test_instructions_before_the_conversation_bind_too() -> None:
    """Limits that the system turn sets."""
    (fault,) = find_faults("What is tea?", "A drink made of leaves.", system="Use at most 3 words.")
    assert fault.code == "CONSTRAINT"


def test_a_refusal_is_one_fault_and_not_many() -> None:
    """That it gives no number and keeps to no limit goes without saying."""
    found = find_faults(
        "How many pens? Answer in at most 3 words.", "I'm sorry, but I cannot help with that."
    )
    assert [fault.code for fault in found] == ["REFUSAL"]


@given(st.text(max_size=500), st.text(max_size=500), st.text(max_size=100), st.booleans())
def test_any_text_can_be_looked_at(
    asked: str,
    answer: str,
    system: str,
    truncated: bool,  # noqa: FBT001
) -> None:
    """Nothing raises; codes are known, messages are clauses, and nothing is left to chance."""
    found = find_faults(asked, answer, system=system, truncated=truncated)
    assert found == find_faults(asked, answer, system=system, truncated=truncated)
    for fault in found:
        assert fault.code in CODES
        assert fault.message
        assert not fault.message.endswith(".")


SEEDS = [
    "a", "1+", "(", "```\n", "```js\n/*\n```\n", "```python\n(\n```\n", "- x\n", "e.g. ", "\x00",
    "\\boxed{", "not use ", "i am sorry, i ", "do not use the word ", "[your ", "“", "<<1=1>>", " ",
    "A) b ", "中", "\ud800", "the answer is ", "####", "**", "x\n", "5 000 ", "\\frac{", "'", "1e5",
]  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_text_takes_bounded_time(seed: str) -> None:
    """Two hundred thousand characters on both sides take well under the time of an answer."""
    text = seed * (200_000 // len(seed))
    start = time.process_time()
    find_faults(text, text)
    find_faults("How many apples are there?", text)
    closed_answer("How many apples are there?", text)
    assert time.process_time() - start < 20
