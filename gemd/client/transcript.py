"""What a generation has brought so far; shared by the async and the sync stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.client.answers import Answer
from gemd.client.collect import broken
from gemd.client.events import Delta, Finished, Started

if TYPE_CHECKING:
    from gemd.client.events import GenerationEvent


class Transcript:
    """Collects the events of one generation; text is that of candidate 0."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._started: Started | None = None
        self._finished: Finished | None = None

    def add(self, event: GenerationEvent) -> None:
        """Take one more event into account."""
        if isinstance(event, Delta) and event.candidate == 0:
            self._text.append(event.text)
            self._reasoning.append(event.reasoning_text)
        elif isinstance(event, Started) and self._started is None:
            self._started = event
        elif isinstance(event, Finished) and event.candidate == 0:
            self._finished = event

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._text)

    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            GemdClientError: The stream ended without saying how it went.

        """
        if self._finished is None:
            raise broken("the daemon ended the stream without a Finished event")
        return Answer(
            text=self.text,
            reasoning_text="".join(self._reasoning),
            started=self._started,
            finished=self._finished,
        )
