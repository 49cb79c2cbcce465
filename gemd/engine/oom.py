"""Has the kernel killed something for lack of memory? Counters, read without privileges.

A worker inherits the daemon's cgroup, so the daemon's own counter covers it. cgroup v2 has
``oom_kill`` in memory.events, v1 in memory.oom_control, and /proc/vmstat one for the whole
machine (cgroup-v2.rst, proc_vmstat(5)).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed so far, or None where it does not say.

    Args:
        root: Where /proc and /sys are mounted.

    """
    for path in _counters(root):
        try:
            text = path.read_text(encoding="ascii")
        except OSError:
            continue
        count = _field(text, "oom_kill")
        if count is not None:
            return count
    return None


def _counters(root: Path) -> Iterator[Path]:
    groups = root / "sys/fs/cgroup"
    try:
        memberships = (root / "proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        memberships = []
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if not controllers:
            yield groups / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            yield groups / "memory" / path.lstrip("/") / "memory.oom_control"
    yield root / "proc/vmstat"


def _field(text: str, name: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return None
