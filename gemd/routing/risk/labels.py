"""What is known afterwards of a draft: whether it would do. Features only, never text."""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.request import Feedback

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT_LABELS: Final = 2_000
REMEMBERED: Final = 1_000
"""Requests whose signals wait for feedback, in memory only."""


class Source(enum.Enum):
    """Who says whether a draft was good."""

    SHADOW = "shadow"
    USER = "user"


MEANING: Final = {
    Feedback.LIKED: (True, 1.0),
    Feedback.ACCEPTED: (True, 0.5),
    Feedback.DISLIKED: (False, 1.0),
    Feedback.REGENERATED: (False, 1.0),
    Feedback.EDITED: (False, 0.5),
}
"""Whether the answer was good, and how much that counts: what is only inferred counts half."""


@dataclass(frozen=True, slots=True)
class Label:
    """One draft, and whether it would do.

    Attributes:
        signals: Of the draft, by name.
        good: Whether it would do.
        source: Who says so.
        weight: How much that counts, above 0 to 1.
        propensity: The probability with which such a draft gets a label, above 0 to 1; 1 where it
            is not known.
        at: Unix seconds.
        task: The name of the prompt's task.
        mode: The request's.
        origin: Whose draft it is; a later label of the same source and origin takes its place.
            Empty for nobody's.

    """

    signals: Mapping[str, float]
    good: bool
    source: Source
    weight: float = 1.0
    propensity: float = 1.0
    at: float = 0.0
    task: str = ""
    mode: str = ""
    origin: str = ""

    @property
    def is_of_shipped(self) -> bool:
        """Whether the draft became the answer: users speak of no others, nor is a part drawn."""
        return self.source is Source.USER or self.propensity < 1


class Labels:
    """The newest labels.

    Args:
        labels: The oldest first; of more than `KEPT_LABELS` the newest stay.

    """

    def __init__(self, labels: tuple[Label, ...] = ()) -> None:
        self._labels: OrderedDict[object, Label] = OrderedDict()
        self._number = 0
        self._bad = 0
        for label in labels:
            self.add(label)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def bad(self) -> int:
        """Those of bad drafts; counted as they come, for each request asks."""
        return self._bad

    @property
    def all(self) -> tuple[Label, ...]:
        """The oldest first."""
        return tuple(self._labels.values())

    def add(self, label: Label) -> None:
        """Take in one, in the place of an earlier one of the same origin and source."""
        self._number += 1
        key: object = (label.source, label.origin) if label.origin else self._number
        self._forget(self._labels.pop(key, None))
        self._labels[key] = label
        self._bad += not label.good
        if len(self._labels) > KEPT_LABELS:
            self._forget(self._labels.popitem(last=False)[1])

    def _forget(self, label: Label | None) -> None:
        self._bad -= label is not None and not label.good


@dataclass(frozen=True, slots=True)
class _Remembered:
    signals: Mapping[str, float]
    task: str
    mode: str


class Memory:
    """Signals of the drafts that were shipped, until somebody says what he thinks of them.

    Only a draft that became the answer belongs here: of any other one feedback tells nothing.
    """

    def __init__(self) -> None:
        self._drafts: OrderedDict[tuple[str, int], _Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._drafts)

    def remember(
        self,
        request_id: str,
        candidate: int,
        signals: Mapping[str, float],
        *,
        task: str = "",
        mode: str = "",
    ) -> None:
        """Keep the signals of a shipped draft; the longest unused ones go when there are many."""
        key = request_id, candidate
        self._drafts[key] = _Remembered(dict(signals), task, mode)
        self._drafts.move_to_end(key)
        if len(self._drafts) > REMEMBERED:
            self._drafts.popitem(last=False)

    def feedback(
        self, request_id: str, candidate: int, signal: Feedback, *, now: float
    ) -> Label | None:
        """The label that feedback makes of a draft; None if no draft of that id is remembered.

        Args:
            request_id: Whose answer.
            candidate: Which one.
            signal: What is said of it.
            now: Unix seconds.

        """
        key = request_id, candidate
        found = self._drafts.get(key)
        if found is None:
            return None
        self._drafts.move_to_end(key)
        good, weight = MEANING[signal]
        return Label(
            signals=found.signals,
            good=good,
            source=Source.USER,
            weight=weight,
            at=now,
            task=found.task,
            mode=found.mode,
            origin=f"{request_id}/{candidate}",
        )
