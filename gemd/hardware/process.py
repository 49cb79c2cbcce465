"""What a process takes, seen from outside."""

from __future__ import annotations

import psutil


def process_rss_bytes(pid: int) -> int:
    """Resident bytes of the process, mapped files included; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0
