"""How the memory of each device would be taken by the warm models of a plan. Pure; bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.catalog.choice.values import PlannedDevice
from gemd.footprint.memory import Parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.catalog.choice.pools import Memory
    from gemd.catalog.choice.values import Placed


def planned_devices(memory: Memory, warm: Iterable[Placed]) -> tuple[PlannedDevice, ...]:
    """Every memory of a machine, GPUs first; what lies in it adds up to its capacity."""
    held = list(warm)
    return tuple(
        PlannedDevice(
            device=name,
            capacity_bytes=pool.capacity,
            budget_bytes=pool.budget,
            parts=sum((each.parts[name] for each in held if name in each.parts), Parts()),
            others_bytes=pool.taken,
            margin_bytes=pool.margin,
        )
        for name, pool in memory.pools.items()
    )
