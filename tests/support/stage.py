"""Plays a scenario: a real `Manager`, a clock that is told, a machine in memory, a sampler."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from gemd import wire
from gemd.engine.spec import WorkerSpec
from gemd.errors import DeadlineExpiredError, GemdError
from gemd.hardware import RAM, Blind
from gemd.hardware.sampler import FAST_S, LEAST_S, SLOW_S
from gemd.quantities import Budget
from gemd.residency.accounts import Limits
from gemd.residency.decisions import Decision, DecisionKind
from gemd.residency.manager import Manager
from gemd.residency.states import Located, State, StateChanged
from tests.support import machine, scenarios
from tests.support.residency import GIB, FakeClock, FakeWorker, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.engine.reports import StuckCallback
    from gemd.residency.states import ResidencyEvent
    from tests.support.scenarios import Scenario

GROWING = 4
"""In so many parts a load takes its memory."""


class StagedWorker(FakeWorker):
    """A worker whose process is in the machine, and takes its time to end."""

    def __init__(self, spec: WorkerSpec, *, pid: int, sequences: int, stage: Stage) -> None:
        super().__init__(spec, rss=0, sequences=sequences)
        self.pid = pid
        self._stage = stage

    def rss_bytes(self) -> int:
        """Its main memory."""
        return self._stage.machine.held.get(self.pid, {}).get(RAM, 0)

    async def stop(self, *, grace_s: float) -> str:
        """End after the model's `stop_s`."""
        self._stage.note_stop(self)
        await self._stage.sleep(self._stage.of(self.spec.model).stop_s)
        self.crash(returncode=0)
        return "stopped"

    def crash(self, *, returncode: int = -11, stderr: str = "Segmentation fault") -> None:
        """The process ends, and its memory is back."""
        self._stage.machine.held.pop(self.pid, None)
        super().crash(returncode=returncode, stderr=stderr)


