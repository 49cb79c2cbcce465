"""The devices as the sensors report them: one account each, brought up to date by every report."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gemd.hardware import RAM, Blind, DeviceKind, default_margin
from gemd.quantities import Budget
from gemd.residency.ledger import Account, Closed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gemd.hardware import DeviceReading, Sample

CALM_S: Final = 30.0
"""What other programs held within so many seconds counts as if they still did: gemd comes back
slowly, and a program that allocates in waves does not make it load and unload in turns."""


WHOLE: Final = Budget(percent=100.0)


_PLACES: Final = frozenset({DeviceKind.DISCRETE_GPU, DeviceKind.UNIFIED})


def _is_made_up(reading: DeviceReading) -> bool:
    return reading.simulated


@dataclass(frozen=True, slots=True)
class Limits:
    """What settings say of memory; bytes.

    Attributes:
        ram_budget: Of main memory, the most that models may take.
        gpu_budget: The same of each GPU.
        gpu_margin: What stays free on each GPU; None for `hardware.default_margin`.
        ram_margin: The same for main memory.
        placeable: Whether models are placed on a GPU: it is made up, or an engine runs there.

    """

    ram_budget: Budget = WHOLE
    gpu_budget: Budget = WHOLE
    gpu_margin: int | None = None
    ram_margin: int | None = None
    placeable: Callable[[DeviceReading], bool] = _is_made_up


class Accounts:
    """Keeps an account of every device.

    Args:
        limits: Budgets and margins.

    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # A part of a memory that nobody has seen yet is nothing.
        ram = Account(budget=limits.ram_budget.absolute_bytes or 0)
        self._known: dict[str, Account] = {RAM: ram}
        self._placeable: dict[str, None] = {}
        self._past: dict[str, _Outside] = {}
        self._kept_off: dict[str, float] = {}
        self._blind: Blind | None = None
        self._lost: dict[str, float] = {}

    def __contains__(self, device: str) -> bool:
        """Whether there is such a device, or was."""
        return device in self._known

    @property
    def gpus(self) -> tuple[str, ...]:
        """Ids of the GPUs with memory of their own that models are placed on."""
        return tuple(self._placeable)

    @property
    def sampled(self) -> bool:
        """Whether there is a sensor that has said something."""
        return self._known[RAM].sampled is not None

    def on_sample(self, sample: Sample, leaving: Mapping[str, int]) -> None:
        """Take in what a sensor says.

        Args:
            sample: What it says.
            leaving: By device, bytes of ours that are on their way back. Sensors read one figure
                after the other, so a worker that ends in between looks like another program.

        """
        self._blind = None
        placeable = [
            each for each in sample.devices if each.kind in _PLACES and self._limits.placeable(each)
        ]
        # What a GPU shares with the processor is booked as main memory.
        self._placeable |= dict.fromkeys(
            each.device for each in placeable if each.kind is DeviceKind.DISCRETE_GPU
        )
        for reading in sample.devices:
            past = self._past.setdefault(reading.device, _Outside())
            surge = past.surge(_outside(reading), sample.time, leaving.get(reading.device, 0))
            budget = self._budget(reading, placeable)
            self._known[reading.device] = self._account(reading, sample.time, surge, budget)
        self._lost = {
            device: self._lost.get(device, sample.time)
            for device in sample.lost
            if device in self._known
        }

    @property
    def blind(self) -> bool:
        """Whether the sensors fail at the moment."""
        return self._blind is not None

    def on_blind(self, report: Blind) -> None:
        """Nothing is known of any device until the next sample."""
        self._blind = report

    def on_resumed(self) -> None:
        """What was known of the past is from before a sleep."""
        self._past.clear()

    def keep_off(self, device: str, until: float | None) -> None:
        """Load nothing on a device until then; None ends that."""
        if until is None:
            self._kept_off.pop(device, None)
        else:
            self._kept_off[device] = until

    def kept_off_until(self, device: str, now: float) -> float | None:
        """Until when nothing is loaded on a device because a user asked for that; None if it is."""
        until = self._kept_off.get(device, -math.inf)
        return until if until > now else None

    def at(self, now: float) -> dict[str, Account]:
        """All of them, by device."""
        return {device: self._closed(device, known, now) for device, known in self._known.items()}

    def next_change(self, now: float) -> float:
        """When one of them opens by itself; infinity if none does."""
        return min((until for until in self._kept_off.values() if until > now), default=math.inf)

    def _closed(self, device: str, account: Account, now: float) -> Account:
        if device in self._lost:
            return replace(
                account,
                closed=Closed.LOST,
                why="it does not answer any more",
                since=self._lost[device],
            )
        until = self.kept_off_until(device, now)
        if until is not None:
            return replace(
                account, closed=Closed.KEPT_OFF, until=until, why="gemd was asked to keep off it"
            )
        if self._blind is not None:
            return replace(
                account,
                closed=Closed.BLIND,
                why=self._blind.reason,
                since=self._blind.since,
            )
        return account

    def _budget(self, reading: DeviceReading, placeable: Sequence[DeviceReading]) -> int:
        """The most that models may take of it.

        Main memory that a GPU shares on equal terms is what that GPU computes from: its working
        set and the budget of GPUs count, not the half that is left to a processor.
        """
        if reading.device != RAM:
            return self._limits.gpu_budget.of(reading.capacity_bytes)
        for gpu in placeable:
            if gpu.kind is DeviceKind.UNIFIED:
                return self._limits.gpu_budget.of(gpu.capacity_bytes or reading.capacity_bytes)
        return self._limits.ram_budget.of(reading.capacity_bytes)

    def _account(self, reading: DeviceReading, time: float, surge: int, budget: int) -> Account:
        ram = reading.device == RAM
        margin = self._limits.ram_margin if ram else self._limits.gpu_margin
        capacity = reading.capacity_bytes
        return Account(
            budget=budget,
            capacity=capacity,
            margin=default_margin(reading) if margin is None else min(margin, capacity),
            free=reading.free_bytes,
            others=reading.others_bytes,
            unknown=reading.unknown_bytes,
            surge=surge,
            sampled=time,
        )


def _outside(reading: DeviceReading) -> int | None:
    """What is neither free nor ours, whoever holds it."""
    if reading.free_bytes is None or reading.ours_bytes is None:
        return None
    return reading.capacity_bytes - reading.free_bytes - reading.ours_bytes


class _Outside:
    """What others held of one device in the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._last: int | None = None

    def surge(self, others: int | None, time: float, leaving: int) -> int:
        """How much more than now they held at most; bytes. None says nothing."""
        if others is None:
            return 0
        # Up to what of ours is leaving, a rise may be our own.
        counted = others if self._last is None else max(min(others, self._last), others - leaving)
        self._last = counted
        while self._seen and self._seen[-1][1] <= counted:
            self._seen.pop()
        self._seen.append((time, counted))
        while self._seen[0][0] < time - CALM_S:
            self._seen.popleft()
        return max(0, self._seen[0][1] - others)
