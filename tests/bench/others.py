"""What other programs took of the machine while something was measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

TOLERATED = 0.03
"""Share of the machine; about what the kernel's accounting by ticks is off by."""
_TICK_SECONDS = 0.02


@dataclass(frozen=True)
class Look:
    """Processor time so far, in seconds: of everybody, and of this process and its children."""

    at: float
    everybody: float
    ours: float


def look() -> Look:
    """Take the figures now; a hypervisor's steal counts as somebody else's."""
    times = psutil.cpu_times()
    # These two are contained in user and nice.
    idle = times.idle + getattr(times, "iowait", 0.0)
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    me = psutil.Process()
    ours = sum(me.cpu_times()[:4])
    for child in me.children(recursive=True):
        try:
            ours += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            # It is ended and counts as its parent's.
            continue
    return Look(time.monotonic(), sum(times) - idle - twice, ours)


def disturbed(before: Look, after: Look, *, cores: int) -> bool:
    """Whether others took more than is tolerated between two looks."""
    others = (after.everybody - before.everybody) - (after.ours - before.ours)
    room = (after.at - before.at) * cores
    return others > max(_TICK_SECONDS, TOLERATED * room)
