"""`limits`: what the operating system allows a process of this user."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import conclude, failure, warning
from gemd.hardware.cgroups import group_folders
from gemd.hardware.files import integer_of
from gemd.quantities import human_bytes as size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "limits"
FILES: Final = 512
"""The daemon's: a socket for each client and worker, and its libraries' own."""
FEW_FILES: Final = 64
"""With fewer it does not even start."""
PROCESSES: Final = 256
"""Threads count: gRPC starts one for each core, an engine as well."""


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """Limits of this process, which its children inherit. None is none.

    Attributes:
        files: Open files (soft).
        files_hard: The most that can be asked for.
        processes: Processes and threads of this user.
        group_processes: The most of its control group.
        group_processes_now: How many it has.
        address_space: Bytes of address space.
        file_size: Bytes of a file that can be written.

    """

    files: int | None = None
    files_hard: int | None = None
    processes: int | None = None
    group_processes: int | None = None
    group_processes_now: int = 0
    address_space: int | None = None
    file_size: int | None = None


def examine_limits(around: Surroundings, _: Errand) -> Diagnosis:
    """Read and judge them."""
    files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most, now = _of_the_group(around.root)
    return check_limits(
        LimitFacts(
            files=_limited(files),
            files_hard=_limited(hard),
            processes=_limited(resource.getrlimit(resource.RLIMIT_NPROC)[0]),
            group_processes=most,
            group_processes_now=now,
            address_space=_limited(resource.getrlimit(resource.RLIMIT_AS)[0]),
            file_size=_limited(resource.getrlimit(resource.RLIMIT_FSIZE)[0]),
        )
    )


def check_limits(facts: LimitFacts) -> Diagnosis:
    """Judge them."""
    counts = [
        f"open files {'unlimited' if facts.files is None else facts.files}",
        f"threads {'unlimited' if facts.processes is None else facts.processes}",
    ]
    if facts.group_processes is not None:
        counts.append(f"{facts.group_processes_now} of {facts.group_processes} in this group")
    return conclude(NAME, _findings(facts), facts=", ".join(counts))


def _findings(facts: LimitFacts) -> Iterator[Finding]:
    if facts.files is not None and facts.files < FILES:
        find = failure if facts.files < FEW_FILES else warning
        reachable = facts.files_hard is None or facts.files_hard >= 2 * FILES
        yield find(
            f"{facts.files} open files are few for a daemon with many clients",
            f"ulimit -n {2 * FILES}"
            if reachable
            else "raise nofile in /etc/security/limits.conf, then log in again",
        )
    if facts.processes is not None and facts.processes < PROCESSES:
        yield warning(
            f"{facts.processes} processes and threads are few: a model's worker starts one for "
            "each core",
            "ulimit -u unlimited",
        )
    left = None
    if facts.group_processes is not None:
        left = facts.group_processes - facts.group_processes_now
    if left is not None and left < PROCESSES:
        yield warning(
            f"the control group allows {facts.group_processes} processes and threads, and "
            f"{facts.group_processes_now} are there",
            "systemctl --user set-property gemd.service TasksMax=infinity",
            "docker run --pids-limit -1 …",
        )
    if facts.address_space is not None:
        yield warning(
            f"the address space is limited to {size(facts.address_space)}: larger models cannot "
            "be mapped",
            "ulimit -v unlimited",
        )
    if facts.file_size is not None:
        yield warning(
            f"files may have {size(facts.file_size)}: larger models cannot be pulled",
            "ulimit -f unlimited",
        )


def _limited(value: int) -> int | None:
    return None if value in {resource.RLIM_INFINITY, -1} else value


def _of_the_group(root: Path) -> tuple[int | None, int]:
    """The most tasks of the fullest of this process's control groups, and how many it has.

    A group and every group above it count. None is no limit.
    """
    rooms = list(_task_limits(root))
    return min(rooms, key=lambda room: room[0] - room[1], default=(None, 0))


def _task_limits(root: Path) -> Iterator[tuple[int, int]]:
    for folder, _ in group_folders(root, "pids"):
        most, now = integer_of(folder / "pids.max"), integer_of(folder / "pids.current")
        if most is not None and now is not None:
            yield most, now
