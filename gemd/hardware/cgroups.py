"""Limits of the control groups that this process is in (Linux, versions 1 and 2).

A group and every group above it count, the tightest one wins. Inside a container the
path in /proc/self/cgroup may be the host's and absent from the mount; then only the
mount's root, which is the container's own group, is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNLIMITED: Final = 2**60
"""Version 1 writes «no limit» as the largest multiple of the page size."""


@dataclass(frozen=True)
class GroupLimits:
    """What the control groups allow; None is no limit."""

    memory_limit_bytes: int | None = None
    memory_headroom_bytes: int | None = None
    """Least of limit minus use over all groups; page cache that can go is not use."""
    cpu_quota: float | None = None
    """CPU seconds per second."""


@dataclass(frozen=True)
class _Files:
    limit: str
    usage: str
    reclaimable: str


_V2: Final = _Files("memory.max", "memory.current", "inactive_file")
_V1: Final = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def read_groups(root: Path) -> GroupLimits:
    """The limits in force on this process."""
    limits: list[int] = []
    headrooms: list[int] = []
    for directory, files in _memory_directories(root):
        limit = _integer(directory / files.limit)
        if limit is None or limit >= _UNLIMITED:
            continue
        limits.append(limit)
        used = _integer(directory / files.usage) or 0
        idle = _statistic(directory / "memory.stat", files.reclaimable)
        headrooms.append(max(0, limit - max(0, used - idle)))
    quotas = [quota for quota in _quotas(root) if quota is not None]
    return GroupLimits(
        memory_limit_bytes=min(limits, default=None),
        memory_headroom_bytes=min(headrooms, default=None),
        cpu_quota=min(quotas, default=None),
    )


def _memory_directories(root: Path) -> Iterator[tuple[Path, _Files]]:
    mount = root / "sys/fs/cgroup"
    for controllers, path in _memberships(root):
        if controllers == {""}:
            for directory in _upwards(mount, path):
                yield directory, _V2
        elif "memory" in controllers:
            for directory in _upwards(mount / "memory", path):
                yield directory, _V1


def _quotas(root: Path) -> Iterator[float | None]:
    mount = root / "sys/fs/cgroup"
    for controllers, path in _memberships(root):
        if controllers == {""}:
            for directory in _upwards(mount, path):
                yield _ratio(_text(directory / "cpu.max").split())
        elif "cpu" in controllers:
            for directory in _upwards(mount / "cpu", path):
                quota, period = (
                    _text(directory / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
                )
                yield _ratio([quota, period])


def _memberships(root: Path) -> Iterator[tuple[set[str], PurePosixPath]]:
    """Controllers (the empty name is version 2) and path of each of our groups."""
    for line in _text(root / "proc/self/cgroup").splitlines():
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


def _statistic(file: Path, name: str) -> int:
    for line in _text(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _integer(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
