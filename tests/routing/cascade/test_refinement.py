"""How a draft that will not do is refined."""

from __future__ import annotations

from gemd.routing.cascade.refinement import Manner, refine
from gemd.routing.checks import Accepted, Fault
from gemd.wire import ChatMessage, Prompt

CHAT = Prompt(chat=(ChatMessage(role="user", text="Tell me of the sea."),))
CUT = Fault("TRUNCATED", "the answer was cut off", severe=True)
LOOP = Fault("REPETITION", "the answer ends in a loop", severe=True)
HALF = Accepted(tokens=6, text="It is wide.", share=0.5, first_rejected=7)
WHOLE = Accepted(tokens=12, text="It is wide. It is blue.", share=1.0, first_rejected=None)


def test_the_accepted_beginning_is_continued() -> None:
    """By ids where the refiner scored it itself, else by text."""
    found = refine(CHAT, "…", (), HALF, range(12), 12)
    assert (found.manner, found.kept, found.prefix) == (
        Manner.CONTINUE,
        HALF.text,
        tuple(range(6)),
    )
    assert refine(CHAT, "…", (), HALF, (), 12).prefix == HALF.text


def test_kept_tokens_are_the_drafters() -> None:
    """A checker that cuts the same text into more tokens keeps no more than there were."""
    assert refine(CHAT, "…", (), HALF, (), 12).kept_tokens == 6
    assert refine(CHAT, "…", (CUT,), WHOLE, (), 5).kept_tokens == 5
    assert refine(CHAT, "…", (), HALF, (), 5).kept_tokens == 2


def test_a_complete_draft_is_not_gone_on_from() -> None:
    """Where every token is accepted, going on would only repeat what was found wanting.

    One that was cut off is: its end is all that it lacks.
    """
    assert refine(CHAT, "…", (), WHOLE, (), 12).manner is Manner.ANEW
    assert refine(CHAT, "…", (CUT,), WHOLE, (), 12).manner is Manner.CONTINUE


def test_a_faulty_draft_is_rewritten_in_a_chat_only() -> None:
    """The prompt shows it and its faults; a raw text has no turn to say that in."""
    found = refine(CHAT, "la la", (LOOP,), HALF, (), 12)
    assert found.manner is Manner.REWRITE
    assert found.prompt.chat is not None
    assert found.prompt.chat[-2].text == "la la"
    assert LOOP.message in found.prompt.chat[-1].text
    assert refine(Prompt(text="la"), "la la", (LOOP,), HALF).manner is Manner.ANEW
    assert refine(CHAT, " ", (LOOP,)).manner is Manner.ANEW


def test_too_small_a_part_is_not_kept() -> None:
    """Nor is anything that nobody has scored."""
    little = Accepted(tokens=1, text="It", share=0.1, first_rejected=1)
    assert refine(CHAT, "…", (), little, (), 12).manner is Manner.ANEW
    assert refine(CHAT, "…", ()).manner is Manner.ANEW
