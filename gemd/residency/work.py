"""The manager's slow work in tasks of its own, each of which reports back through the inbox."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from gemd.errors import GemdError, UnexpectedError
from gemd.residency.states import LoadStep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from gemd import wire
    from gemd.engine.worker import Worker
    from gemd.residency.hold import Clock, Handle
    from gemd.residency.scheduler import Scheduler
    from gemd.residency.states import Locate, Located, ResidencyEvent, Spawn

log = structlog.get_logger(__name__)

RESIZE_S = 30.0
"""How long making a context anew may take; a worker that needs longer is stuck."""


class Work:
    """`Effects` in tasks of their own, each of which reports back through the inbox."""

    def __init__(
        self,
        *,
        locate: Locate,
        spawn: Spawn,
        publish: Callable[[ResidencyEvent], None],
        look: Callable[[], None],
        clock: Clock,
        post: Callable[..., None],
    ) -> None:
        self._locate = locate
        self._spawn = spawn
        self._publish = publish
        self.look = look
        self._clock = clock
        self._post = post
        self._answers: Scheduler
        self._tasks: set[asyncio.Task[None]] = set()
        self._lives: dict[tuple[str, int], asyncio.Task[None]] = {}

    def answer_to(self, scheduler: Scheduler) -> None:
        """Whose handlers take the reports."""
        self._answers = scheduler

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.time()

    def ring_at(self, when: float, handler: Callable[[], None]) -> Handle:
        """Send the scheduler a message at that time."""
        return self._clock.call_at(when, partial(self._post, handler))

    def publish(self, event: ResidencyEvent) -> None:
        """Tell whoever listens."""
        self._publish(event)

    def locate(self, model: str, run: int) -> None:
        """Find the bytes."""
        self._begin(model, run, self._locating(model, run))

    def spawn(self, model: str, run: int, located: Located) -> None:
        """Start a worker."""
        self._begin(model, run, self._spawning(model, run, located))

    def stop(self, model: str, run: int, worker: Worker, grace_s: float) -> None:
        """Stop a worker."""
        self._detach(self._stopping(model, run, worker, grace_s))

    def resize(
        self, model: str, run: int, worker: Worker, tokens: int, prompt_cache_bytes: int
    ) -> None:
        """Make an idle worker's context anew."""
        self._detach(self._resizing(model, run, worker, tokens, prompt_cache_bytes))

    def abandon(self, model: str, run: int) -> None:
        """Drop a locate or a spawn."""
        task = self._lives.get((model, run))
        if task is not None:
            task.cancel()

    async def end(self) -> None:
        """Wait for what is still out; everything has been told to end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, model: str, run: int, work: Coroutine[Any, Any, None]) -> None:
        life = (model, run)
        task = self._detach(work)
        self._lives[life] = task
        task.add_done_callback(lambda done: self._forget(life, done))

    def _forget(self, life: tuple[str, int], task: asyncio.Task[None]) -> None:
        if self._lives.get(life) is task:
            del self._lives[life]
        if task.cancelled():
            # Said here: a task that is cancelled before its first step runs no line of its own.
            self._post(self._answers.endings.on_stopped, *life)

    def _detach(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _locating(self, model: str, run: int) -> None:
        outcome: Located | GemdError
        try:
            outcome = await self._locate(model)
        except GemdError as error:
            outcome = error
        except Exception:
            log.exception("residency.locate_failed", model=model)
            outcome = UnexpectedError(f"unexpected error while looking for {model}")
        self._post(self._answers.on_located, model, run, outcome)

    async def _spawning(self, model: str, run: int, located: Located) -> None:
        def report(progress: wire.Progress) -> None:
            step = LoadStep(model, progress.phase, progress.current, progress.total)
            self._post(self._answers.on_progress, model, run, step)

        def born(pid: int) -> None:
            self._post(self._answers.on_born, model, run, pid)

        def stuck(wait_exit: Callable[[], Awaitable[object]]) -> None:
            log.error("worker.stuck", model=model)
            self._post(self._answers.endings.on_stuck, model, run)
            self._detach(self._outlasting(model, run, wait_exit))

        outcome: Worker | GemdError
        try:
            outcome = await self._spawn(located.spec, report=report, born=born, stuck=stuck)
        except GemdError as error:
            outcome = error
        except Exception:
            log.exception("residency.spawn_failed", model=model)
            outcome = UnexpectedError(f"unexpected error while starting {model}")
        self._post(self._answers.on_spawned, model, run, outcome)
        if not isinstance(outcome, GemdError):
            self._detach(self._watching(model, run, outcome))

    async def _watching(self, model: str, run: int, worker: Worker) -> None:
        report = await worker.wait_exit()
        self._post(self._answers.endings.on_exit, model, run, report)

    async def _outlasting(
        self, model: str, run: int, wait_exit: Callable[[], Awaitable[object]]
    ) -> None:
        await wait_exit()
        log.info("worker.stuck_no_more", model=model)
        self._post(self._answers.endings.on_gone, model, run)

    async def _resizing(
        self, model: str, run: int, worker: Worker, tokens: int, prompt_cache_bytes: int
    ) -> None:
        well = False
        try:
            async with asyncio.timeout(RESIZE_S):
                made = await worker.resize(
                    context_tokens=tokens, prompt_cache_bytes=prompt_cache_bytes
                )
            well = True
            log.info("worker.resized", model=model, tokens=made.context_tokens)
        except TimeoutError:
            log.warning("worker.resize_hangs", model=model, seconds=RESIZE_S)
            await worker.stop(grace_s=0)
        except GemdError as error:
            log.warning("worker.resize_failed", model=model, error=str(error))
        except Exception:
            log.exception("worker.resize_failed", model=model)
        self._post(self._answers.on_resized, model, run, well)

    async def _stopping(self, model: str, run: int, worker: Worker, grace_s: float) -> None:
        try:
            report = await worker.stop(grace_s=grace_s)
            log.info("worker.stopped", model=model, pid=worker.pid, report=str(report))
        except Exception:
            log.exception("worker.stop_failed", model=model, pid=worker.pid)
        self._post(self._answers.endings.on_stopped, model, run)
