"""What was decided, why, and what else could have been done: the memory behind `gemctl why`."""

from __future__ import annotations

import bisect
import enum
import heapq
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gemd.residency.ledger import Figures

KEPT = 1000
"""Decisions that are remembered; the oldest are forgotten first. Those about requests, which come
many times as often, count by themselves."""


class DecisionKind(enum.Enum):
    """What was decided; the names are those of the API."""

    VARIANT = "VARIANT"
    LOAD = "LOAD"
    UNLOAD = "UNLOAD"
    EVICT = "EVICT"
    SHRINK = "SHRINK"
    REFUSE = "REFUSE"
    YIELD = "YIELD"
    QUARANTINE = "QUARANTINE"
    SCHEDULE = "SCHEDULE"
    ROUTE = "ROUTE"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: a stable code in UPPER_SNAKE_CASE, a sentence, and its numbers."""

    code: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something else that could have been done.

    Attributes:
        subject: The model or the way that was not taken.
        reason: Why not.
        cost: On the scale of this decision, lower is better; None if it was ruled out before.

    """

    subject: str
    reason: Reason
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """One device before and after; `after` is None until the effect is confirmed."""

    before: Figures
    after: Figures | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of the daemon.

    Attributes:
        time: Monotonic second of the manager's clock.
        kind: What was decided.
        model: Whom it concerns; may be empty.
        device: Which memory it concerns; may be empty.
        request_id: The request it was made for; may be empty.
        summary: One sentence with its numbers.
        reasons: Weightiest first.
        alternatives: Best first.
        memory: Devices that it changes.
        inputs: The numbers it was computed from.
        effect_s: From the decision to its confirmed effect; None while that is open.
        sequence: Grows with each, from 1; set when it is recorded.

    """

    time: float
    kind: DecisionKind
    summary: str
    model: str = ""
    device: str = ""
    request_id: str = ""
    reasons: tuple[Reason, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    memory: tuple[MemoryChange, ...] = ()
    inputs: Mapping[str, float] = field(default_factory=dict)
    effect_s: float | None = None
    sequence: int = 0


class Decisions:
    """The latest decisions, newest last.

    Args:
        publish: Takes each, and again when its effect is confirmed; must not wait.

    """

    def __init__(self, *, publish: Callable[[Decision], None]) -> None:
        self._publish = publish
        self._kept: deque[Decision] = deque(maxlen=KEPT)
        self._routes: deque[Decision] = deque(maxlen=KEPT)
        self._sequence = 0

    def __iter__(self) -> Iterator[Decision]:
        """From the newest to the oldest."""
        both = reversed(self._kept), reversed(self._routes)
        return heapq.merge(*both, key=lambda each: each.sequence, reverse=True)

    def record(self, decision: Decision) -> int:
        """Number a decision, keep it and tell it; returns the number."""
        self._sequence += 1
        numbered = replace(decision, sequence=self._sequence)
        kept = self._routes if decision.kind is DecisionKind.ROUTE else self._kept
        kept.append(numbered)
        self._publish(numbered)
        return self._sequence

    def confirm(
        self,
        sequence: int,
        *,
        now: float,
        figures: Mapping[str, Figures],
        more: tuple[Reason, ...] = (),
    ) -> None:
        """Its effect is there: note how long it took and what the memory looks like now.

        Args:
            sequence: Its number; one that is forgotten or confirmed is left alone.
            now: Monotonic second of the manager's clock.
            figures: The memory of each device.
            more: What was decided on the way, behind the reasons that it had.

        """
        index = bisect.bisect_left(self._kept, sequence, key=lambda each: each.sequence)
        if index == len(self._kept) or self._kept[index].sequence != sequence:
            return
        before = self._kept[index]
        if before.effect_s is not None:
            return
        self._kept[index] = replace(
            before,
            effect_s=now - before.time,
            reasons=before.reasons + more,
            memory=tuple(
                replace(change, after=figures.get(change.before.device)) for change in before.memory
            ),
        )
        self._publish(self._kept[index])
