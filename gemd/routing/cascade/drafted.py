"""The fast tier drafts, the draft is judged, and the strong tier mends what will not do."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from gemd import wire
from gemd.errors import GemdError
from gemd.routing.cascade.direct import way_of
from gemd.routing.cascade.events import Drafted, Ended, Judged, Resolution, Settled
from gemd.routing.cascade.failures import another_may, broke_down
from gemd.routing.cascade.faults import faults_of
from gemd.routing.cascade.part import Part, Spent
from gemd.routing.cascade.refinement import UNFINISHED, Manner, Refinement, refine
from gemd.routing.checks import accepted_prefix
from gemd.routing.decide import Strategy
from gemd.routing.risk import (
    Evidence,
    Judgement,
    Likelihood,
    Verdict,
    p_true,
    p_true_prompt,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from gemd.routing.cascade.events import Event
    from gemd.routing.cascade.job import Job, Tools
    from gemd.routing.checks import Accepted, Fault

CLOSE: Final = 0.1
"""Between risk and limit, within which the checker is asked outright whether the draft is right:
what that adds can turn the verdict, and costs a few tokens behind those it has just read."""
LEAST_RANK: Final = 10
"""Of a checker that is asked outright. Small models cannot tell (arXiv 2207.05221): SmolLM2 135M,
rank 2, says yes to right and wrong answers alike."""


@dataclass(slots=True)
class Draft:
    """A draft as far as it is known.

    Attributes:
        deltas: What the drafter said.
        finished: How it ended; None if it failed.
        failure: What it failed with.
        faults: What is wrong with its text.
        scores: Its tokens under the checker; empty if it was not scored.
        p_true: How probable the checker calls it that the draft is right; None if not asked.
        judgement: The one that stands.

    """

    deltas: list[wire.Delta] = field(default_factory=list)
    finished: wire.Finished | None = None
    failure: GemdError | None = None
    faults: tuple[Fault, ...] = ()
    scores: Sequence[wire.TokenLogprob] = ()
    p_true: float | None = None
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
        fields: dict[str, Any] = {
            "sampling": job.draft_sampling(self._tools.sampling_defaults(part.model)),
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
                        yield Drafted(part.model, message.text, tokens=len(message.tokens))
                    else:
                        yield message
        except GemdError as error:
            if not another_may(error):
                raise
            draft.failure = error
        if draft.failure is None or broke_down(draft.failure):
            failed = draft.failure is not None
            self._tools.recent.drafted(failed=failed, now=self._tools.manager.time())

    async def _judge(self) -> AsyncGenerator[Event]:
        """What the draft's own signals say, and the checker if they do not say enough."""
        draft = self._draft
        if draft.finished is None:
            return
        draft.faults = faults_of(self._job, draft.text, draft.finished)
        may_check = self._job.choice.strategy is Strategy.DRAFT_AND_CHECK
        judgement = self._judgement(may_check=may_check)
        # What a draft lacks at its end is written on behind what a check accepts of it.
        unfinished = may_check and any(fault.code in UNFINISHED for fault in draft.faults)
        if judgement.verdict is Verdict.CHECK or unfinished:
            yield self._judged(judgement, final=False)
            async with aclosing(self._check()) as events:
                async for event in events:
                    yield event
            judgement = self._judgement(checked=bool(draft.scores))
            if self._may_ask_outright and _is_close(judgement):
                yield self._judged(judgement, final=False)
                async with aclosing(self._ask_outright()) as events:
                    async for event in events:
                        yield event
                judgement = self._judgement(checked=True)
        draft.judgement = judgement
        self._judge_of.learn(judgement)
        yield self._judged(judgement, final=True)

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

    async def _ask_outright(self) -> AsyncGenerator[Event]:
        """Whether the checker calls the draft right: a few tokens behind what it has just read."""
        job, draft = self._job, self._draft
        question = p_true_prompt(job.asked.prompt, draft.text)
        if question is None:
            return
        part = Part(
            job, self._tools, job.choice.checker, self._spent, work_id=f"{job.work_id}.right"
        )
        try:
            async with aclosing(part.score(question.prompt, question.continuations)) as messages:
                async for message in messages:
                    if isinstance(message, wire.Scores):
                        draft.p_true = p_true(message.continuations)
                    else:
                        yield message
        except GemdError as error:
            if not another_may(error):
                raise
            # The draft has been scored: that has to do, also where this does not fit any more.
            if broke_down(error):
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
                        self._spent.saw_text(0, self._tools.manager.time)
                        yield message
                    else:
                        yield message
        except GemdError as error:
            if settled or not another_may(error) or draft.finished is None:
                raise
            why = f"{strong} failed ({error.message}), so the draft stands"
            for event in self._kept("REFINER_FAILED", why, error):
                yield event

    @property
    def _may_ask_outright(self) -> bool:
        checker = None if self._job.pair is None else self._job.pair.checker
        able = checker is not None and checker.quality >= LEAST_RANK
        return able and bool(self._draft.scores)

    # --- decisions and events -------------------------------------------------------------

    def _judgement(self, *, checked: bool = False, may_check: bool = False) -> Judgement:
        draft = self._draft
        assert draft.finished is not None
        assert self._job.look is not None
        evidence = Evidence(
            look=self._job.look,
            trace=draft.finished.trace,
            faults=draft.faults,
            likelihood=Likelihood.of(draft.scores) if draft.scores else None,
            p_true=draft.p_true,
        )
        return self._judge_of.judge(evidence, checked=checked, may_check=may_check)

    def _judged(self, judgement: Judgement, *, final: bool) -> Judged:
        return Judged(
            judgement,
            checked=bool(self._draft.scores),
            final=final,
            draft=self._draft.text,
            faults=self._draft.faults,
            seconds=self._tools.manager.time() - self._job.arrived,
        )

    def _refinement(self, strong: str) -> Refinement:
        job, draft = self._job, self._draft
        accepted: Accepted | None = accepted_prefix(draft.scores) if draft.scores else None
        ids = [token.token for token in draft.scores] if job.choice.checker == strong else []
        return refine(job.asked.prompt, draft.text, draft.faults, accepted, ids, draft.tokens)

    def _why_kept(self, judgement: Judgement) -> tuple[str, str, GemdError | None]:
        if self._checker_failure is None:
            return judgement.code, self._found(judgement), None
        why = (
            f"{self._job.choice.checker} failed ({self._checker_failure.message}); "
            f"{self._found(judgement)}"
        )
        return "CHECKER_FAILED", why, self._checker_failure

    def _found(self, judgement: Judgement) -> str:
        """What speaks against the draft, in words and in numbers."""
        severe = [fault.message for fault in self._draft.faults if fault.severe]
        return "; ".join([*severe, judgement.explanation])

    def _kept(self, reason: str, explanation: str, failure: GemdError | None = None) -> list[Event]:
        draft = self._draft
        assert draft.finished is not None
        now = self._tools.manager.time()
        if draft.text:
            self._spent.saw_text(0, self._tools.manager.time)
        way = replace(
            self._way,
            model=self._job.choice.drafter,
            tier=self._tools.tier(self._job.choice.drafter),
            checker=self._job.choice.checker if draft.scores else "",
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
            reason, why = draft.judgement.code, self._found(draft.judgement)
        resolution = Resolution.CONTINUED if how.manner is Manner.CONTINUE else Resolution.REPLACED
        settled = Settled(
            resolution, reason, why, kept=how.kept, kept_tokens=how.kept_tokens, failure=failure
        )
        self._way = replace(
            self._way,
            model=self._job.strong,
            tier=self._tools.tier(self._job.strong),
            checker=self._job.choice.checker if draft.scores else "",
            resolution=resolution,
            risk=None if draft.judgement is None else draft.judgement.risk,
            drafted_tokens=draft.tokens,
            accepted_tokens=how.kept_tokens,
        )
        if not how.kept:
            return [settled]
        self._spent.saw_text(0, self._tools.manager.time)
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


def _is_close(judgement: Judgement) -> bool:
    """Whether the answer to one more question may turn the verdict."""
    if judgement.code not in {"RISK_ABOVE_LIMIT", "RISK_WITHIN_LIMIT"}:
        return False
    return abs(judgement.risk - judgement.limit) < CLOSE


async def drafted(job: Job, tools: Tools) -> AsyncGenerator[Event]:
    """See `Cascade.run`."""
    async with aclosing(Cascade(job, tools).run()) as events:
        async for event in events:
            yield event
