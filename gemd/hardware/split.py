"""A device's memory split by who holds it: arithmetic that never goes below zero and adds up.

Sensors read their figures one after the other, so that they contradict each other: a process
lets go between two of them, shared pages count twice. Peers subtract them as they come; in
Ollama an unsigned difference then becomes 16 EiB of memory that has «come back». Here what is
free wins, because a load fails on it, and the rest is cut to what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from gemd.hardware.cgroups import MemoryGroup


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a memory as `DeviceReading` has them; bytes."""

    free: int | None
    processes: Mapping[int, int] | None
    others: int | None


@dataclass(frozen=True, slots=True)
class Resident:
    """What a process holds of the main memory; bytes.

    Attributes:
        total: All resident pages, mapped files included.
        mapped: Those of them that are pages of files.

    """

    total: int = 0
    mapped: int = 0


def split_gpu(
    *,
    capacity: int,
    free: int | None,
    listed: Mapping[int, int | None] | None,
    ours: Collection[int],
    told: bool,
) -> Split:
    """The memory of a GPU by what its driver lists.

    Args:
        capacity: Memory that exists.
        free: By the driver; None if it does not tell.
        listed: Bytes by pid of whoever has a context there; None for a process that is listed
            without its bytes, or altogether if there is no list.
        ours: Pids of the workers.
        told: Whether every worker with memory here is in the list, under the pid that we know.

    """
    used = capacity if free is None else capacity - _within(free, capacity)
    free = None if free is None else capacity - used
    if listed is None:
        return Split(free, None if ours else {}, None)
    mine = {pid: size for pid, size in listed.items() if pid in ours}
    theirs = [size for pid, size in listed.items() if pid not in ours]
    if not told:
        # What is listed for somebody else may be a worker's, under another namespace's pid.
        return Split(free, None, None)
    hidden = None in mine.values()
    processes = None if hidden else fit({pid: size for pid, size in mine.items() if size}, used)
    if theirs and all(size is None for size in theirs):
        return Split(free, processes, None)
    left = used - sum((processes or {}).values())
    return Split(free, processes, _within(sum(size or 0 for size in theirs), left))


def split_ram(
    *,
    capacity: int,
    available: int,
    groups: Iterable[MemoryGroup],
    workers: Mapping[int, Resident] | None,
) -> Split:
    """The main memory, with the workers' mapped weights counted as theirs.

    The kernel calls pages of a file available, and those of a mapped model are the memory of a
    warm worker: without them it would be taken for free and given away again. A page that two
    workers map counts twice, so that free is never overstated.

    Args:
        capacity: RAM, or the tightest limit of a control group below that.
        available: MemAvailable of the machine.
        groups: Control groups with a limit.
        workers: By pid; None if a worker does not let itself be read.

    """
    if workers is None:
        return Split(None, None, None)
    mapped = sum(worker.mapped for worker in workers.values())
    free = min([available - mapped, *(group.headroom(mapped=mapped) for group in groups)])
    free = _within(free, capacity)
    sizes = {pid: worker.total for pid, worker in workers.items() if worker.total > 0}
    processes = fit(sizes, capacity)
    free = min(free, capacity - sum(processes.values()))
    return Split(free, processes, capacity - free - sum(processes.values()))


def split_shared(*, capacity: int, available: int, processes: Mapping[int, int] | None) -> Split:
    """A part of main memory that a GPU may use, where both share all of it.

    What main memory has left bounds what the part has left, and what the workers do not hold of
    the rest is others'.

    Args:
        capacity: The most that the GPU may have: the working set.
        available: What main memory has left for anybody.
        processes: What workers hold of the part by pid; None if that is hidden.

    """
    if processes is None:
        return Split(_within(available, capacity), None, None)
    ours = fit({pid: size for pid, size in processes.items() if size > 0}, capacity)
    left = capacity - sum(ours.values())
    free = _within(available, left)
    return Split(free, ours, left - free)


def split_made_up(
    *, capacity: int, others: int, workers: Mapping[int, int], hidden: bool = False
) -> Split:
    """A memory of which only its size and what others hold is given.

    What workers hold is real, so where both do not fit it is the others' part that gives way.
    """
    processes = fit({pid: size for pid, size in workers.items() if size > 0}, capacity)
    ours = sum(processes.values())
    theirs = _within(others, capacity - ours)
    free = capacity - ours - theirs
    if hidden:
        return Split(free, None if workers else {}, None)
    return Split(free, processes, theirs)


def fit(sizes: Mapping[int, int], most: int) -> dict[int, int]:
    """The sizes, cut in proportion where together they exceed `most`; none negative."""
    whole = {key: max(0, size) for key, size in sizes.items()}
    total = sum(whole.values())
    if total <= most:
        return whole
    return {key: size * max(0, most) // total for key, size in whole.items()}


def _within(size: int, most: int) -> int:
    return max(0, min(size, most))
