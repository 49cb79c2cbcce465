"""Equations in an answer: the false ones are found, and nothing that is no plain arithmetic."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.checks.arithmetic import wrong_equations

FALSE = (
    "3 + 4 = 8",
    "She pays 3 x $1.50 = $4.60 in all.",
    "The total is 0.40*9*1040=3760.",
    "20% of 50 = 12",
    "$1,000 + $250 = $1,350",
    "(12 - 3) / 3 = 4",
    "Preis: 1.000,50 € + 2,50 € = 1.004,00 €",
    r"\frac{1}{2} \times 10 = 6",
    "**3 + 4 = 9**",
    "2^10 = 1000",
    "5 apples * 3 dollars/apple = 16 dollars",
    "- 17 × 3 = 41",
    "1. 100 ÷ 8 = 14",
    "He has 12 (his own) + 5 (found) = 18 marbles.",
    "7 * 8 = 54 + 6 = 60",
    "So 2/3 of 90 = 50 pages are left.",
    "$<<48/2=23>>23",
    "The shop sells 3 thousand + 2 thousand = 6 thousand pens.",
    "2(3 + 4) = 12",
    "10 - 2.5 = 8.5",
    "144 / 12 ≈ 15",
)
TRUE = (
    "3 + 4 = 7",
    "10 / 3 = 3.33 and 3.33 * 3 = 10",
    "10 / 3 = 3",
    "22 / 7 ≈ 3.1",
    "2 / 3 = 0.67, and 0.67 * 300 = 200",
    "3 + 4 = 7 * 2 = 14",
    "15/60 = 25%",
    "0.25 = 25%, and 80 * 25% = 20",
    "1.000 + 500 = 1.500",
    "1,000 + 500 = 1500.00",
    "100% - 30% = 70%",
    "2 * 7 days = 2 weeks",
    "3 * 60 = 180 minutes = 3 hours",
    "4 * 25 cents = $1",
    "12 / (1/4) = 48",
    "12 / 1/4 = 48",
    "-3 + 5 = 2",
    "1,234,567 + 1 = 1,234,568",
    "5 000 + 1 = 5 001",
    "3² + 4² = 25",
    "3/4 * 100 = 75%",
    "(2/8) * 100% = 25",
    "1.414 * 1000 = 1414.2",
)
NONE = (
    "x + 3 = 9",
    "2x + 3 = 7",
    "f(3) + 4 = 10",
    "5! = 121",
    "1 + 2 + ... + 100 = 5051",
    "17 mod 5 = 4 + 1",
    "in binary, 1 + 1 = 10",
    "12 inches = 1 foot",
    "10 years = 20 + 10 + 10",
    "It is wrong that 2 + 2 = 5.",
    "(1, 2) + (3, 4) = (4, 7)",
    "E = mc^2 and a = 3",
    "1 1/2 + 1/2 = 3",
    "9 + 5 = 2 pm",
    "10C3 + 1 = 3",
    "log 100 + 1 = 4",
    "√16 + 2 = 7",
    "if a == 3 + 4: b = 5",
    "```python\nassert 3 + 4 == 8\nx = 3 + 4 = 8\n```",
    "Use `3 + 4 = 8` as an example.",
    "2 dozen * 3 = 6",
    "the ratio 3:4 = 6:9",
    "100 - 10% = 95",
    "2 breaks of 15/60 = 0.25 hours each",
)


@pytest.mark.parametrize("text", FALSE)
def test_a_false_equation_is_found(text: str) -> None:
    """In any notation that people write sums in."""
    assert len(wrong_equations("", text)) == 1


@pytest.mark.parametrize("text", TRUE)
def test_a_true_equation_is_none(text: str) -> None:
    """Rounded, in percent, converted or in a careless chain."""
    assert wrong_equations("", text) == ()


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_plain_arithmetic_is_left_alone(text: str) -> None:
    """Algebra, other bases, code, units to be converted, denials."""
    assert wrong_equations("", text) == ()


def test_the_message_says_what_comes_out() -> None:
    """The mender is told the right value."""
    assert wrong_equations("", "so 0.40*9*1040=3760 in all") == ("0.40*9*1040=3760 (it is 3744)",)


def test_what_the_question_says_is_nobodys_mistake() -> None:
    """A riddle's own equation may be quoted."""
    assert wrong_equations("Why is 3 + 3 = 7 here?", "Because 3 + 3 = 7 is a riddle.") == ()
    assert wrong_equations("Add 3 and 3", "3 + 3 = 7")


def test_no_more_are_returned_than_asked_for() -> None:
    """A message has to stay short."""
    text = "\n".join(f"{n} + 1 = {n + 3}" for n in range(20))
    assert len(wrong_equations("", text, most=2)) == 2


@given(
    a=st.integers(0, 9999),
    b=st.integers(1, 9999),
    operator=st.sampled_from("+-*"),
    off=st.integers(-50, 50),
)
def test_whole_numbers_are_judged_exactly(a: int, b: int, operator: str, off: int) -> None:
    """An equation is false exactly if its result is off."""
    result = {"+": a + b, "-": a - b, "*": a * b}[operator]
    text = f"That makes {a} {operator} {b} = {result + off} in all."
    assert bool(wrong_equations("", text)) == (off != 0)


@given(a=st.integers(1, 9999), b=st.integers(1, 999), places=st.integers(0, 4))
def test_a_rounded_quotient_is_right(a: int, b: int, places: int) -> None:
    """To any number of places."""
    assert wrong_equations("", f"{a} / {b} = {a / b:.{places}f}") == ()


@given(text=st.text(alphabet="0123456789+-*/^=().,$% xa≈<>{}\\\n", max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    """Nothing raises, whatever stands between the signs."""
    wrong_equations("", text)


@pytest.mark.parametrize("seed", ["1+", "(", "1=", "((1)^9)^9=", "9^9^9^9=1 ", "1/0=1 ", "<<1=1>>"])
def test_hostile_text_takes_bounded_time(seed: str) -> None:
    """A hundred thousand characters of it are done within seconds even here."""
    start = time.process_time()
    wrong_equations(seed * 1000, seed * (100_000 // len(seed)))
    assert time.process_time() - start < 20
