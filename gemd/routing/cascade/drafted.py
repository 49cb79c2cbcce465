"""The fast tier drafts, the draft is judged, and the strong tier mends what will not do."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from gemd import wire
from gemd.errors import GemdError
from gemd.routing.cascade.direct import way_of
from gemd.routing.cascade.events import Drafted, Ended, Judged, Resolution, Settled
from gemd.routing.cascade.failures import another_may
from gemd.routing.cascade.part import Part, Spent
from gemd.routing.cascade.refinement import UNFINISHED, Manner, Refinement, refine
from gemd.routing.checks import accepted_prefix, find_faults
from gemd.routing.decide import Strategy
from gemd.routing.risk import Evidence, Judgement, Likelihood, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from gemd.routing.cascade.events import Event
    from gemd.routing.cascade.job import Job, Tools
    from gemd.routing.checks import Accepted, Fault

DRAFT_TOKENS: Final = 512
"""The most of a draft, two canvases of the published model: what is longer streams sooner from
the strong tier, and a draft that runs on is rarely a good one."""


@dataclass(slots=True)
class Draft:
    """A draft as far as it is known.

    Attributes:
        deltas: What the drafter said.
        finished: How it ended; None if it failed.
        failure: What it failed with.
        faults: What is wrong with its text.
        scores: Its tokens under the checker; empty if it was not scored.
        judgement: The last one.

    """

    deltas: list[wire.Delta] = field(default_factory=list)
    finished: wire.Finished | None = None
    failure: GemdError | None = None
    faults: tuple[Fault, ...] = ()
    scores: Sequence[wire.TokenLogprob] = ()
    judgement: Judgement | None = None

    @property
    def text(self) -> str:
        """Without its reasoning."""
        return "".join(delta.text for delta in self.deltas)

    @property
    def tokens(self) -> int:
        """How many it has."""
        return 0 if self.finished is None else self.finished.completion_tokens


class Cascade:
    """One request that is drafted.

    Args:
        job: The request, whose choice names a drafter and a strong model.
        tools: What it works with.

    """

    def __init__(self, job: Job, tools: Tools) -> None:
        self._job = job
        self._tools = tools
        self._spent = Spent(job.arrived)
        self._way = way_of(job)
        self._draft = Draft()
        self._checker_failure: GemdError | None = None
        assert tools.judge is not None
        self._judge_of = tools.judge

    async def run(self) -> AsyncGenerator[Event]:
        """All events, from the draft to the end.

        Raises:
            GemdError: Neither tier can answer, or the strong one fails in the middle of its text.

        """
        for stage in (self._write, self._judge, self._finish):
            async with aclosing(stage()) as events:
                async for event in events:
                    yield event

    async def _write(self) -> AsyncGenerator[Event]:
        """The draft, as provisional text."""
        job, draft = self._job, self._draft
        part = Part(job, self._tools, job.choice.drafter, self._spent)
        sampling = job.sampling(self._tools.sampling_defaults(part.model))
        fields: dict[str, Any] = {
            "sampling": sampling.model_copy(update={"max_tokens": _limit(sampling)}),
            "thinking": job.asked.thinking,
            "watch_canvas": job.asked.watch_canvas,
        }
        try:
            async with aclosing(part.write(job.asked.prompt, **fields)) as messages:
                async for message in messages:
                    if isinstance(message, wire.Finished):
                        draft.finished = message
                        self._spent.add(message)
                        yield Drafted(part.model, "", last=True)
                    elif isinstance(message, wire.Delta):
                        draft.deltas.append(message)
                        if message.text:
                            yield Drafted(part.model, message.text)
                    else:
                        yield message
        except GemdError as error:
            self._tools.recent.drafted(failed=True)
            if not another_may(error):
                raise
            draft.failure = error
        else:
            self._tools.recent.drafted(failed=False)

    async def _judge(self) -> AsyncGenerator[Event]:
        """What the draft's own signals say, and the checker if they do not say enough."""
        draft = self._draft
        if draft.finished is None:
            return
        draft.faults = self._faults(draft.finished)
        may_check = self._job.choice.strategy is Strategy.DRAFT_AND_CHECK
        yield self._judged(may_check=may_check)
        assert draft.judgement is not None
        unfinished = any(fault.code in UNFINISHED for fault in draft.faults)
        if draft.judgement.verdict is not Verdict.CHECK and not (unfinished and may_check):
            self._judge_of.learn(draft.judgement)
            return
        async with aclosing(self._check()) as events:
            async for event in events:
                yield event
        yield self._judged(checked=bool(draft.scores))
        self._judge_of.learn(draft.judgement)

    async def _check(self) -> AsyncGenerator[Event]:
        """The draft under the checker's eyes."""
        job, draft = self._job, self._draft
        part = Part(
            job, self._tools, job.choice.checker, self._spent, work_id=f"{job.work_id}.check"
        )
        if not draft.text:
            return
        try:
            async with aclosing(part.score(job.asked.prompt, (draft.text,))) as messages:
                async for message in messages:
                    if isinstance(message, wire.Scores):
                        draft.scores = message.continuations[0].tokens
                    else:
                        yield message
        except GemdError as error:
            if not another_may(error):
                raise
            self._checker_failure = error

    async def _finish(self) -> AsyncGenerator[Event]:
        """Keep the draft, or have it refined."""
        judgement = self._draft.judgement
        if judgement is not None and judgement.verdict is Verdict.SHIP:
            for event in self._kept(*self._why_kept(judgement)):
                yield event
            return
        async with aclosing(self._refined()) as events:
            async for event in events:
                yield event

    async def _refined(self) -> AsyncGenerator[Event]:
        job, draft = self._job, self._draft
        strong = job.strong
        how = self._refinement(strong)
        part = Part(job, self._tools, strong, self._spent, work_id=f"{job.work_id}.strong")
        settled = False
        try:
            fields: dict[str, Any] = {"thinking": job.asked.thinking, "answer_prefix": how.prefix}
            async with aclosing(part.write(how.prompt, **fields)) as messages:
                async for message in messages:
                    if not settled and isinstance(message, wire.Delta | wire.Finished):
                        # Not sooner: as long as it has said nothing, the draft can stand in.
                        settled = True
                        for event in self._settle(how):
                            yield event
                    if isinstance(message, wire.Finished):
                        yield self._end(message)
                    elif isinstance(message, wire.Delta):
                        self._spent.saw_text(0, self._tools.manager.time())
                        yield message
                    else:
                        yield message
        except GemdError as error:
            if settled or not another_may(error) or draft.finished is None:
                raise
            why = f"{strong} failed ({error.message}), so the draft stands"
            for event in self._kept("REFINER_FAILED", why, error):
                yield event

    # --- decisions and events -------------------------------------------------------------

    def _faults(self, finished: wire.Finished) -> tuple[Fault, ...]:
        own_limit = self._job.asked.sampling.get("max_tokens")
        cut = finished.reason == "context_full" or (
            finished.reason == "max_tokens"
            and (own_limit is None or finished.completion_tokens < own_limit)
        )
        return find_faults(
            self._job.question,
            self._draft.text,
            system=self._job.instructions,
            truncated=cut,
        )

    def _judged(self, *, checked: bool = False, may_check: bool = False) -> Judged:
        draft = self._draft
        assert draft.finished is not None
        assert self._job.look is not None
        evidence = Evidence(
            look=self._job.look,
            trace=draft.finished.trace,
            faults=draft.faults,
            likelihood=Likelihood.of(draft.scores) if draft.scores else None,
        )
        draft.judgement = self._judge_of.judge(evidence, checked=checked, may_check=may_check)
        return Judged(
            draft.judgement,
            checked=checked,
            draft=draft.text,
            seconds=self._tools.manager.time() - self._job.arrived,
        )

    def _refinement(self, strong: str) -> Refinement:
        job, draft = self._job, self._draft
        accepted: Accepted | None = accepted_prefix(draft.scores) if draft.scores else None
        ids = [token.token for token in draft.scores] if job.choice.checker == strong else []
        return refine(job.asked.prompt, draft.text, draft.faults, accepted, ids)

    def _why_kept(self, judgement: Judgement) -> tuple[str, str, GemdError | None]:
        if self._checker_failure is None:
            return judgement.code, judgement.explanation, None
        why = (
            f"{self._job.choice.checker} failed ({self._checker_failure.message}); "
            f"{judgement.explanation}"
        )
        return "CHECKER_FAILED", why, self._checker_failure

    def _kept(self, reason: str, explanation: str, failure: GemdError | None = None) -> list[Event]:
        draft = self._draft
        assert draft.finished is not None
        now = self._tools.manager.time()
        if draft.text:
            self._spent.saw_text(0, now)
        way = replace(
            self._way,
            model=self._job.choice.drafter,
            tier=self._tools.tier(self._job.choice.drafter),
            resolution=Resolution.KEPT,
            risk=None if draft.judgement is None else draft.judgement.risk,
            drafted_tokens=draft.tokens,
            accepted_tokens=draft.tokens,
        )
        settled = Settled(
            Resolution.KEPT,
            reason,
            explanation,
            kept=draft.text,
            kept_tokens=draft.tokens,
            failure=failure,
        )
        ended = Ended(self._counted(draft.finished), way, self._spent.times(0, now))
        return [settled, *draft.deltas, ended]

    def _settle(self, how: Refinement) -> list[Event]:
        """What becomes of the draft, and the part of it that stays."""
        draft = self._draft
        failure = draft.failure or self._checker_failure
        if draft.failure is not None:
            reason = "DRAFTER_FAILED"
            why = f"{self._job.choice.drafter} failed ({draft.failure.message})"
        else:
            assert draft.judgement is not None
            reason, why = draft.judgement.code, draft.judgement.explanation
        resolution = Resolution.CONTINUED if how.manner is Manner.CONTINUE else Resolution.REPLACED
        settled = Settled(
            resolution, reason, why, kept=how.kept, kept_tokens=how.kept_tokens, failure=failure
        )
        self._way = replace(
            self._way,
            model=self._job.strong,
            tier=self._tools.tier(self._job.strong),
            resolution=resolution,
            risk=None if draft.judgement is None else draft.judgement.risk,
            drafted_tokens=draft.tokens,
            accepted_tokens=how.kept_tokens,
        )
        if not how.kept:
            return [settled]
        self._spent.saw_text(0, self._tools.manager.time())
        return [settled, wire.Delta(request_id=self._job.work_id, text=how.kept)]

    def _end(self, message: wire.Finished) -> Ended:
        self._spent.add(message)
        times = self._spent.times(0, self._tools.manager.time())
        return Ended(self._counted(message), self._way, times)

    def _counted(self, message: wire.Finished) -> wire.Finished:
        """With the tokens of all models that took part."""
        return message.model_copy(
            update={
                "completion_tokens": self._spent.completion_tokens,
                "reasoning_tokens": self._spent.reasoning_tokens,
                "trace": None if self._draft.finished is None else self._draft.finished.trace,
            }
        )


async def drafted(job: Job, tools: Tools) -> AsyncGenerator[Event]:
    """See `Cascade.run`."""
    async with aclosing(Cascade(job, tools).run()) as events:
        async for event in events:
            yield event


def _limit(sampling: wire.Sampling) -> int:
    own = sampling.max_tokens
    return DRAFT_TOKENS if own is None else min(own, DRAFT_TOKENS)
