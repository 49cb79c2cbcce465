"""The parts of an inventory. Unknown is None, never a guess."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cpu:
    """The processor as far as this process may use it."""

    name: str
    physical_cores: int
    """Cores that can compute at the same time; the right number of threads for ggml."""
    logical_cores: int
    features: frozenset[str]
    """Instruction sets by the kernel's names (``avx2``, ``asimd``); empty where unknown."""


@dataclass(frozen=True)
class Memory:
    """RAM, within the limits of this process's control groups."""

    total_bytes: int
    """Of the machine, or of the tightest limit below that."""
    available_bytes: int
    """Could be allocated now without swapping or exceeding a limit."""
    cgroup_limit_bytes: int | None
    """The tightest limit of the control groups, if there is one."""


@dataclass(frozen=True)
class Gpu:
    """One graphics processor."""

    uuid: str
    name: str
    vendor: str
    memory_total_bytes: int | None
    """None where the sensor cannot tell, as on machines with one memory for both."""
    memory_free_bytes: int | None
