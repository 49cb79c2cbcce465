"""What denoising tells of an answer's quality, for the router.

A canvas that has settled is sure of itself by definition, whatever it says: its last entropies at
the schedule's temperature are near zero. What tells good from bad is the way there: how many steps
it took, what the model believed before it had seen its own words, what was still open late, and how
often it changed its mind. All of it is taken at temperature 1, and only from positions before the
end of the answer: behind it stands padding, of which every model is sure.

Source of the late area: the last quarter of the steps carries the signal (training-free entropy
scores for diffusion models, preprints 202606.2166).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from gemd import wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gemd.worker.diffusion.sampler import Canvas, Reading

LATE_SHARE: Final = 0.25
LATE_STEPS: Final = 3
"""For flips."""


@dataclass(slots=True)
class Recorder:
    """The steps of one canvas as they come."""

    _entropy: list[NDArray[np.float32]] = field(default_factory=list)
    _flipped: list[NDArray[np.bool_]] = field(default_factory=list)
    _likeliest: NDArray[np.int64] | None = None
    _margin: NDArray[np.float32] | None = None

    def observe(self, reading: Reading) -> None:
        """Take in a step."""
        self._entropy.append(reading.raw_entropy)
        if self._likeliest is not None:
            self._flipped.append(reading.likeliest != self._likeliest)
        self._likeliest = reading.likeliest
        self._margin = reading.margin

    def canvas(self, canvas: Canvas, counted: NDArray[np.bool_]) -> CanvasTrace:
        """The figures of a canvas that is done.

        Args:
            canvas: After its last step.
            counted: Positions that count: free ones before the end; shape (canvas,).

        """
        assert self._margin is not None, "a canvas has at least one step"
        steps = len(self._entropy)
        late = max(1, round(steps * LATE_SHARE))
        return CanvasTrace(
            steps=steps,
            max_steps=canvas.schedule.max_steps,
            capped=not canvas.converged,
            first=self._entropy[0][counted],
            last=self._entropy[-1][counted],
            late_area=_mean(np.stack(self._entropy[-late:])[:, counted])
            * (late / canvas.schedule.max_steps),
            flips=_sum(self._flipped, counted),
            late_flips=_sum(self._flipped[-LATE_STEPS:], counted),
            margin=self._margin[counted],
        )


@dataclass(frozen=True, slots=True)
class CanvasTrace:
    """Of one canvas; arrays have shape (counted positions,), entropies are in nats.

    Attributes:
        steps: It had.
        max_steps: It could have had.
        capped: Whether it ended without having settled.
        first: Entropies at the first step.
        last: Entropies at the last step.
        late_area: Mean entropy over the last quarter of the steps, times its share of all.
        flips: By position, how often the likeliest token changed.
        late_flips: The same within the last three steps.
        margin: At the last step.

    """

    steps: int
    max_steps: int
    capped: bool
    first: NDArray[np.float32]
    last: NDArray[np.float32]
    late_area: float
    flips: NDArray[np.int64]
    late_flips: NDArray[np.int64]
    margin: NDArray[np.float32]


def summary(canvases: list[CanvasTrace]) -> wire.Trace | None:
    """The figures of an answer; None if no position of it counts.

    Positions of all canvases are taken together; areas are weighted by them.
    """
    positions = sum(len(each.first) for each in canvases)
    if positions == 0:
        return None
    first = np.concatenate([each.first for each in canvases])
    last = np.concatenate([each.last for each in canvases])
    area = sum(each.late_area * len(each.first) for each in canvases) / positions
    return wire.Trace(
        canvases=len(canvases),
        steps=sum(each.steps for each in canvases),
        max_steps=sum(each.max_steps for each in canvases),
        capped=sum(each.capped for each in canvases),
        positions=positions,
        first_entropy_mean=float(first.mean()),
        first_entropy_q90=float(np.quantile(first, 0.9)),
        first_entropy_max=float(first.max()),
        last_entropy_mean=float(last.mean()),
        last_entropy_q90=float(np.quantile(last, 0.9)),
        last_entropy_max=float(last.max()),
        late_entropy_area=area,
        flips=_mean(np.concatenate([each.flips for each in canvases])),
        late_flips=_mean(np.concatenate([each.late_flips for each in canvases])),
        margin_q10=float(np.quantile(np.concatenate([each.margin for each in canvases]), 0.1)),
    )


def _mean(values: NDArray[np.floating | np.integer]) -> float:
    return float(np.mean(values)) if values.size else 0.0


def _sum(flipped: list[NDArray[np.bool_]], counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    if not flipped:
        return np.zeros(int(counted.sum()), dtype=np.int64)
    times: NDArray[np.int64] = np.stack(flipped)[:, counted].sum(axis=0, dtype=np.int64)
    return times
