"""What processes hold of graphics cards, by the lines that DRM drivers write into fdinfo.

Keys and units: the kernel's Documentation/gpu/drm-usage-stats.rst. Only processes of ours are
looked at: to list everybody's descriptors costs more than all other readings together.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.hardware.files import pairs_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

LOOK_S: Final = 5.0
"""How long it is taken to hold which descriptors are cards, while their numbers stay the same."""

_UNITS: Final = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_RESIDENT: Final = re.compile(r"drm-(resident|memory)-(vram\d*|(?:stolen-)?local\d+|gtt)")
"""amdgpu has one VRAM, xe numbers them, i915 calls it local memory. ``memory`` is what amdgpu has
always written for what is ``resident``; newer kernels write both."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds of one card; bytes.

    Attributes:
        local: Of the card's own memory.
        system: Of main memory, mapped for the card.

    """

    local: int = 0
    system: int = 0


@dataclass(slots=True)
class _Known:
    """Which descriptors of a process are cards."""

    names: frozenset[str] = frozenset()
    cards: tuple[str, ...] = ()
    until: float = 0.0


class DrmClients:
    """Reads what our processes hold.

    Args:
        root: Where /proc is.
        clock: Monotonic seconds.

    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._proc = root / "proc"
        self._clock = clock
        self._known: dict[int, _Known] = {}

    def read(self, pids: Iterable[int]) -> dict[int, Mapping[str, Held] | None]:
        """By pid, what it holds by the card's slot; None for one that does not let itself be read.

        A process that is gone holds nothing.
        """
        asked = frozenset(pids)
        self._known = {pid: self._known[pid] for pid in self._known.keys() & asked}
        return {pid: self._of(pid) for pid in sorted(asked)}

    def _of(self, pid: int) -> Mapping[str, Held] | None:
        try:
            names = self._cards(pid)
        except (FileNotFoundError, ProcessLookupError):
            return {}
        except OSError:
            # What has ended and is not reaped yet shows its descriptors to the administrator only.
            return {} if self._has_ended(pid) else None
        infos = self._proc / str(pid) / "fdinfo"
        return _total(text_of(infos / name) for name in names)

    def _cards(self, pid: int) -> tuple[str, ...]:
        folder = self._proc / str(pid) / "fd"
        names = frozenset(os.listdir(folder))  # noqa: PTH208 -- only names, eight times a sample
        known = self._known.setdefault(pid, _Known())
        now = self._clock()
        if names != known.names or now >= known.until:
            known.names, known.until = names, now + LOOK_S
            known.cards = tuple(name for name in sorted(names) if _is_card(folder / name))
        return known.cards

    def _has_ended(self, pid: int) -> bool:
        state = text_of(self._proc / str(pid) / "stat").rpartition(")")[2].split()[:1]
        return state in (["Z"], ["X"])


def _is_card(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("/dev/dri/")
    except OSError:
        # Closed since.
        return False


def _total(texts: Iterable[str]) -> dict[str, Held]:
    """Sums by card. Descriptors of one client show the same figures, and count once."""
    clients: dict[tuple[str, str], Held] = {}
    for text in texts:
        facts = dict(pairs_of(text, ":"))
        slot = facts.get("drm-pdev", "").lower()
        if slot:
            client = (slot, facts.get("drm-client-id", ""))
            seen, held = clients.get(client, Held()), _held(facts)
            clients[client] = Held(max(seen.local, held.local), max(seen.system, held.system))
    sums: defaultdict[str, Held] = defaultdict(Held)
    for (slot, _), held in clients.items():
        sums[slot] = Held(sums[slot].local + held.local, sums[slot].system + held.system)
    return dict(sums)


def _held(facts: Mapping[str, str]) -> Held:
    regions: dict[str, int] = {}
    for key, value in facts.items():
        if found := _RESIDENT.fullmatch(key):
            regions[found[2]] = max(regions.get(found[2], 0), _bytes(value))
    system = regions.pop("gtt", 0)
    return Held(sum(regions.values()), system)


def _bytes(value: str) -> int:
    number, _, unit = value.partition(" ")
    scale = _UNITS.get(unit.strip().lower())
    return int(number) * scale if number.isdecimal() and scale else 0
