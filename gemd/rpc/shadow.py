"""Shadow runs: the strong model answers drafted requests too, when nobody waits, to learn.

Texts stay in memory, a few of them, and only until they are compared; the settings switch it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from gemd import wire
from gemd.errors import GemdError
from gemd.residency.states import State
from gemd.routing.risk import (
    SHARE,
    Label,
    Source,
    combine,
    compare,
    is_drawn,
    log_odds,
    pairwise,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gemd.engine.worker import Worker
    from gemd.residency.manager import Manager
    from gemd.routing.risk import Judgement, Question

log = structlog.get_logger(__name__)

WAITING: Final = 16
"""Drafts that wait for their run; the oldest makes room."""
QUIET_S: Final = 20.0
"""Without a request, before one begins."""
LONGEST: Final = 1024
"""Tokens of a strong answer; a draft is far shorter."""
ATTEMPTS: Final = 3
"""Of one run, each of them given up because somebody asked something."""
_LOOK_S: Final = 0.05
"""How often a run looks whether somebody asks something."""


@dataclass(slots=True)
class Shipped:
    """A draft that became the answer.

    Attributes:
        request_id: Whose.
        prompt: What was asked.
        question: Its last turn, for comparisons.
        draft: The answer.
        judgement: What was thought of it.
        mode: The request's.
        strong: Who would have written it otherwise.
        add: Takes the label.
        attempts: How often its run was begun.

    """

    request_id: str
    prompt: wire.Prompt
    question: str
    draft: str
    judgement: Judgement
    mode: str
    strong: str
    add: Callable[[Label], None]
    attempts: int = 0


class ShadowRuns:
    """Runs them one at a time.

    Args:
        manager: Who is warm: nothing is loaded for a shadow run.
        sampling_defaults: By model.
        busy: Whether a request is under way.
        served: How many there were.
        allowed: Whether the machine is on mains, and memory is not short.
        pause: Waits so many seconds.
        wall: Seconds since the epoch.
        seed: Of the draws; None makes one.

    """

    def __init__(
        self,
        *,
        manager: Manager,
        sampling_defaults: Callable[[str], Mapping[str, object]],
        busy: Callable[[], bool],
        served: Callable[[], int],
        allowed: Callable[[], bool],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall: Callable[[], float],
        seed: int | None = None,
    ) -> None:
        self._manager = manager
        self._sampling_defaults = sampling_defaults
        self._busy = busy
        self._served = served
        self._allowed = allowed
        self._pause = pause
        self._wall = wall
        self._waiting: deque[Shipped] = deque(maxlen=WAITING)
        self._arrived = asyncio.Event()
        self._seed = secrets.randbits(32) if seed is None else seed
        self._offered = 0
        self._labelled = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to wait for drafts."""
        self._task = asyncio.create_task(self._run(), name="shadow runs")

    async def stop(self) -> None:
        """End, in the middle of a run too."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def offer(self, shipped: Shipped) -> None:
        """A draft was shipped; one in twenty is taken."""
        self._offered += 1
        if is_drawn(self._offered, self._seed):
            self._waiting.append(shipped)
            self._arrived.set()

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await self._quiet()
            # The oldest may have made room for another one meanwhile.
            shipped = self._waiting.popleft()
            if not self._is_warm(shipped.strong):
                continue
            try:
                good = await self._unless_busy(shipped)
            except GemdError as error:
                log.info("shadow.failed", request_id=shipped.request_id, error=error.reason)
                continue
            except Exception:
                # One run that goes wrong must not end all others.
                log.exception("shadow.defect", request_id=shipped.request_id)
                continue
            if good is not None:
                self._labelled += 1
                shipped.add(_label(shipped, good, self._propensity, self._wall()))
            elif shipped.attempts < ATTEMPTS:
                self._waiting.append(shipped)

    @property
    def _propensity(self) -> float:
        """Share of shipped drafts that got a label: some that are drawn never have their run."""
        return min(SHARE, self._labelled / self._offered)

    async def _quiet(self) -> None:
        """Return when there was no request for a while, and nothing speaks against a run."""
        while True:
            before = self._served()
            await self._pause(QUIET_S)
            if self._served() == before and not self._busy() and self._allowed():
                return

    def _is_warm(self, model: str) -> bool:
        return self._manager.residence(model).state is State.READY

    async def _unless_busy(self, shipped: Shipped) -> bool | None:
        """As `_compared`; None as soon as somebody asks something."""
        shipped.attempts += 1
        comparing = asyncio.create_task(self._compared(shipped), name="shadow run")
        try:
            while not comparing.done():
                if self._busy():
                    return None
                await asyncio.wait({comparing}, timeout=_LOOK_S)
            return comparing.result()
        finally:
            comparing.cancel()
            await asyncio.gather(comparing, return_exceptions=True)

    async def _compared(self, shipped: Shipped) -> bool:
        """Whether the draft will do beside the strong answer."""
        async with self._manager.hold(shipped.strong, background=True) as hold:
            worker = await hold.worker()
            strong = await self._answer(worker, shipped)
            found = compare(shipped.question, shipped.draft, strong)
            if found is not None:
                return found
            odds = [
                await _asked(worker, question)
                for question in pairwise(shipped.question, shipped.draft, strong)
            ]
        return combine(*odds)

    async def _answer(self, worker: Worker, shipped: Shipped) -> str:
        fields = {**self._sampling_defaults(shipped.strong), "seed": 0, "max_tokens": LONGEST}
        request = wire.Generate(
            request_id=f"shadow-{secrets.token_hex(8)}",
            prompt=shipped.prompt,
            sampling=wire.Sampling.model_validate(fields),
            thinking=False,
        )
        async with aclosing(worker.generate(request)) as messages:
            texts = [message.text async for message in messages if isinstance(message, wire.Delta)]
        return "".join(texts)


async def _asked(worker: Worker, question: Question) -> float:
    scores = await worker.score(
        wire.Score(
            request_id=f"shadow-{secrets.token_hex(8)}",
            prompt=question.prompt,
            continuations=question.continuations,
        )
    )
    return log_odds(scores.continuations)


def _label(
    shipped: Shipped,
    good: bool,  # noqa: FBT001 - what was found
    propensity: float,
    now: float,
) -> Label:
    return Label(
        signals=shipped.judgement.signals,
        good=good,
        source=Source.SHADOW,
        propensity=propensity,
        at=now,
        task=shipped.judgement.task,
        mode=shipped.mode,
        origin=f"{shipped.request_id}/0",
    )
