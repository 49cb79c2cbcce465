"""Memory of workers that are gone, until a sensor has seen it free.

A process that was reaped has given its memory back to the kernel or the driver, but the last
sample still shows it in use. Until a later one does not, it is on its way back: it is given to
nobody, and nobody else is evicted in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from gemd.hardware import RAM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.hardware import DeviceReading, Sample

log = structlog.get_logger(__name__)

HIDDEN_S: Final = 2.0
"""How long memory counts as coming back where the driver does not tell who holds it."""
GIVEN_UP_S: Final = 10.0
"""After that, what a driver lists under a dead process is in use by nobody knows whom."""


@dataclass(frozen=True, slots=True)
class Return:
    """What one worker held.

    Attributes:
        model: Whose it was.
        pid: The process.
        device: Where its weights were.
        sizes: Bytes by device, as last measured.
        since: When it was reaped.
        decision: Number of the decision that sent it away; None if it crashed.

    """

    model: str
    pid: int
    device: str
    sizes: Mapping[str, int]
    since: float
    decision: int | None = None


class Returns:
    """All of them."""

    def __init__(self) -> None:
        self._open: list[Return] = []

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, one: Return) -> None:
        """A worker was reaped."""
        self._open.append(one)

    def sizes(self) -> dict[str, int]:
        """Bytes on their way back, by device."""
        total: dict[str, int] = {}
        for each in self._open:
            for device, size in each.sizes.items():
                total[device] = total.get(device, 0) + size
        return total

    def workers(self) -> dict[int, str]:
        """Device by pid of those that a sensor has to look for."""
        return {each.pid: each.device for each in self._open if each.pid}

    def settle(self, sample: Sample) -> list[Return]:
        """Take out and give those that the sample shows to be back."""
        done = [each for each in self._open if _is_back(each, sample)]
        self._open = [each for each in self._open if each not in done]
        return done

    def give_up(self, now: float) -> list[Return]:
        """Take out those that a sensor that fails can say nothing of."""
        done = [each for each in self._open if now - each.since >= HIDDEN_S]
        self._open = [each for each in self._open if each not in done]
        return done


def _is_back(one: Return, sample: Sample) -> bool:
    if sample.time <= one.since:
        return False
    return all(
        _is_back_on(one, sample.of(device), sample.time) for device in one.sizes if device != RAM
    )


def _is_back_on(one: Return, reading: DeviceReading | None, now: float) -> bool:
    waited = now - one.since
    if reading is None:
        return True
    if reading.processes is None:
        return waited >= HIDDEN_S
    if one.pid not in reading.processes:
        return True
    if waited >= GIVEN_UP_S:
        log.warning("memory.not_returned", device=reading.device, pid=one.pid, model=one.model)
        return True
    return False
