"""What a generation has brought so far; shared by the async and the sync stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.answers import Answer
from gemd.client.collect import broken
from gemd.client.events import Delta, Finished, Started

if TYPE_CHECKING:
    from gemd.client.events import GenerationEvent


@dataclass(slots=True)
class _Candidate:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finished: Finished | None = None


class Transcript:
    """Collects the events of one generation."""

    def __init__(self) -> None:
        self._candidates: dict[int, _Candidate] = {0: _Candidate()}
        self._started: Started | None = None

    def add(self, event: GenerationEvent) -> None:
        """Take one more event into account."""
        if isinstance(event, Delta):
            candidate = self._of(event.candidate)
            candidate.text.append(event.text)
            candidate.reasoning.append(event.reasoning_text)
        elif isinstance(event, Started) and self._started is None:
            self._started = event
        elif isinstance(event, Finished):
            self._of(event.candidate).finished = event

    @property
    def text(self) -> str:
        """The answer so far, of candidate 0."""
        return "".join(self._candidates[0].text)

    def answer(self) -> Answer:
        """The whole answer of candidate 0.

        Raises:
            GemdClientError: The stream ended without saying how it went.

        """
        return self._answer(self._candidates[0])

    def answers(self) -> tuple[Answer, ...]:
        """The whole answers of all candidates, in their order; raises as `answer` does."""
        return tuple(self._answer(one) for _, one in sorted(self._candidates.items()))

    def _of(self, candidate: int) -> _Candidate:
        found = self._candidates.get(candidate)
        if found is None:
            found = self._candidates[candidate] = _Candidate()
        return found

    def _answer(self, candidate: _Candidate) -> Answer:
        if candidate.finished is None:
            raise broken("the daemon ended the stream without a Finished event")
        return Answer(
            text="".join(candidate.text),
            reasoning_text="".join(candidate.reasoning),
            started=self._started,
            finished=candidate.finished,
        )
