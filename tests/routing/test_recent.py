"""What happened lately, without the texts of it."""

from __future__ import annotations

from gemd.routing.recent import CONVERSATIONS, DRAFTS, FORGOTTEN_S, Recent
from gemd.wire import ChatMessage, Prompt


def chat(*texts: str) -> Prompt:
    """A conversation, the user first."""
    roles = ("user", "assistant")
    return Prompt(
        chat=tuple(
            ChatMessage(role=roles[index % 2], text=text) for index, text in enumerate(texts)
        )
    )


def test_only_the_latest_drafts_count() -> None:
    """A drafter that works again is trusted again."""
    recent = Recent()
    for _ in range(DRAFTS + 2):
        recent.drafted(failed=True, now=1.0)
    assert recent.failed_drafts(1.0) == DRAFTS
    for done in range(1, DRAFTS + 1):
        recent.drafted(failed=False, now=1.0)
        assert recent.failed_drafts(1.0) == DRAFTS - done


def test_failures_are_forgotten_after_a_while() -> None:
    """Nobody drafts with a drafter that failed, so nothing else would ever clear it."""
    recent = Recent()
    for second in range(3):
        recent.drafted(failed=True, now=float(second))
    assert recent.failed_drafts(2.0) == 3
    assert recent.failed_drafts(FORGOTTEN_S) == 2
    assert recent.failed_drafts(FORGOTTEN_S + 2.0) == 0


def test_turns_of_a_conversation_are_counted_from_the_refined_one() -> None:
    """Whatever was said meanwhile; another conversation is another."""
    recent = Recent()
    recent.refined(chat("a"))
    assert recent.turns_since_refine(chat("a", "b", "c")) == 0
    assert recent.turns_since_refine(chat("a", "x", "y", "z", "w")) == 1
    assert recent.turns_since_refine(chat("b")) is None
    assert recent.turns_since_refine(Prompt(text="a")) is None


def test_the_same_turn_again_counts_as_the_next() -> None:
    """A user who asks again has not forgotten the answer."""
    recent = Recent()
    recent.refined(chat("a"))
    assert recent.turns_since_refine(chat("a")) == 0


def test_conversations_are_forgotten_in_the_end() -> None:
    """The one refined longest ago first."""
    recent = Recent()
    for number in range(CONVERSATIONS + 1):
        recent.refined(chat(str(number)))
    assert recent.turns_since_refine(chat("0")) is None
    assert recent.turns_since_refine(chat("1")) == 0


def test_instructions_belong_to_the_conversation() -> None:
    """Two apps with the same first question are two conversations."""
    recent = Recent()
    said = chat("a").chat or ()
    one = Prompt(chat=(ChatMessage(role="system", text="one"), *said))
    other = Prompt(chat=(ChatMessage(role="system", text="other"), *said))
    recent.refined(one)
    assert recent.turns_since_refine(one) == 0
    assert recent.turns_since_refine(other) is None
