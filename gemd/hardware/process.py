"""What a process takes, seen from outside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from gemd.hardware.split import Resident

if TYPE_CHECKING:
    from collections.abc import Iterable

_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess)

_INITIAL_NAMESPACE: Final = "pid:[4026531836]"
"""The kernel gives the first pid namespace a fixed inode number (PROC_PID_INIT_INO)."""


def process_rss_bytes(pid: int) -> int:
    """Resident bytes of the process, mapped files included; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except _GONE:
        return 0


class Residents:
    """Resident sizes of processes that are asked for again and again.

    A pid that was seen to end stays ended for as long as it is asked for without a pause, so
    that a stranger who gets the number is not taken for a worker.
    """

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process | None] = {}

    def read(self, pids: Iterable[int]) -> dict[int, Resident] | None:
        """Sizes by pid, zero for one that is gone; None if one does not let itself be read."""
        asked = frozenset(pids)
        self._known = {pid: self._known[pid] for pid in self._known.keys() & asked}
        try:
            return {pid: self._resident(pid) for pid in sorted(asked)}
        except psutil.AccessDenied:
            return None

    def _resident(self, pid: int) -> Resident:
        try:
            if pid not in self._known:
                self._known[pid] = psutil.Process(pid)
            process = self._known[pid]
            if process is None:
                return Resident()
            memory = process.memory_info()
        except _GONE:
            self._known[pid] = None
            return Resident()
        # «shared» is RssFile + RssShmem. Shared memory is not in MemAvailable, so where there
        # is some, what is free is understated. macOS does not tell either.
        return Resident(total=int(memory.rss), mapped=int(getattr(memory, "shared", 0)))


def pids_are_everybodys(root: Path = Path("/")) -> bool:
    """Whether a pid means the same process here as to the drivers.

    A driver knows the pids of the first namespace. In a container, and in a distribution under
    WSL, ours are others; what a driver lists there is untranslated, or missing.
    """
    try:
        return str((root / "proc/self/ns/pid").readlink()) == _INITIAL_NAMESPACE
    except OSError:
        return False


def exists(pid: int) -> bool:
    """Whether there is such a process here, of whatever user."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        # A driver that has no pid to show lists 2**32 - 1, which is none.
        return False
    except PermissionError:
        return True
    return True
