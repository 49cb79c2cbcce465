"""Empty, unfinished, repeated and echoed answers, refusals and gaps; and answers that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.routing.checks.fault import PLACEHOLDER, REFUSAL, REPETITION, TRUNCATED
from gemd.routing.checks.phrases import placeholder, refusal
from gemd.routing.checks.shape import echo, empty, repetition, unfinished

LONG = (
    "The harbour town grew quickly after the railway arrived, and within two decades the old "
    "fishing families had opened hotels along the northern quay"
)
LATER = (
    "Later the ferries stopped, since the new bridge carried most of the traffic, and the quay "
    "fell silent until a group of painters rented the empty warehouses for summer."
)
CHINESE = (
    "中国是一个历史悠久的国家,拥有丰富的文化遗产。北京是它的首都,上海是最大的城市之一。"
    "人们喜欢喝茶,也喜欢在公园里散步。夏天很热,冬天有时会下雪。孩子们放学以后常常踢足球,"
    "老人们早上打太极拳,晚上看电视。火车又快又准时,所以很多人坐火车去旅行,看望远方的朋友。"
)


@pytest.mark.parametrize("text", ["", "   \n", "...", '"" --', "```\n```"])
def test_an_answer_that_says_nothing_is_empty(text: str) -> None:
    """White space, punctuation, an empty fence."""
    fault = empty(text)
    assert fault is not None
    assert fault.severe


@pytest.mark.parametrize("text", ["4", "да", "はい", "👍", "+", "é", "½"])
def test_a_short_answer_is_not_empty(text: str) -> None:
    """One sign may be all that was asked for."""
    assert empty(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Here it is:\n```python\ndef f():\n    return",
        "You need flour, sugar, and eggs,",
        f"{LONG} with a view of the",
        "~~~\nabc\n```\n",
    ],
)
def test_an_answer_that_breaks_off_is_truncated(text: str) -> None:
    """Inside a code block, behind a comma, behind an article."""
    fault = unfinished(text, truncated=False)
    assert fault is not None
    assert (fault.code, fault.severe) == (TRUNCATED, True)


@pytest.mark.parametrize(
    "text", [f"It was so. {LONG} and their children went to sea no more", "Steps:\n\nDo these:"]
)
def test_a_doubtful_end_is_not_severe(text: str) -> None:
    """A long line without a full stop, an announcement with nothing behind it."""
    fault = unfinished(text, truncated=False)
    assert fault is not None
    assert not fault.severe


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "#### 540",
        "- tea\n- milk\n- a spoon",
        "The answer is 42",
        "I met a traveller\nwho came from a far land\nand all that he spoke of",
        "```python\nprint(1)\n```",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        f"{LONG}.",
        f'He said: "{LONG}!"',
        "Dear Ann,\n\nthank you.\n\nBest regards,\nTom",
        "これは答えです。",
        r"Therefore $a = b,$",
    ],
)
def test_an_answer_without_a_full_stop_may_be_finished(text: str) -> None:
    """A word, a list, verses, code, a table."""
    assert unfinished(text, truncated=False) is None


def test_what_the_engine_says_counts() -> None:
    """It knows that it has stopped for want of room."""
    fault = unfinished("All is well.", truncated=True)
    assert fault is not None
    assert fault.severe


@pytest.mark.parametrize(
    "text",
    [
        "The cat sat. " + "I think that is right. " * 9,
        "no " * 40,
        "Well, " + "and then we went to the market and bought some fish " * 8,
        "这是一个很好的问题" * 12,
        "東京は日本の首都です。" * 10,
        "\n".join(["It is what it is and so it goes."] * 12),
        "\n".join(["We go on and on.", "And then we stop again."] * 8),
        "The plan is good. The plan is good for us. The plan is good for all. " * 6,
    ],
)
def test_a_loop_is_found(text: str) -> None:
    """Words, lines, or characters where words are not parted."""
    fault = repetition("What do you think?", text)
    assert fault is not None
    assert (fault.code, fault.severe) == (REPETITION, True)


VERSES = [
    "The lamps are lit along the quay and every boat is home",
    "The fiddler packs his bow away and leaves the tables bare",
    "My father mends the broken net beneath a rising moon",
    "Somebody sweeps the market square and whistles out of tune",
    "The ferry hoots a long goodnight across the empty bay",
    "A lighthouse counts the quiet hours until the break of day",
]
REFRAIN = "Oh, carry me over the water, my love, carry me home to the shore"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(line for verse in VERSES for line in (verse, REFRAIN)),
        "| name | price | in stock |\n|---|---|---|\n" + "| tea | 3 | in stock |\n" * 20,
        "```python\n" + "x.append(1)\n" * 40 + "```\nThat is all.",
        "1 + 1 = 2\n" * 30,
        f"{LONG}. {LATER}",
        "very, very, very good",
        "ha ha ha ha ha",
        CHINESE,
    ],
)
def test_a_refrain_a_table_and_code_are_no_loops(text: str) -> None:
    """What comes back in them is meant to."""
    assert repetition("Tell me something.", text) is None


def test_much_repetition_without_a_loop_is_mild() -> None:
    """Half of its 4-grams were there before, and most 3-grams are different ones."""
    text = f"{LONG}. {LATER} In short: {LONG}. {LATER} That is how it went in the end, they say."
    fault = repetition("Tell me something.", text)
    assert fault is not None
    assert fault.code == REPETITION


def test_repeating_may_be_asked_for() -> None:
    """Then it is no fault."""
    assert repetition("Repeat the word no 40 times", "no " * 40) is None


def test_a_question_sent_back_is_an_echo() -> None:
    """Whatever its case and spacing; an answer that begins with it is none."""
    asked = "Which three rivers flow through the old part of the city of Lyon today?"
    fault = echo(asked, f"  {asked.upper()}\n")
    assert fault is not None
    assert fault.severe
    assert echo(asked, f"{asked} Two of them: the Rhône and the Saône meet there.") is None
    assert echo("What?", "What?") is None


def test_a_corrected_text_is_no_echo() -> None:
    """It has to be nearly what was sent."""
    text = "She go to school every day and she like her teacher very much indeed."
    assert echo(f"Correct the grammar: {text}", text) is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I am unable to open links.",
        "As an AI language model, I cannot have opinions.",
        "I cannot provide medical advice.",
        "Es tut mir leid, aber ich kann diese Frage nicht beantworten.",
        "Leider kann ich dabei nicht helfen.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Desculpe, mas não posso ajudar com isso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Sorry, maar ik kan je daar niet bij helpen.",
        "Извините, но я не могу ответить на этот вопрос.",
        "抱歉,我无法回答这个问题。",
        "申し訳ありませんが、その質問にはお答えできません。",
        "I don't have access to the internet.",
    ],
)
def test_a_refusal_is_found_in_its_language(text: str) -> None:
    """It is no severe fault: the strong model may have to say the same."""
    fault = refusal("Tell me about it.", text)
    assert fault is not None
    assert (fault.code, fault.severe) == (REFUSAL, False)


@pytest.mark.parametrize(
    "text",
    [
        "You cannot divide by zero.",
        "I can help with that! First, open the file.",
        "Sorry is a card game for two to four players.",
        "The lift can't carry more than eight people.",
        "Man kann hier nicht parken.",
        "On ne peut pas marcher sur l'eau.",
        "A dog is not able to see red.",
        "No puedo vivir sin ti is a song.",
    ],
)
def test_an_answer_with_a_denial_is_no_refusal(text: str) -> None:
    """It denies something, not the request."""
    assert refusal("Tell me about it.", text) is None


def test_a_refusal_may_be_the_text_that_was_asked_for() -> None:
    """A letter that declines."""
    asked = "Write an email that declines the offer"
    assert refusal(asked, "I'm sorry, but I cannot accept") is None


@pytest.mark.parametrize(
    "text",
    [
        "Dear [Your Name], see you soon.",
        "Call [insert phone number] today.",
        "Lorem ipsum dolor sit amet.",
        "The date is TBD.",
        "```python\ndef f():\n    # TODO: implement\n    pass\n```",
        "```js\nfunction f() {\n  // your code here\n}\n```",
        "Sehr geehrte [Name des Empfängers],",
    ],
)
def test_a_gap_is_found(text: str) -> None:
    """In prose and in code."""
    fault = placeholder("Write it.", text)
    assert fault is not None
    assert fault.code == PLACEHOLDER


@pytest.mark.parametrize(
    "text",
    [
        "See [your rights](https://example.org/rights).",
        "The list is [1, 2, 3].",
        "[Music plays]",
        "Es todo por hoy.",
        "```python\nx = [name for name in names]\n```",
        "Use <your-name@example.org>.",
    ],
)
def test_brackets_are_no_gaps(text: str) -> None:
    """Links, lists, stage directions, addresses."""
    assert placeholder("Write it.", text) is None


def test_gaps_may_be_asked_for() -> None:
    """A template has them."""
    assert placeholder("Write a letter template", "Dear [Your Name],") is None


@given(st.text(max_size=400), st.text(max_size=400), st.booleans())
def test_no_text_is_too_odd(asked: str, answer: str, truncated: bool) -> None:  # noqa: FBT001
    """Nothing raises."""
    empty(answer)
    unfinished(answer, truncated=truncated)
    repetition(asked, answer)
    echo(asked, answer)
    refusal(asked, answer)
    placeholder(asked, answer)
