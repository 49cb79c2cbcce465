"""What a program can show of an answer that is still being drafted, checked or written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.client.events import Delta, Draft, Resolved

if TYPE_CHECKING:
    from gemd.client.events import GenerationEvent


@dataclass(frozen=True, slots=True)
class Preview:
    """One candidate at one moment: show `text`, and behind it `provisional` as such."""

    text: str
    """The answer so far; it only grows."""
    provisional: str
    """What a draft has beyond it. It goes away, or becomes part of the answer."""
    resolved: Resolved | None
    """What was decided about the draft; None while that is open or if there is none. Once it is
    set, `provisional` is only what stays of the draft, and becomes part of the answer."""


class DraftView:
    """The part of a candidate's draft that stands behind its answer, event by event."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._rest: str | None = None
        self.model = ""
        """The model that drafts; empty if none has so far."""
        self.resolved: Resolved | None = None
        """What was decided about the draft; None while that is open or if there is none."""

    @property
    def draft(self) -> str:
        """The whole draft so far, whatever became of it."""
        return "".join(self._pieces)

    @property
    def rest(self) -> str:
        """Text of the draft that is not dropped and not part of the answer so far."""
        return self.draft if self._rest is None else self._rest

    def add(self, event: GenerationEvent) -> None:
        """Take one more event of the candidate into account."""
        if isinstance(event, Draft):
            self._pieces.append(event.text)
            self.model = event.model
        elif isinstance(event, Resolved):
            self.resolved = event
            self._rest = _kept(self.draft, event)
        elif isinstance(event, Delta) and event.text and (self._pieces or self._rest):
            rest = self.rest
            self._rest = rest[len(event.text) :] if rest.startswith(event.text) else ""


def _kept(draft: str, resolved: Resolved) -> str:
    """The beginning of the draft that stays."""
    if resolved.resolution == "KEPT":
        return draft
    if resolved.resolution == "CONTINUED":
        return draft.encode()[: resolved.kept_bytes].decode(errors="ignore")
    return ""
