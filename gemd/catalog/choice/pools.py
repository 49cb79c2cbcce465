"""The memories that models can be placed in, and what they may have of each. Pure; bytes.

A GPU with memory of its own is one pool and main memory another. A GPU that shares main memory
is one pool with it: whatever lies on either side comes out of the same chips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gemd.catalog.choice.speed import GPU_BACKENDS
from gemd.hardware import RAM, DeviceKind
from gemd.hardware.margins import margin_of
from gemd.quantities import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.hardware.inventory import Gpu, Inventory

_WHOLE: Final = Budget(percent=100.0)
_HALF: Final = Budget(percent=50.0)
_SHARED: Final = frozenset({DeviceKind.UNIFIED, DeviceKind.INTEGRATED_GPU})


@dataclass(frozen=True, slots=True)
class Limits:
    """What settings say of memory; as the settings of the same names."""

    ram_budget: Budget = _HALF
    gpu_budget: Budget = _WHOLE
    ram_margin: int | None = None
    gpu_margin: int | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """One memory.

    Attributes:
        device: Id of the device that it is shown as.
        capacity: Its size.
        budget: The most that models may take.
        margin: What stays free for other programs to start in.
        taken: What other programs hold now.
        used: What models of the plan hold already.

    """

    device: str
    capacity: int
    budget: int
    margin: int
    taken: int = 0
    used: int = 0

    @property
    def available(self) -> int:
        """What a model can have."""
        return max(0, min(self.budget, self.capacity - self.margin - self.taken) - self.used)


@dataclass(frozen=True, slots=True)
class Memory:
    """All memories of a machine.

    Attributes:
        pools: By device id.
        gpus: GPUs that models may be placed on: some engine computes there.
        pool_of: By device id, also those that share another's pool.

    """

    pools: Mapping[str, Pool]
    gpus: tuple[Gpu, ...]
    pool_of: Mapping[str, str]

    def only(self, gpus: Iterable[Gpu]) -> Memory:
        """The same with only these GPUs to place models on."""
        return replace(self, gpus=tuple(gpus))

    def demand(self, gpu: Gpu | None, *, on_gpu: int, on_host: int) -> dict[str, int]:
        """Bytes by pool of a model that takes so much on each side."""
        demand = {self.pool_of[RAM]: on_host}
        if gpu is not None:
            pool = self.pool_of[gpu.device]
            demand[pool] = demand.get(pool, 0) + on_gpu
        return demand

    def lack(self, demand: Mapping[str, int]) -> str | None:
        """The pool that the demand exceeds by most; None if it fits."""
        over = {pool: size - self.pools[pool].available for pool, size in demand.items()}
        worst = max(over, key=lambda pool: over[pool])
        return worst if over[worst] > 0 else None

    def less(self, demand: Mapping[str, int]) -> Memory:
        """What is left when a model took that."""
        pools = {
            name: replace(pool, used=pool.used + demand.get(name, 0))
            for name, pool in self.pools.items()
        }
        return replace(self, pools=pools)


def memory_of(machine: Inventory, limits: Limits, *, ignore_others: bool = False) -> Memory:
    """The memories of a machine under these limits.

    Args:
        machine: What is in it.
        limits: Budgets and margins.
        ignore_others: As if no other program held any.

    """
    gpus = tuple(
        replace(gpu, backends=able)
        for gpu in machine.gpus
        # A device file may name a backend that no engine is built for.
        if (able := tuple(each for each in gpu.backends if each in GPU_BACKENDS))
        and not gpu.unusable_reason
    )
    ram = _ram(machine, limits, ignore_others=ignore_others)
    pools, pool_of = {}, {RAM: RAM}
    for gpu in gpus:
        if gpu.kind in _SHARED:
            # Its working set is what the driver lets a GPU have of the one memory there is.
            working_set = min(gpu.capacity_bytes or ram.capacity, ram.capacity)
            if ram.device == RAM:
                ram = replace(ram, device=gpu.device, budget=limits.gpu_budget.of(working_set))
            pool_of |= {RAM: ram.device, gpu.device: ram.device}
        else:
            pools[gpu.device] = _of_gpu(gpu, limits, ignore_others=ignore_others)
            pool_of[gpu.device] = gpu.device
    pools[ram.device] = ram
    return Memory(pools, gpus, pool_of)


def _of_gpu(gpu: Gpu, limits: Limits, *, ignore_others: bool) -> Pool:
    usual = margin_of(gpu.kind, gpu.capacity_bytes, drives_display=gpu.drives_display)
    return _pool(
        gpu.device,
        gpu.capacity_bytes,
        limits.gpu_budget,
        usual if limits.gpu_margin is None else limits.gpu_margin,
        0 if ignore_others else gpu.taken_bytes,
    )


def _ram(machine: Inventory, limits: Limits, *, ignore_others: bool) -> Pool:
    processor = machine.processor
    usual = margin_of(DeviceKind.CPU, processor.ram_bytes, drives_display=None)
    return _pool(
        RAM,
        processor.ram_bytes,
        limits.ram_budget,
        usual if limits.ram_margin is None else limits.ram_margin,
        0 if ignore_others else processor.taken_bytes,
    )


def _pool(device: str, capacity: int, budget: Budget, margin: int, taken: int) -> Pool:
    taken = min(taken, capacity)
    return Pool(device, capacity, budget.of(capacity), min(margin, capacity - taken), taken)
