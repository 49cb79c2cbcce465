"""How a draft that will not do is refined. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.routing.checks import Accepted, Fault

LEAST_SHARE: Final = 0.2
"""Of a draft that has to be accepted for its beginning to be kept: of less, reading on from it
saves nothing, and what follows would be bent by it."""
UNFINISHED: Final = frozenset({"TRUNCATED"})
"""Faults of a draft's end, which leave its beginning as good as it was."""


class Manner(enum.Enum):
    """How the strong model goes about it."""

    CONTINUE = "CONTINUE"
    """It goes on from the part of the draft that it would have written itself."""
    REWRITE = "REWRITE"
    """It sees the draft and what is wrong with it, and writes a corrected answer."""
    ANEW = "ANEW"
    """It sees nothing of the draft."""


@dataclass(frozen=True, slots=True)
class Refinement:
    """What the strong model is to do.

    Attributes:
        manner: How.
        prompt: What it answers.
        kept: The text that its answer begins with.
        prefix: The same as it is handed to the engine: ids where it scored the draft itself.
        kept_tokens: Tokens of it, as the drafter counts them.

    """

    manner: Manner
    prompt: wire.Prompt
    kept: str = ""
    prefix: str | tuple[int, ...] = ""
    kept_tokens: int = 0


def refine(
    prompt: wire.Prompt,
    draft: str,
    faults: Sequence[Fault],
    accepted: Accepted | None = None,
    ids: Sequence[int] = (),
    tokens: int = 0,
) -> Refinement:
    """The way to mend a draft.

    Args:
        prompt: What was asked.
        draft: The answer that will not do.
        faults: What is wrong with its text.
        accepted: Its beginning that the checker accepts; None if nobody scored it.
        ids: Its tokens in the vocabulary of the model that refines; empty if they are not known.
        tokens: How many it has by its drafter's count.

    """
    severe = [fault for fault in faults if fault.severe and fault.code not in UNFINISHED]
    if severe and prompt.chat is not None and draft.strip():
        return Refinement(Manner.REWRITE, _corrected(prompt.chat, draft, severe))
    if severe or accepted is None or accepted.share < LEAST_SHARE or not accepted.text:
        return Refinement(Manner.ANEW, prompt)
    if accepted.first_rejected is None and not any(fault.code in UNFINISHED for fault in faults):
        # It is complete, and something other than a passage of it speaks against it.
        return Refinement(Manner.ANEW, prompt)
    return Refinement(
        Manner.CONTINUE,
        prompt,
        kept=accepted.text,
        prefix=tuple(ids[: accepted.tokens]) if ids else accepted.text,
        # The checker may have another vocabulary.
        kept_tokens=round(accepted.share * tokens),
    )


def _corrected(
    chat: tuple[wire.ChatMessage, ...], draft: str, faults: Sequence[Fault]
) -> wire.Prompt:
    found = "\n".join(f"- {fault.message}" for fault in faults)
    return wire.Prompt(
        chat=(
            *chat,
            wire.ChatMessage(role="assistant", text=draft),
            wire.ChatMessage(
                role="user",
                text=(
                    f"That answer will not do:\n{found}\n\n"
                    "Answer the original request again and mend this. Give only the corrected "
                    "answer, in the language of the request, without a word about these faults."
                ),
            ),
        )
    )
