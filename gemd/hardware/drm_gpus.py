"""What the sources of GPUs behind DRM drivers have in common: finding cards, and losing them.

A card keeps its id by its place on the bus. Where there is none, the next look is a minute away,
as it is for a card that is plugged in while others are there; one that is lost is looked for
after 5 s, then ever more seldom.
"""

from __future__ import annotations

import abc
import time
from typing import TYPE_CHECKING, ClassVar, Final, Generic, TypeVar

from gemd.hardware.drm import cards, drives_display
from gemd.hardware.fdinfo import DrmClients
from gemd.hardware.ids import GpuIds
from gemd.hardware.process import pids_are_everybodys
from gemd.hardware.ram import main_memory
from gemd.hardware.readings import DeviceKind, DeviceReading, GpuReadings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gemd.hardware.drm import Card
    from gemd.hardware.fdinfo import Held
    from gemd.hardware.ram import MainMemory

LOOK_S: Final = 60.0
"""Between two looks for cards, and for displays that hang on them."""
RETRY_LEAST_S: Final = 5.0


class DrmGpu:
    """A card, and what does not change about it.

    Attributes:
        card: As the kernel lists it.
        still: Its reading without what changes.
        drives_display: Whether one was plugged in at the last look.

    """

    def __init__(self, card: Card, still: DeviceReading) -> None:
        self.card = card
        self.still = still
        self.drives_display: bool | None = None


G = TypeVar("G", bound=DrmGpu)


class DrmGpus(abc.ABC, Generic[G]):
    """All cards of one vendor. A GPU keeps its id as long as this object lives.

    Args:
        root: Where /proc and /sys are.
        ids: The numbering that all sources share.
        clock: Monotonic seconds.
        comparable: Whether the driver's pids are ours; by default found out.
        memory: Main memory now, for a GPU that shares it.

    """

    vendor: ClassVar[str]
    """PCI id of the vendor in hexadecimal."""

    def __init__(
        self,
        root: Path,
        *,
        ids: GpuIds | None = None,
        clock: Callable[[], float] = time.monotonic,
        comparable: bool | None = None,
        memory: Callable[[], MainMemory] = main_memory,
    ) -> None:
        self._root = root
        self._memory = memory
        self._ids = ids or GpuIds()
        self._clock = clock
        self._comparable = pids_are_everybodys(root) if comparable is None else comparable
        self._clients = DrmClients(root, clock=clock)
        self._gpus: dict[str, G] = {}
        self._there: list[str] = []
        self._look_at = 0.0
        self._pause = LOOK_S
        self._looked = False

    @property
    def may_hang(self) -> bool:
        """Whether there is a driver; one whose card hangs may hold up who reads its files."""
        return (self._root / "sys/class/drm").exists()

    @property
    def is_calm(self) -> bool:
        """Whether no card has a memory of its own that a model could be in."""
        return all(gpu.still.kind is DeviceKind.INTEGRATED_GPU for gpu in self._gpus.values())

    def read(self, workers: Mapping[int, str]) -> GpuReadings:
        """All cards now.

        Args:
            workers: Device by pid of every worker.

        """
        now = self._clock()
        if not self._looked or now >= self._look_at:
            self._look(now)
        held = {} if self.is_calm else self._clients.read(workers)
        devices = []
        for slot in tuple(self._there):
            gpu = self._gpus[slot]
            reading = self._reading(gpu, held) if gpu.card.is_there else None
            if reading is None:
                self._there.remove(slot)
                self._look_at, self._pause = now + RETRY_LEAST_S, RETRY_LEAST_S
            else:
                devices.append(reading)
        lost = [gpu.still.device for slot, gpu in self._gpus.items() if slot not in self._there]
        return GpuReadings(tuple(devices), tuple(lost))

    def _look(self, now: float) -> None:
        found = {card.slot: card for card in cards(self._root, self.vendor)}
        for slot, card in found.items():
            if slot not in self._there:
                known = self._gpus.get(slot)
                device = self._ids.new() if known is None else known.still.device
                self._gpus[slot] = self._found(card, device)
            self._gpus[slot].drives_display = drives_display(card)
        self._there = [slot for slot in self._gpus if slot in found]
        complete = len(self._there) == len(self._gpus)
        self._pause = LOOK_S if complete or not self._looked else min(2 * self._pause, LOOK_S)
        self._look_at, self._looked = now + self._pause, True

    @abc.abstractmethod
    def _found(self, card: Card, device: str) -> G:
        """What does not change about a card that was not there."""

    @abc.abstractmethod
    def _reading(self, gpu: G, held: Mapping[int, Mapping[str, Held] | None]) -> DeviceReading:
        """The card now; `held` is what workers hold of all cards, by pid."""


def on_card(held: Mapping[int, Mapping[str, Held] | None], card: Card) -> Mapping[int, Held | None]:
    """What each worker holds of one card, without those that hold nothing; None if hidden."""
    return {
        pid: None if of is None else of[card.slot]
        for pid, of in held.items()
        if of is None or card.slot in of
    }
