"""`memory`: RAM, what limits it, swap, and what models may take of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from gemd.doctor.diagnosis import conclude, failure, warning
from gemd.hardware import RAM, SensorBlindError
from gemd.hardware.files import integer_of
from gemd.quantities import MIB
from gemd.quantities import human_bytes as size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "memory"
SMALLEST_BYTES: Final = 512 * MIB
"""Less than the smallest model of the catalogue with its context, its prompt cache (256 MiB unless
set) and the interpreter of its worker."""
_STRICT: Final = 2
"""vm.overcommit_memory under which memory that is never touched counts too."""
_MUCH_SWAPPED: Final = 0.5


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """The main memory; bytes.

    Attributes:
        installed: In the machine.
        capacity: Within the control groups' limits.
        free: What can be taken now; None if unknown.
        ours: What models hold; None if unknown.
        budget: What they may.
        budget_text: As the setting says it.
        swap: Of all kinds.
        swap_used: Of that.
        overcommit: vm.overcommit_memory; None where there is none.
        blind: Why there is no reading; empty if there is one.

    """

    installed: int
    capacity: int
    budget: int
    budget_text: str
    free: int | None = None
    ours: int | None = None
    swap: int = 0
    swap_used: int = 0
    overcommit: int | None = None
    blind: str = ""


def examine_memory(around: Surroundings, _: Errand) -> Diagnosis:
    """Take a reading and judge."""
    installed = int(psutil.virtual_memory().total)
    swap = psutil.swap_memory()
    capacity, free, ours, blind = installed, None, None, ""
    try:
        reading = around.sample().of(RAM)
    except SensorBlindError as error:
        reading, blind = None, str(error)
    if reading is not None:
        capacity, free, ours = reading.capacity_bytes, reading.free_bytes, reading.ours_bytes
    budget = around.settings.ram_budget
    return check_memory(
        MemoryFacts(
            installed=installed,
            capacity=capacity,
            budget=budget.of(capacity),
            budget_text=str(budget),
            free=free,
            ours=ours,
            swap=int(swap.total),
            swap_used=int(swap.used),
            overcommit=integer_of(around.root / "proc/sys/vm/overcommit_memory"),
            blind=blind,
        )
    )


def check_memory(facts: MemoryFacts) -> Diagnosis:
    """Judge it."""
    seen = [f"{size(facts.capacity)} RAM"]
    if facts.capacity < facts.installed:
        seen[0] += f" (a control group allows that much of {size(facts.installed)})"
    if facts.free is not None:
        seen.append(f"{size(facts.free)} free")
    if facts.ours:
        seen.append(f"models hold {size(facts.ours)}")
    seen.append(f"budget {size(facts.budget)} ({facts.budget_text})")
    seen.append(f"swap {size(facts.swap)}" if facts.swap else "no swap")
    return conclude(NAME, _findings(facts), facts=", ".join(seen))


def _findings(facts: MemoryFacts) -> Iterator[Finding]:
    if facts.blind:
        yield failure(f"no reading can be taken: {facts.blind}")
    if facts.budget < SMALLEST_BYTES:
        yield warning(
            f"the budget of {size(facts.budget)} is too small for any model",
            "export GEMD_RAM_BUDGET=1GiB",
        )
    if facts.free is not None and facts.free + (facts.ours or 0) < SMALLEST_BYTES:
        yield warning(
            f"{size(facts.free)} are free, too little for any model",
            "ps -Ao rss,pid,comm | sort -rn | head",
        )
    if facts.overcommit == _STRICT:
        yield warning(
            "vm.overcommit_memory is 2: allocations that are never touched count too, and fail "
            "while memory is free",
            "sudo sysctl vm.overcommit_memory=0",
        )
    if facts.swap and facts.swap_used > facts.swap * _MUCH_SWAPPED:
        yield warning(
            f"{size(facts.swap_used)} of {size(facts.swap)} swap are in use: the machine has been "
            "short of memory",
            "ps -Ao rss,pid,comm | sort -rn | head",
        )
