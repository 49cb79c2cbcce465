"""Limits of the control groups that this process is in (Linux, versions 1 and 2).

A group and every group above it count, the tightest one wins. Inside a container the
path in /proc/self/cgroup may be the host's and absent from the mount; then only the
mount's root, which is the container's own group, is found.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from gemd.hardware.files import integer_of, line_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_UNLIMITED: Final = 2**60
"""Version 1 writes «no limit» as the largest multiple of the page size."""

RESCAN_S: Final = 60.0
"""How long limits are taken to hold: they change by an administrator's command only."""


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A group that has a limit; bytes.

    Attributes:
        limit: The most that its processes may have.
        used: What is charged to it, page cache included.
        cached: Page cache of it, which goes before anything is refused.

    """

    limit: int
    used: int
    cached: int

    def headroom(self, *, mapped: int = 0) -> int:
        """What it can still take.

        Args:
            mapped: Bytes of the page cache that shall stay, as weights that are in use.

        """
        staying = max(0, self.used - max(0, self.cached - mapped))
        return max(0, self.limit - staying)


@dataclass(frozen=True)
class _Files:
    limit: str
    usage: str
    cached: tuple[str, str]
    """Lines of memory.stat. Active pages of files go too when memory is short, as in
    MemAvailable; tmpfs is not in either."""


_V2: Final = _Files("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1: Final = _Files(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


class MemoryGroups:
    """The groups with a limit on memory, found once and read often.

    Args:
        root: Where /proc and /sys are.
        clock: Monotonic seconds.

    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._limited: list[tuple[Path, _Files, int]] = []
        self._scan_at = 0.0
        self._scanned = False

    def read(self) -> tuple[MemoryGroup, ...]:
        """All of them now; none where nothing is limited."""
        now = self._clock()
        if not self._scanned or now >= self._scan_at:
            self._limited = list(_limited(self._root))
            self._scan_at = now + RESCAN_S
            self._scanned = True
        return tuple(
            MemoryGroup(
                limit=limit,
                used=integer_of(directory / files.usage) or 0,
                cached=_statistics(directory / "memory.stat", files.cached),
            )
            for directory, files, limit in self._limited
        )


def cpu_quota(root: Path) -> float | None:
    """CPUs that the control groups of this process allow; None if they do not limit them."""
    return min((quota for quota in _quotas(root) if quota is not None), default=None)


def group_folders(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Folders of this process's groups for a controller, each followed by those above it.

    Args:
        root: Where /proc and /sys are.
        controller: Such as ``memory``.

    Yields:
        A folder, which need not exist, and whether it is of version 2.

    """
    mount = root / "sys/fs/cgroup"
    for controllers, path in _memberships(root):
        if controllers == {""}:
            for folder in _upwards(mount, path):
                yield folder, True
        elif controller in controllers:
            for folder in _upwards(mount / controller, path):
                yield folder, False


def _limited(root: Path) -> Iterator[tuple[Path, _Files, int]]:
    for directory, files in _memory_directories(root):
        limit = integer_of(directory / files.limit)
        if limit is not None and limit < _UNLIMITED:
            yield directory, files, limit


def _memory_directories(root: Path) -> Iterator[tuple[Path, _Files]]:
    for directory, unified in group_folders(root, "memory"):
        yield directory, _V2 if unified else _V1


def _quotas(root: Path) -> Iterator[float | None]:
    for directory, unified in group_folders(root, "cpu"):
        if unified:
            yield _ratio(text_of(directory / "cpu.max").split())
        else:
            yield _ratio(
                [line_of(directory / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            )


def _memberships(root: Path) -> Iterator[tuple[set[str], PurePosixPath]]:
    """Controllers (the empty name is version 2) and path of each of our groups."""
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if separator and ".." not in PurePosixPath(path).parts:
            yield set(controllers.split(",")), PurePosixPath(path.lstrip("/"))


def _upwards(mount: Path, path: PurePosixPath) -> Iterator[Path]:
    yield mount / path
    for parent in path.parents:
        yield mount / parent


def _ratio(fields: list[str]) -> float | None:
    try:
        quota, period = (int(field) for field in fields)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _statistics(file: Path, names: tuple[str, ...]) -> int:
    """The sum of these lines, as far as they are there."""
    total = 0
    for line in text_of(file).splitlines():
        key, _, value = line.partition(" ")
        if key in names and value.isdecimal():
            total += int(value)
    return total
