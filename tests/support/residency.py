"""A clock that only moves when told, and workers that exist only in memory."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gemd import wire
from gemd.engine.reports import ExitReport
from gemd.engine.spec import WorkerSpec
from gemd.hardware import RAM
from gemd.quantities import Budget
from gemd.residency.accounts import Limits
from gemd.residency.manager import Manager
from gemd.residency.states import ContextSize, Located

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.engine.reports import StuckCallback
    from gemd.errors import GemdError
    from gemd.residency.crashes import CrashPolicy
    from gemd.residency.states import ResidencyEvent

GIB = 2**30
CONTEXT = 4096
"""Tokens of every model's whole context."""


@dataclass
class Alarm:
    """A timer of `FakeClock`."""

    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        """Never ring."""
        self.cancelled = True


class FakeClock:
    """Monotonic time that moves by `advance` only."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        """Now."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Alarm:
        """Ring once `advance` passes `when`."""
        alarm = Alarm(callback)
        heapq.heappush(self._alarms, (when, next(self._numbers), alarm))
        return alarm

    async def advance(self, seconds: float) -> None:
        """Move on, ring what is due in its order, and let everything react."""
        end = self.now + seconds
        while self._alarms and self._alarms[0][0] <= end:
            self.now, _, alarm = heapq.heappop(self._alarms)
            if not alarm.cancelled:
                alarm.callback()
            await settle()
        self.now = end
        await settle()


async def settle() -> None:
    """Let every task run until nothing is left to do without time or input."""
    for _ in range(50):
        await asyncio.sleep(0)


class FakeWorker:
    """A worker that is only its own bookkeeping."""

    def __init__(self, spec: WorkerSpec, *, rss: int, sequences: int) -> None:
        self.spec = spec
        self.pid = 4242
        self.ready = SimpleNamespace(max_sequences=sequences, compute="")
        self.rss = rss
        self.stops: list[float] = []
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.contexts: dict[int, int] = {}
        self.resizes: list[int] = []
        self.resize_error: GemdError | None = None
        self.may_resize = asyncio.Event()
        self.may_resize.set()
        self._exit: asyncio.Future[ExitReport] = asyncio.get_running_loop().create_future()

    @property
    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return not self._exit.done()

    def rss_bytes(self) -> int:
        """Its pretended size."""
        return self.rss

    async def resize(self, *, context_tokens: int, prompt_cache_bytes: int) -> wire.Resized:
        """Another context, whose size is in `contexts`, once `may_resize` is set."""
        self.resizes.append(context_tokens)
        await self.may_resize.wait()
        if self.resize_error is not None:
            raise self.resize_error
        self.rss = self.contexts[context_tokens]
        return wire.Resized(request_id="r", context_tokens=context_tokens, memory_bytes={})

    async def wait_exit(self) -> ExitReport:
        """Its end."""
        return await asyncio.shield(self._exit)

    async def stop(self, *, grace_s: float) -> str:
        """End when `may_stop` is set."""
        self.stops.append(grace_s)
        await self.may_stop.wait()
        self.crash(returncode=0)
        return "stopped"

    def crash(self, *, returncode: int = -11, stderr: str = "Segmentation fault") -> None:
        """End by itself."""
        if not self._exit.done():
            self._exit.set_result(ExitReport(returncode=returncode, lines=(stderr,)))


@dataclass
class Plant:
    """Everything around a Manager, under the test's control."""

    clock: FakeClock = field(default_factory=FakeClock)
    sizes: dict[str, int] = field(default_factory=dict)
    errors: dict[str, GemdError] = field(default_factory=dict)
    load_errors: list[GemdError] = field(default_factory=list)
    sequences: int = 2
    located: list[str] = field(default_factory=list)
    spawned: list[FakeWorker] = field(default_factory=list)
    cancelled_spawns: int = 0
    prompt_cache_bytes: int = 0
    elsewhere: dict[str, dict[str, int]] = field(default_factory=dict)
    smaller: dict[str, dict[int, int]] = field(default_factory=dict)
    """Of each model, what it takes of main memory with a smaller context, by its tokens."""
    stuck: dict[int, StuckCallback] = field(default_factory=dict)
    """By pid: says that a process outlives SIGKILL."""
    looks: int = 0
    events: list[ResidencyEvent] = field(default_factory=list)
    may_locate: asyncio.Event = field(default_factory=asyncio.Event)
    may_load: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_locate.set()
        self.may_load.set()

    async def locate(self, model: str) -> Located:
        """Find nothing; wait for `may_locate`."""
        self.located.append(model)
        await self.may_locate.wait()
        if model in self.errors:
            raise self.errors[model]
        load = wire.Load(
            path=str(Path("/nowhere") / model),
            context_tokens=CONTEXT,
            max_sequences=2,
            threads=1,
            prompt_cache_bytes=self.prompt_cache_bytes,
        )
        spec = WorkerSpec(model=model, engine="scripted", load=load, environ={})
        return Located(
            spec,
            self.sizes.get(model, GIB),
            self.elsewhere.get(model, {}),
            tuple(
                ContextSize(tokens, {RAM: size})
                for tokens, size in self.smaller.get(model, {}).items()
            ),
        )

    async def spawn(
        self,
        spec: WorkerSpec,
        *,
        report: Callable[[wire.Progress], None],
        born: Callable[[int], None],
        stuck: StuckCallback,
    ) -> Any:
        """Start nothing; wait for `may_load`."""
        pid = 4242 + len(self.spawned)
        self.stuck[pid] = stuck
        born(pid)
        report(wire.Progress(phase="weights", current=1, total=2))
        try:
            await self.may_load.wait()
        except asyncio.CancelledError:
            self.cancelled_spawns += 1
            raise
        if self.load_errors:
            raise self.load_errors.pop(0)
        contexts = {CONTEXT: self.sizes.get(spec.model, GIB), **self.smaller.get(spec.model, {})}
        size = contexts[spec.load.context_tokens]
        worker = FakeWorker(spec, rss=size - 1, sequences=self.sequences)
        worker.contexts = contexts
        worker.pid = pid
        self.spawned.append(worker)
        return worker

    def manager(
        self,
        *,
        budget_bytes: int = 4 * GIB,
        keep_warm_s: float = 60.0,
        keep_warm_of: dict[str, float] | None = None,
        queue_limit: int = 4,
        pinned: tuple[str, ...] = (),
        policy: CrashPolicy | None = None,
        limits: Limits | None = None,
    ) -> Manager:
        """A manager in this plant."""
        return Manager(
            locate=self.locate,
            spawn=self.spawn,
            publish=self.events.append,
            keep_warm_s=keep_warm_s,
            keep_warm_of=keep_warm_of,
            queue_limit=queue_limit,
            pinned=pinned,
            policy=policy,
            limits=replace(limits or Limits(), ram_budget=Budget(absolute_bytes=budget_bytes)),
            look=self._look,
            clock=self.clock,
        )

    def _look(self) -> None:
        self.looks += 1
