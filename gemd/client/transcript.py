"""What a generation has brought so far; shared by the async and the sync stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.answers import Answer
from gemd.client.collect import broken
from gemd.client.events import Delta, Draft, Finished, Resolved, Started
from gemd.client.preview import DraftView, Preview

if TYPE_CHECKING:
    from gemd.client.events import GenerationEvent


@dataclass(slots=True)
class _Candidate:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finished: Finished | None = None
    draft: DraftView = field(default_factory=DraftView)


class Transcript:
    """Collects the events of one generation."""

    def __init__(self) -> None:
        self._candidates: dict[int, _Candidate] = {0: _Candidate()}
        self._started: list[Started] = []

    def add(self, event: GenerationEvent) -> None:
        """Take one more event into account."""
        if isinstance(event, Delta):
            candidate = self._of(event.candidate)
            candidate.text.append(event.text)
            candidate.reasoning.append(event.reasoning_text)
            candidate.draft.add(event)
        elif isinstance(event, Draft | Resolved):
            self._of(event.candidate).draft.add(event)
        elif isinstance(event, Started):
            self._started.append(event)
        elif isinstance(event, Finished):
            self._of(event.candidate).finished = event

    @property
    def has_ended(self) -> bool:
        """Whether all that has begun came to its end."""
        return all(each.finished is not None for each in self._candidates.values())

    @property
    def text(self) -> str:
        """The answer so far, of candidate 0."""
        return "".join(self._candidates[0].text)

    def preview(self, candidate: int) -> Preview:
        """What can be shown of a candidate now."""
        found = self._candidates.get(candidate, _Candidate())
        return Preview("".join(found.text), found.draft.rest, found.draft.resolved)

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
            started=self._writer(candidate.finished),
            finished=candidate.finished,
            draft=candidate.draft.draft,
            resolved=candidate.draft.resolved,
        )

    def _writer(self, finished: Finished) -> Started | None:
        """The start of the model that wrote the answer, of several that took part."""
        wrote = [one for one in self._started if one.model == finished.model]
        return next(iter(wrote[-1:] or self._started), None)
