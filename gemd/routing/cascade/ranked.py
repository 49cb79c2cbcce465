"""Best of N: several answers of the fast tier, ranked, of which the best ones are given."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gemd import wire
from gemd.errors import GemdError
from gemd.routing.cascade.direct import way_of
from gemd.routing.cascade.events import Ended
from gemd.routing.cascade.failures import another_may
from gemd.routing.cascade.faults import faults_of
from gemd.routing.cascade.part import Part, Spent
from gemd.routing.checks import Contender, agreement, closed_answer, enough, rank
from gemd.routing.risk import Likelihood

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from gemd.routing.cascade.events import Event
    from gemd.routing.cascade.job import Job, Tools
    from gemd.routing.checks import Fault, Ranked


@dataclass(slots=True)
class _Candidate:
    deltas: list[wire.Delta] = field(default_factory=list)
    finished: wire.Finished | None = None
    faults: tuple[Fault, ...] = ()
    scores: Sequence[wire.TokenLogprob] = ()

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


class Ranking:
    """One request whose answers are ranked.

    Args:
        job: The request; its choice names who writes, and who scores if anybody does.
        tools: What it works with.

    """

    def __init__(self, job: Job, tools: Tools) -> None:
        self._job = job
        self._tools = tools
        self._spent = Spent(job.arrived)
        self._candidates = [_Candidate() for _ in range(job.asked.best_of)]
        self._note = ""

    async def run(self) -> AsyncGenerator[Event]:
        """All events; the texts come when the ranking is done.

        Raises:
            GemdError: The writer cannot be had, or fails.

        """
        for stage in (self._write, self._score):
            async with aclosing(stage()) as events:
                async for event in events:
                    yield event
        for event in self._given():
            yield event

    async def _write(self) -> AsyncGenerator[Event]:
        """All candidates side by side, until those that are complete agree."""
        asked = self._job.asked
        part = Part(self._job, self._tools, self._job.choice.model, self._spent)
        stream = part.write(
            asked.prompt,
            candidates=asked.best_of,
            spans=asked.spans,
            thinking=asked.thinking,
            watch_canvas=asked.watch_canvas,
        )
        async with aclosing(stream) as messages:
            async for message in messages:
                if isinstance(message, wire.Delta):
                    self._candidates[message.candidate].deltas.append(message)
                elif isinstance(message, wire.Finished):
                    self._complete(self._candidates[message.candidate], message)
                    if self._agree():
                        # Closing the stream ends the others at their next step.
                        return
                else:
                    yield message

    def _complete(self, candidate: _Candidate, message: wire.Finished) -> None:
        # Looked at now and not at the end: it takes milliseconds, and others have to be served.
        candidate.finished = message
        candidate.faults = faults_of(self._job, candidate.text, message)

    def _agree(self) -> bool:
        done = self._done()
        if len(done) < max(2, self._job.asked.candidates) or len(done) == self._job.asked.best_of:
            return False
        texts = [self._candidates[index].text for index in done]
        found = agreement(self._job.question, texts)
        if not enough(found, len(done), self._job.asked.best_of):
            return False
        self._note = (
            f"; stopped after {len(done)} of {self._job.asked.best_of}, "
            f"{round(found.share * len(done))} of which agree"
        )
        return True

    async def _score(self) -> AsyncGenerator[Event]:
        """How likely the checker finds each of them."""
        checker = self._job.choice.checker
        wanted = [index for index in self._done() if self._candidates[index].text]
        if not checker or len(wanted) < 2:  # noqa: PLR2004 - one needs no ranking
            return
        part = Part(
            self._job, self._tools, checker, self._spent, work_id=f"{self._job.work_id}.check"
        )
        texts = [self._candidates[index].text for index in wanted]
        try:
            async with aclosing(part.score(self._job.asked.prompt, texts)) as messages:
                async for message in messages:
                    if isinstance(message, wire.Scores):
                        for index, one in zip(wanted, message.continuations, strict=True):
                            self._candidates[index].scores = one.tokens
                    else:
                        yield message
        except GemdError as error:
            if not another_may(error):
                raise
            self._note += f"; {checker} failed ({error.message}), so it has no say"

    def _done(self) -> list[int]:
        return [index for index, each in enumerate(self._candidates) if each.finished is not None]

    def _ranked(self) -> list[Ranked]:
        done = self._done()
        texts = [self._candidates[index].text for index in done]
        finals = [closed_answer(self._job.question, text) for text in texts]
        shares = [0.0 if final is None else finals.count(final) / len(finals) for final in finals]
        return rank(
            [
                Contender(
                    index=index,
                    text=self._candidates[index].text,
                    likelihood=Likelihood.of(self._candidates[index].scores)
                    if self._candidates[index].scores
                    else None,
                    faults=self._candidates[index].faults,
                    share=share,
                    trace=self._trace(index),
                )
                for index, share in zip(done, shares, strict=True)
            ]
        )

    def _trace(self, index: int) -> wire.Trace | None:
        finished = self._candidates[index].finished
        return None if finished is None else finished.trace

    def _given(self) -> list[Event]:
        """The best ones, numbered by their place."""
        ranked = self._ranked()
        way = way_of(self._job)
        scored = any(each.scores for each in self._candidates)
        if ranked and (faults := self._candidates[ranked[0].index].faults):
            self._note += f"; the best one has a fault: {faults[0].message}"
        way = replace(
            way,
            checker=way.checker if scored else "",
            explanation=way.explanation + self._note,
        )
        now = self._tools.manager.time()
        events: list[Event] = []
        given = ranked[: self._job.asked.candidates]
        for place, one in enumerate(given):
            candidate = self._candidates[one.index]
            assert candidate.finished is not None
            self._spent.saw_text(place, self._tools.manager.time)
            events += [delta.model_copy(update={"candidate": place}) for delta in candidate.deltas]
            account = replace(self._spent)
            account.add(candidate.finished)
            events.append(
                Ended(
                    candidate.finished.model_copy(
                        update={"candidate": place, "last": place == len(given) - 1}
                    ),
                    way,
                    account.times(place, now),
                    rank=place + 1,
                    score=one.score,
                )
            )
        return events


async def ranked(job: Job, tools: Tools) -> AsyncGenerator[Event]:
    """See `Ranking.run`."""
    async with aclosing(Ranking(job, tools).run()) as events:
        async for event in events:
            yield event
