"""What happened lately and bears on the next decision: failed drafts, refined conversations."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gemd import wire

DRAFTS: Final = 5
"""Latest drafts of which it counts how many failed."""
FORGOTTEN_S: Final = 300.0
"""After which a failure counts no more: else a drafter that is left out because it failed would
never be tried again. By then its engine was started anew, or is in quarantine and refuses at once.
"""
CONVERSATIONS: Final = 256
"""Conversations that are remembered; the one refined longest ago is forgotten first."""


class Recent:
    """A memory without texts: of a conversation it keeps a hash of its beginning."""

    def __init__(self) -> None:
        self._drafts: deque[tuple[float, bool]] = deque(maxlen=DRAFTS)
        self._refined: OrderedDict[bytes, int] = OrderedDict()

    def failed_drafts(self, now: float) -> int:
        """Of the latest drafts, those in which the drafter failed; `now` in monotonic seconds."""
        return sum(failed and now - at < FORGOTTEN_S for at, failed in self._drafts)

    def drafted(self, *, failed: bool, now: float) -> None:
        """A draft has ended at that monotonic second."""
        self._drafts.append((now, failed))

    def refined(self, prompt: wire.Prompt) -> None:
        """The draft of an answer to this conversation was refined."""
        if prompt.chat is None:
            return
        key = _key(prompt.chat)
        self._refined[key] = _turns(prompt.chat)
        self._refined.move_to_end(key)
        while len(self._refined) > CONVERSATIONS:
            self._refined.popitem(last=False)

    def turns_since_refine(self, prompt: wire.Prompt) -> int | None:
        """User turns since the last refined one, 0 for the turn right after it; None if none was.

        The same turn asked again counts as the one after it.
        """
        if prompt.chat is None:
            return None
        turn = self._refined.get(_key(prompt.chat))
        return None if turn is None else max(0, _turns(prompt.chat) - turn - 1)


def _key(chat: tuple[wire.ChatMessage, ...]) -> bytes:
    """Of a conversation: its instructions and its first question, which stay as it grows."""
    digest = hashlib.blake2b(digest_size=16)
    for message in chat:
        digest.update(f"{message.role}\0{message.text}\0".encode())
        if message.role == "user":
            break
    return digest.digest()


def _turns(chat: tuple[wire.ChatMessage, ...]) -> int:
    return sum(message.role == "user" for message in chat)
