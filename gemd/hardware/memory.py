"""RAM, and what control groups leave of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from gemd.hardware.cgroups import read_groups
from gemd.hardware.devices import Memory

if TYPE_CHECKING:
    from pathlib import Path


def read_memory(root: Path) -> Memory:
    """RAM of this machine within the control groups behind this /proc and /sys."""
    machine = psutil.virtual_memory()
    groups = read_groups(root)
    return Memory(
        total_bytes=_least(machine.total, groups.memory_limit_bytes),
        available_bytes=_least(machine.available, groups.memory_headroom_bytes),
        cgroup_limit_bytes=groups.memory_limit_bytes,
    )


def _least(amount: int, limit: int | None) -> int:
    return amount if limit is None else min(amount, limit)