class Stage:
    """One performance of a scenario.

    Attributes:
        outcomes: How the requests ended; those that did not are not in it.
        late: Requests that had to wait longer than they may, with their seconds.
        violations: What happened of what may be forbidden.

    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = FakeClock()
        self.began = self.clock.now
        self.machine = machine.Machine(
            {
                device: machine.Device(
                    _bytes(each.capacity), _bytes(each.others), each.hidden, each.late_s
                )
                for device, each in scenario.devices.items()
            }
        )
        self.outcomes: Counter[str] = Counter()
        self.late: dict[str, float] = {}
        self.violations: Counter[str] = Counter()
        self.loads = 0
        self._pids = itertools.count(4242)
        self._workers: dict[str, StagedWorker] = {}
        self._active: Counter[int] = Counter()
        self._clients: dict[str, list[asyncio.Task[None]]] = {}
        self._blind = ""
        self._told_blind = ""
        self._lag_s = 0.0
        self._next: Any = None
        self.manager = self._managed()

    def of(self, model: str) -> scenarios.Model:
        """What the file says of a model."""
        return self.scenario.models[model]

    async def play(self) -> None:
        """From the first step to the end; whoever waits then waits for ever."""
        async with self.manager:
            self._sample()
            await settle()
            for step in self.scenario.steps:
                for turn in range(step.times if isinstance(step, scenarios.Request) else 1):
                    every_s = step.every_s if isinstance(step, scenarios.Request) else 0.0
                    when = self.began + step.at + turn * every_s
                    self.clock.call_at(when, partial(self._take, step, turn))
            await self.clock.advance(self.scenario.lasts_s)
            self.warm = {
                name
                for name, seen in self.manager.residences().items()
                if seen.state is State.READY
            }
            self.decisions = [
                (each.kind, each.model, each.reasons[0].code)
                for each in reversed(list(self.manager.decisions))
            ]
            self.outcomes["waiting"] = sum(
                not task.done() for tasks in self._clients.values() for task in tasks
            )
            for task in itertools.chain.from_iterable(self._clients.values()):
                task.cancel()
            closing = asyncio.create_task(self.manager.close(grace_s=0))
            await self.clock.advance(60)
            await closing

    async def sleep(self, seconds: float) -> None:
        """Until the clock was told so."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ring: Callable[[], None] = lambda: done.done() or done.set_result(None)  # type: ignore[assignment,func-returns-value] # noqa: E731
        self.clock.call_at(self.clock.now + seconds, ring)
        await done

    def note_stop(self, worker: StagedWorker) -> None:
        """A worker is stopped: whoever it answers is cut off."""
        if self._active[worker.pid]:
            self.violations["cut_off"] += 1

    # --- what the manager is given ------------------------------------------------------

    def _managed(self) -> Manager:
        devices = self.scenario.devices
        gpus = [each for device, each in devices.items() if device != RAM]
        gpu_budget = next((each.budget for each in gpus if each.budget is not None), None)
        ram = devices[RAM]
        return Manager(
            locate=self._locate,
            spawn=self._spawn,
            publish=self._publish,
            keep_warm_s=self.scenario.keep_warm_s,
            queue_limit=self.scenario.queue_limit,
            limits=Limits(
                ram_budget=Budget(
                    absolute_bytes=_bytes(ram.capacity if ram.budget is None else ram.budget)
                ),
                gpu_budget=Budget(percent=100.0)
                if gpu_budget is None
                else Budget(absolute_bytes=_bytes(gpu_budget)),
                gpu_margin=_bytes(max((each.margin for each in gpus), default=0.0)),
                ram_margin=_bytes(ram.margin),
            ),
            look=self._look,
            clock=self.clock,
        )

    async def _locate(self, model: str) -> Located:
        load = wire.Load(path=f"/nowhere/{model}", context_tokens=64, max_sequences=2, threads=1)
        takes = {device: _bytes(size) for device, size in self.of(model).takes.items()}
        spec = WorkerSpec(model=model, engine="scripted", load=load, environ={})
        return Located(spec, takes.pop(RAM, 0), takes)

    async def _spawn(
        self,
        spec: WorkerSpec,
        *,
        report: Callable[[wire.Progress], None],
        born: Callable[[int], None],
        stuck: StuckCallback,
    ) -> Any:
        model, pid = self.of(spec.model), next(self._pids)
        before = self._workers.get(spec.model)
        if before is not None and before.lives:
            self.violations["two_workers"] += 1
        held = self.machine.held[pid] = {}
        self.loads += 1
        born(pid)
        try:
            for part in range(1, GROWING + 1):
                await self.sleep(model.load_s / GROWING)
                held |= {
                    device: int(_bytes(size * model.error) * part / GROWING)
                    for device, size in model.takes.items()
                }
                self._check()
        except asyncio.CancelledError:
            await self.sleep(model.stop_s)
            del self.machine.held[pid]
            raise
        worker = StagedWorker(spec, pid=pid, sequences=model.sequences, stage=self)
        self._workers[spec.model] = worker
        return worker

    def _publish(self, event: ResidencyEvent) -> None:
        if isinstance(event, Decision) and event.kind is DecisionKind.EVICT:
            seen = self.manager.residence(event.model)
            if seen.state is State.READY and event.effect_s is None:
                self.violations["busy_evicted"] += bool(seen.active)
                self.violations["pinned_evicted"] += seen.pinned
        if isinstance(event, StateChanged) and event.now.state is State.LOADING:
            ledger = self.manager.ledger()
            if any(ledger.room(device) < 0 for device, size in event.now.booked.items() if size):
                self.violations["overbooked"] += 1

    # --- the sensor ---------------------------------------------------------------------

    def _look(self) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self.clock.call_at(self.clock.now + LEAST_S, self._sample)

    def _sample(self) -> None:
        self._check()
        if self._blind:
            if self._blind != self._told_blind:
                self.manager.report(Blind(self._blind, self.clock.now))
        else:
            sample = self.machine.sample(self.clock.now, self.manager.workers())
            tell = partial(self.manager.report, sample)
            if self._lag_s:
                self.clock.call_at(self.clock.now + self._lag_s, tell)
            else:
                tell()
        self._told_blind = self._blind
        period = FAST_S if self.manager.is_busy() else SLOW_S
        self._next = self.clock.call_at(self.clock.now + max(period, self._lag_s), self._sample)

    def _check(self) -> None:
        if any(self.machine.beyond(device) for device in self.machine.devices):
            self.violations["over_capacity"] += 1

    # --- the steps ----------------------------------------------------------------------

    def _take(self, step: scenarios.Step, turn: int) -> None:
        match step:
            case scenarios.Request():
                name = step.name or step.model
                task = asyncio.create_task(self._ask(step, f"{name} {turn}"))
                self._clients.setdefault(name, []).append(task)
            case scenarios.Cancel():
                for task in self._clients[step.name]:
                    task.cancel()
            case scenarios.Others():
                self.machine.devices[step.device].others = _bytes(step.hold)
                self._check()
            case scenarios.Sensor():
                self._blind, self._lag_s = step.blind, step.lag_s
            case scenarios.Lost():
                self.machine.lost = tuple(step.devices)
            case scenarios.Touch():
                self._touch(step)
            case scenarios.Grow():
                held = self.machine.held[self._workers[step.model].pid]
                held[step.device] = held.get(step.device, 0) + _bytes(step.by)
                self._check()

    def _touch(self, step: scenarios.Touch) -> None:
        match step.do:
            case "crash":
                self._workers[step.model].crash()
            case "unload":
                self._also(self.manager.unload(step.model))
            case "pin" | "unpin":
                self._also(self.manager.pin(step.model, pinned=step.do == "pin"))

    def _also(self, work: Any) -> None:
        self._clients.setdefault("users", []).append(asyncio.create_task(work))

    async def _ask(self, step: scenarios.Request, name: str) -> None:
        began = self.clock.now
        deadline = None if step.deadline_s is None else began + step.deadline_s
        outcome = "cancelled"
        try:
            async with self.manager.hold(
                step.model, deadline=deadline, background=step.background
            ) as hold:
                worker = await hold.worker()
                waited = self.clock.now - began
                if step.granted_by_s is not None and waited > step.granted_by_s:
                    self.late[name] = waited
                outcome = await self._be_answered(worker, step.runs_s, outcome)
        except DeadlineExpiredError:
            outcome = "expired"
        except GemdError as error:
            outcome = error.reason
        finally:
            self.outcomes[outcome] += 1

    async def _be_answered(self, worker: Any, seconds: float, outcome: str) -> str:
        self._active[worker.pid] += 1
        done = asyncio.ensure_future(self.sleep(seconds))
        end = asyncio.ensure_future(worker.wait_exit())
        try:
            await asyncio.wait({done, end}, return_when=asyncio.FIRST_COMPLETED)
            outcome = "answered" if done.done() else "cut_off"
        finally:
            done.cancel()
            end.cancel()
            self._active[worker.pid] -= 1
        return outcome


def _bytes(gib: float) -> int:
    return int(gib * GIB)
