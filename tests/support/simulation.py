"""A scheduler in fake time on a machine in memory: no event loop, and a day in seconds.

What takes time (finding bytes, loads, stops, samples, answers) is an event in one heap; after
each of them the scheduler plans again, as the manager's loop does.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gemd import wire
from gemd.engine.reports import ExitReport
from gemd.engine.spec import WorkerSpec
from gemd.errors import EngineStartFailedError
from gemd.hardware import RAM, Blind
from gemd.hardware.sampler import FAST_S, LEAST_S, SLOW_S
from gemd.residency.crashes import CrashPolicy
from gemd.residency.hold import Ticket
from gemd.residency.scheduler import Scheduler
from gemd.residency.states import ContextSize, Located, State
from tests.support.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.errors import GemdError
    from gemd.residency.accounts import Accounts
    from gemd.residency.states import ResidencyEvent
    from tests.support.machine import Machine
    from tests.support.residency import Alarm

GROWING = 4
"""In so many parts a load takes its memory."""
STILL_S = 2.0
"""After so long without any event a thinned sampler looks every `STILL_PERIOD_S` only."""
STILL_PERIOD_S = 1.0
RESIZE_S = 0.1
TOKENS = 4096
"""Cells of a whole context."""


@dataclass
class Model:
    """What a model really takes, and what is thought of it; bytes by device, seconds.

    Attributes:
        saves: By the cells of a smaller context, the largest first, what it takes less.

    """

    takes: dict[str, int]
    predicted: dict[str, int]
    saves: dict[int, dict[str, int]] = field(default_factory=dict)
    load_s: float = 2.0
    stop_s: float = 0.25
    locate_s: float = 0.01
    sequences: int = 2

    def at_size(self, sizes: Mapping[str, int], tokens: int) -> dict[str, int]:
        """Bytes with a context of so many cells."""
        saved = self.saves.get(tokens, {})
        return {device: size - saved.get(device, 0) for device, size in sizes.items()}


@dataclass(eq=False)
class Process:
    """A worker in the machine."""

    spec: WorkerSpec
    pid: int
    sequences: int
    machine: Machine
    ready: Any = field(init=False)

    def __post_init__(self) -> None:
        self.ready = SimpleNamespace(max_sequences=self.sequences, compute="")

    @property
    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return self.pid in self.machine.held

    def rss_bytes(self) -> int:
        """Its main memory."""
        return self.machine.held.get(self.pid, {}).get(RAM, 0)


class Client(Ticket):
    """A request that knows how long its answer takes, and tells how it was settled."""

    def __init__(
        self,
        model: str,
        *,
        runs_s: float,
        settled: Callable[[Client], None],
        slots: int = 1,
        explicit: bool = False,
        deadline: float | None = None,
        background: bool = False,
    ) -> None:
        super().__init__(
            model,
            slots=slots,
            explicit=explicit,
            clear_failure=False,
            deadline=deadline,
            background=background,
        )
        self.runs_s = runs_s
        self._tell = settled

    def grant(self, worker: Any) -> None:
        """Its answer begins."""
        super().grant(worker)
        self._tell(self)

    def refuse(self, error: GemdError) -> None:
        """It gets none."""
        super().refuse(error)
        self._tell(self)


class Simulation(Timeline):
    """`Effects` of a scheduler, and the scheduler.

    Args:
        machine: What there is.
        models: By id.
        accounts: The scheduler's devices.
        keep_warm_s: As for `Manager`, like the rest.
        queue_limit: As above.
        thinned: Whether samples are left out while nothing at all happens.

    Attributes:
        blind: Why the sensors fail; empty while they do not.
        failing: Models whose next loads fail.
        full_fails: Whether a load fails on a GPU that has too little left for it.
        loads: Loads that were begun.
        after: Called after every event.
        told_blind: What the scheduler was told last of `blind`.
        told_lost: Devices that the last sample did not have.

    """

    def __init__(
        self,
        machine: Machine,
        models: Mapping[str, Model],
        accounts: Accounts,
        *,
        keep_warm_s: float,
        queue_limit: int,
        thinned: bool = False,
    ) -> None:
        super().__init__()
        self.machine = machine
        self.models = models
        self.blind = ""
        self.failing: set[str] = set()
        self.full_fails = False
        self.loads: list[str] = []
        self.published: list[Callable[[ResidencyEvent], None]] = []
        self.after: Callable[[], None] = lambda: None
        self.living: dict[str, tuple[int, Process]] = {}
        self.told_blind = ""
        self.told_lost: tuple[str, ...] = ()
        self._pids = itertools.count(4242)
        self._abandoned: set[tuple[str, int]] = set()
        self._sampling: Alarm | None = None
        self._thinned = thinned
        self._last_event = 0.0
        self.scheduler = Scheduler(
            self,
            accounts=accounts,
            keep_warm_s=keep_warm_s,
            queue_limit=queue_limit,
            pinned=(),
            policy=CrashPolicy(),
        )
        self._sampling = self.at(0.0, self._sample)

    # --- time ---------------------------------------------------------------------------

    def tell(self, handler: Callable[..., None], *arguments: Any) -> None:
        """A message to the scheduler."""
        if handler != self._sample:
            self._last_event = self.clock
        handler(*arguments)
        self.scheduler.memory.replan()
        self.after()

    def ring(self, event: Callable[[], None]) -> None:
        """Every event is a message."""
        self.tell(event)

    # --- `Effects` ----------------------------------------------------------------------

    def now(self) -> float:
        """Monotonic seconds."""
        return self.clock

    def ring_at(self, when: float, handler: Callable[[], None]) -> Alarm:
        """Set an alarm."""
        return self.at(when, handler)

    def publish(self, event: ResidencyEvent) -> None:
        """Tell whoever looks on."""
        for hear in self.published:
            hear(event)

    def look(self) -> None:
        """Sample at once."""
        if self._sampling is not None:
            self._sampling.cancel()
        self._sampling = self.at(self.clock + LEAST_S, self._sample)

    def locate(self, model: str, run: int) -> None:
        """Find what there is to know."""
        known = self.models[model]
        path = f"/nowhere/{model}"
        load = wire.Load(path=path, context_tokens=TOKENS, max_sequences=2, threads=1)
        spec = WorkerSpec(model=model, engine="scripted", load=load, environ={})
        elsewhere = dict(known.predicted)
        smaller = (ContextSize(each, known.at_size(known.predicted, each)) for each in known.saves)
        located = Located(spec, elsewhere.pop(RAM, 0), elsewhere, tuple(smaller))

        def found() -> None:
            if (model, run) in self._abandoned:
                self._abandoned.discard((model, run))
                self.scheduler.endings.on_stopped(model, run)
            else:
                self.scheduler.on_located(model, run, located)

        self.at(self.clock + self.models[model].locate_s, found)

    def spawn(self, model: str, run: int, located: Located) -> None:
        """Start a process that grows until it is ready."""
        assert model not in self.living, f"two processes of {model}"
        pid = next(self._pids)
        self.machine.held[pid] = {}
        process = Process(located.spec, pid, self.models[model].sequences, self.machine)
        self.living[model] = (run, process)
        self.loads.append(model)
        self.at(self.clock, lambda: self.scheduler.on_born(model, run, pid))
        self._grow(model, run, process, 1)

    def stop(self, model: str, run: int, worker: Any, grace_s: float) -> None:
        """Stop a process."""
        self.at(self.clock + self.models[model].stop_s, partial(self._end, model, run))

    def abandon(self, model: str, run: int) -> None:
        """Drop what is under way."""
        self._abandoned.add((model, run))
        if model in self.living and self.living[model][0] == run:
            self.at(self.clock + self.models[model].stop_s, partial(self._end, model, run))

    def resize(
        self, model: str, run: int, worker: Any, tokens: int, prompt_cache_bytes: int
    ) -> None:
        """Make a context anew."""

        def made() -> None:
            well = worker.lives and model not in self.failing
            if well:
                known = self.models[model]
                self.machine.held[worker.pid] |= known.at_size(known.takes, tokens)
            self.failing.discard(model)
            self.scheduler.on_resized(model, run, well)

        self.at(self.clock + RESIZE_S, made)

    # --- what happens in the machine ----------------------------------------------------

    def crash(self, model: str) -> None:
        """A warm worker ends by itself."""
        run, process = self.living.pop(model)
        del self.machine.held[process.pid]
        self.scheduler.endings.on_exit(model, run, ExitReport(returncode=-9))

    def warm(self) -> list[str]:
        """Models whose worker is ready or drains: it may crash."""
        return sorted(
            model
            for model in self.living
            if self.scheduler.entries[model].state in {State.READY, State.DRAINING}
        )

    def answer(self, client: Client) -> None:
        """Let a client that was granted come to its end."""
        self.at(self.clock + client.runs_s, lambda: self.scheduler.on_return(client))

    def _grow(self, model: str, run: int, process: Process, part: int) -> None:
        known = self.models[model]
        takes = known.at_size(known.takes, process.spec.load.context_tokens)

        def grown() -> None:
            if (model, run) in self._abandoned or process.pid not in self.machine.held:
                return
            self.machine.held[process.pid] |= {
                device: size * part // GROWING for device, size in takes.items()
            }
            full = self.full_fails and self.machine.is_full_for(process.pid)
            if part < GROWING and not full:
                self._grow(model, run, process, part + 1)
            elif full or model in self.failing:
                self.failing.discard(model)
                del self.living[model]
                del self.machine.held[process.pid]
                self.scheduler.on_spawned(model, run, EngineStartFailedError("no"))
            else:
                self.scheduler.on_spawned(model, run, process)  # type: ignore[arg-type] # a fake

        self.at(self.clock + self.models[model].load_s / GROWING, grown)

    def _end(self, model: str, run: int) -> None:
        if model in self.living and self.living[model][0] == run:
            _, process = self.living.pop(model)
            del self.machine.held[process.pid]
        self._abandoned.discard((model, run))
        self.scheduler.endings.on_stopped(model, run)

    def _sample(self) -> None:
        memory = self.scheduler.memory
        if self._sampling is not None:
            # Asked for by `look` meanwhile, or this one.
            self._sampling.cancel()
        if self.blind:
            if self.blind != self.told_blind:
                self.scheduler.memory.on_blind(Blind(self.blind, self.clock))
        else:
            memory.on_sample(self.machine.sample(self.clock, memory.workers()))
            self.told_lost = self.machine.lost
        self.told_blind = self.blind
        period = FAST_S if memory.is_busy() else SLOW_S
        if self._thinned and period == FAST_S and self.clock - self._last_event > STILL_S:
            period = STILL_PERIOD_S
        if self._sampling is None or self._sampling.cancelled:
            self._sampling = self.at(self.clock + period, self._sample)
