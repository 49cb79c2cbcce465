"""AMD's compute driver: what its nodes are, and which process holds how much of them.

Files: /sys/class/kfd/kfd/topology and …/proc, written by the kernel's amdkfd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.hardware.files import integer_of, names_in, pairs_of, text_of, whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOCAL_HEAPS: Final = (1, 2)
"""Types of memory banks that are the GPU's own: visible to the processor, and not."""
_PER_CLOCK: Final = {
    **dict.fromkeys(("gfx1010", "gfx1011", "gfx1012"), 16),
    **dict.fromkeys(("gfx1030", "gfx1031", "gfx1032", "gfx1034"), 16),
    **dict.fromkeys(("gfx1100", "gfx1101", "gfx1102", "gfx1200", "gfx1201"), 16),
    **dict.fromkeys(("gfx906", "gfx908", "gfx90a"), 2),
}
"""Transfers for each period of the clock that KFD shows, where the memory is certain: the driver
shows a sixteenth of GDDR6's data rate (1249 MHz on a card with 20 Gbps) and half of HBM2's. The
product is the published bandwidth: 384 bits x 1249 MHz x 16 are the RX 7900 XTX's 960 GB/s."""


@dataclass(frozen=True, slots=True)
class Node:
    """A GPU as KFD knows it.

    Attributes:
        gpu_id: Its number in the lists of processes.
        target: gfx target, ``gfx1100``; empty if unknown.
        compute_units: 0 if unknown.
        bandwidth: Bytes a second of its own memory; None if unknown.
        has_processor: Whether the node is a processor as well.

    """

    gpu_id: int
    target: str
    compute_units: int
    bandwidth: int | None
    has_processor: bool


def nodes(root: Path) -> dict[tuple[int, int], Node]:
    """All GPUs by PCI domain and location. Those that a container may not use are not in it."""
    folder = root / "sys/class/kfd/kfd/topology/nodes"
    found = {}
    for name in names_in(folder) or ():
        facts = _facts(folder / name / "properties")
        gpu_id = integer_of(folder / name / "gpu_id")
        if gpu_id and facts.get("simd_count"):
            location = facts.get("domain", 0), facts.get("location_id", -1)
            found[location] = _node(gpu_id, facts, folder / name)
    return found


def held_on(root: Path, gpu_id: int) -> dict[int, int] | None:
    """Bytes of a GPU's memory by pid, of all users' processes that compute; None if not listed.

    Pids are those of the first namespace. Programs that only draw are not in the list.
    """
    folder = root / "sys/class/kfd/kfd/proc"
    names = names_in(folder)
    if names is None:
        return None
    sizes = {name: integer_of(folder / name / f"vram_{gpu_id}") for name in names}
    return {int(name): size for name, size in sizes.items() if size and name.isdecimal()}


def gfx_target(version: int) -> str:
    """``gfx90a`` for 90010: major, then minor and stepping as hexadecimal digits."""
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}" if version else ""


def _node(gpu_id: int, facts: Mapping[str, int], folder: Path) -> Node:
    target = gfx_target(facts.get("gfx_target_version", 0))
    return Node(
        gpu_id=gpu_id,
        target=target,
        compute_units=facts["simd_count"] // max(1, facts.get("simd_per_cu", 0)),
        bandwidth=_bandwidth(folder / "mem_banks", target),
        has_processor=facts.get("cpu_cores_count", 0) > 0,
    )


def _bandwidth(banks: Path, target: str) -> int | None:
    per_clock = _PER_CLOCK.get(target)
    if per_clock is None:
        return None
    for name in names_in(banks) or ():
        facts = _facts(banks / name / "properties")
        rate = facts.get("width", 0) // 8 * facts.get("mem_clk_max", 0) * 10**6 * per_clock
        if facts.get("heap_type") in _LOCAL_HEAPS and rate:
            return rate
    return None


def _facts(file: Path) -> dict[str, int]:
    numbers = ((key, whole(value)) for key, value in pairs_of(text_of(file)))
    return {key: number for key, number in numbers if number is not None}
