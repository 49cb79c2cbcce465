"""What requests teach: kept in memory, written to disk and fitted beside the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from gemd.routing.cascade import Ended, Judged, Resolution, Settled
from gemd.routing.decide import Odds, Strategy, odds_of
from gemd.routing.decide.odds import REFINE_RATE, SPARED
from gemd.routing.recent import Recent
from gemd.routing.shares import Shares
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gemd.routing.cascade import Job
    from gemd.routing.cascade.events import Event
    from gemd.routing.request import Feedback
    from gemd.routing.risk import Judge, KeptStates, Key, Label
    from gemd.routing.route import Pair
    from gemd.routing.speeds import Speeds
    from gemd.rpc.lessons import Lesson

log = structlog.get_logger(__name__)

_WINDOW: Final = 200
"""Drafts whose fate says what the next one's will be."""
_ENOUGH: Final = 20
"""Of them, before that counts."""


class Learning:
    """All that is learnt, for every pair of models that was in use.

    Args:
        speeds: What models were measured to do.
        states: Makes what judges are kept in, at the first use; None keeps nothing.
        identity: Of a model: what makes things learnt with it worthless when it changes.
        budget: Share of drafts to refine as long as nothing is known of their worth.
        harm: Largest share of drafts that may be shipped and bad.
        wall: Seconds since the epoch.

    Attributes:
        speeds: As given.
        recent: What happened lately.
        shares: How requests fared.
        wall: As given.

    """

    def __init__(
        self,
        *,
        speeds: Speeds,
        states: Callable[[], KeptStates] | None,
        identity: Callable[[str], str],
        budget: float,
        harm: float,
        wall: Callable[[], float],
    ) -> None:
        self.speeds = speeds
        self.recent = Recent()
        self.shares = Shares()
        self._make_states = states
        self._states: KeptStates | None = None
        self._identity = identity
        self._budget = budget
        self._harm = harm
        self.wall = wall
        self._lessons: dict[Key, Lesson] = {}
        self._saves: set[asyncio.Task[None]] = set()
        self._fits: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()
        self._closed = False
        self._checked: deque[bool] = deque(maxlen=_WINDOW)
        self._spared: deque[float] = deque(maxlen=_WINDOW)
        self._odds: tuple[tuple[float, float, float], Odds] | None = None

    def of(self, pair: Pair) -> Lesson:
        """With this pair; what was learnt in earlier runs is read at the first use."""
        # The judge is large, and a daemon that drafts nothing needs none.
        from gemd.rpc.lessons import key_of, lesson_of  # noqa: PLC0415 - see above

        key = key_of(pair, self._identity)
        if key not in self._lessons:
            if self._states is None and self._make_states is not None:
                self._states = self._make_states()
            self._lessons[key] = lesson_of(key, self._states, budget=self._budget, harm=self._harm)
        return self._lessons[key]

    def odds(self, judge: Judge) -> Odds:
        """How drafts fare here, by what was seen so far."""
        report = judge.report()
        rate, enough = report.refine_rate, report.judged >= _ENOUGH
        figures = (
            # At 0 or 1 there is no point on a curve.
            round(min(0.95, max(0.02, rate)), 2) if enough and rate is not None else REFINE_RATE,
            round(_mean(self._checked, 1.0), 2),
            round(_mean(self._spared, SPARED), 2),
        )
        if self._odds is None or self._odds[0] != figures:
            rate, checked, spared = figures
            made = odds_of(refine_rate=rate, check_share=checked, spared=spared)
            self._odds = figures, made
        return self._odds[1]

    def note(self, job: Job, event: Event, lesson: Lesson | None) -> None:
        """Something happened to a request; `lesson` is that of its draft, if it has one."""
        match event:
            case Judged() if lesson is not None:
                self._note_judgement(job, event, lesson)
            case Settled():
                # A drafter that broke down says nothing of the conversation.
                if event.resolution is not Resolution.KEPT and event.reason != "DRAFTER_FAILED":
                    self.recent.refined(job.asked.prompt)
            case Ended():
                self._note_end(event)

    def feedback(self, request_id: str, candidate: int, signal: Feedback) -> bool:
        """What a user or an app tells of an answer; whether it is of use."""
        for lesson in self._lessons.values():
            label = lesson.memory.feedback(request_id, candidate, signal, now=self.wall())
            if label is not None:
                self.add(label, lesson)
                return True
        return False

    def add(self, label: Label, lesson: Lesson) -> None:
        """Whether a draft would do has become known."""
        lesson.judge.add(label)
        self._work()

    def _note_judgement(self, job: Job, event: Judged, lesson: Lesson) -> None:
        if not event.final:
            return
        if job.choice.strategy is Strategy.DRAFT_AND_CHECK:
            self._checked.append(event.checked)
        if event.judgement.ships:
            lesson.memory.remember(
                job.request_id,
                0,
                event.judgement.signals,
                task=event.judgement.task,
                mode=job.asked.mode.value,
            )

    def _note_end(self, event: Ended) -> None:
        way = event.way
        if way.resolution not in {None, Resolution.KEPT} and way.drafted_tokens:
            self._spared.append(way.accepted_tokens / way.drafted_tokens)
        if event.message.last:
            self.shares.note(way, event.times.total)
            self._work()

    # --- slow work, beside the loop -------------------------------------------------------

    def _work(self) -> None:
        """Begin what is due."""
        if self.speeds.due:
            self._begin("speeds", self._save_speeds())
        for key, lesson in self._lessons.items():
            judge, name = lesson.judge, f"{key.drafter}/{key.checker}"
            if judge.save_due:
                self._begin(f"save {name}", self._save(key, judge))
            if judge.fit_due:
                self._begin(f"fit {name}", self._fit(judge), among=self._fits)

    def _begin(
        self,
        name: str,
        work: Coroutine[None, None, None],
        *,
        among: set[asyncio.Task[None]] | None = None,
    ) -> None:
        tasks = self._saves if among is None else among
        if self._closed or name in self._busy:
            work.close()
            return
        self._busy.add(name)
        task = asyncio.create_task(work, name=f"learning: {name}")
        tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            tasks.discard(done)
            self._busy.discard(name)
            if not done.cancelled() and done.exception() is not None:
                log.error("learning.failed", work=name, exc_info=done.exception())

        task.add_done_callback(ended)

    async def _save_speeds(self) -> None:
        await in_thread(lambda _: self.speeds.save())

    async def _save(self, key: Key, judge: Judge) -> None:
        states = self._states
        if states is not None:
            state = judge.snapshot()
            await in_thread(lambda _: states.save(key, state))

    async def _fit(self, judge: Judge) -> None:
        from gemd.routing.risk import fit  # noqa: PLC0415 - as in `of`

        labels = judge.labels
        judge.adopt(await in_thread(lambda _: fit(labels, harm=judge.harm), abandon=True))

    async def close(self) -> None:
        """Write what is not written yet; returns when it is. Nothing begins afterwards."""
        self._closed = True
        for task in self._fits:
            # The next run fits the same labels anew.
            task.cancel()
        if self._saves or self._fits:
            await asyncio.wait({*self._saves, *self._fits})
        await self._save_speeds()
        for key, lesson in self._lessons.items():
            if lesson.judge.report().judged:
                await self._save(key, lesson.judge)


def _mean(values: deque[bool] | deque[float], otherwise: float) -> float:
    return sum(values) / len(values) if len(values) >= _ENOUGH else otherwise
