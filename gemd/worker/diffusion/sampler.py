"""The entropy-bound sampler on one canvas: which positions are accepted, and when it is done.

Pure, on the host: a step of the model leaves six numbers for each position, and these few
kilobytes are all that is decided on. So a batch may hold canvases at different steps, each with
its own schedule, and the decisions are the same on every device.

Sources: entropy-bounded unmasking, https://arxiv.org/abs/2505.24857; the values and the order of
the steps are those of the released model's generation_config.json and of transformers'
``DiffusionGemmaGenerationMixin``, with which the tests compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gemd.worker.diffusion.draws import Draws

RANDOM = -1
"""Stands in a starting canvas where no token is given."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a canvas is denoised.

    Attributes:
        max_steps: The most steps.
        entropy_bound: Nats; how much the accepted tokens may still depend on each other.
        t_max: Temperature of the first step.
        t_min: What the temperature goes to.
        stability_threshold: Steps for which the likeliest canvas has to stay the same before it
            may be done; None never stops early.
        confidence_threshold: Mean entropy in nats below which it may be done; None likewise.
        greedy: Take the likeliest token where one is accepted, instead of drawing one.

    """

    max_steps: int = 48
    entropy_bound: float = 0.1
    t_max: float = 0.8
    t_min: float = 0.4
    stability_threshold: int | None = 1
    confidence_threshold: float | None = 0.005
    greedy: bool = False

    def temperature(self, step: int) -> float:
        """Temperature of a step, from 1 to `max_steps`."""
        left = self.max_steps - step + 1
        return self.t_min + (self.t_max - self.t_min) * (left / self.max_steps)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one step of the model says about each position; every array has shape (canvas,).

    Attributes:
        likeliest: Token ids.
        drawn: Token ids, drawn from the distribution at the step's temperature.
        entropy: Of that distribution, nats.
        raw_entropy: Of the distribution at temperature 1, nats.
        confidence: Probability of the likeliest token at temperature 1.
        margin: That less the probability of the second likeliest.

    """

    likeliest: NDArray[np.int64]
    drawn: NDArray[np.int64]
    entropy: NDArray[np.float32]
    raw_entropy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]

    @property
    def sound(self) -> bool:
        """Whether the model computed numbers."""
        return bool(np.isfinite(self.entropy).all() and np.isfinite(self.raw_entropy).all())


def accept(entropy: NDArray[np.float32], bound: float) -> NDArray[np.bool_]:
    """The positions whose tokens may be taken together.

    The surest positions, as many as keep the sum of their entropies without the largest one
    within the bound: that sum bounds what the tokens tell about each other. At least one is taken.

    Args:
        entropy: Nats; shape (positions,).
        bound: Nats.

    """
    order = np.argsort(entropy, kind="stable")
    ascending = entropy[order].astype(np.float64)
    accepted = np.zeros(entropy.shape, dtype=np.bool_)
    before = np.concatenate(([0.0], np.cumsum(ascending)[:-1]))
    accepted[order] = before <= bound
    return accepted


@dataclass(slots=True)
class Canvas:
    """One block of tokens on its way out of noise.

    Attributes:
        tokens: What the model reads at the next step; shape (canvas,).
        fixed: Positions that stay as they were given; shape (canvas,).
        steps: How many steps it has had.
        likeliest: The model's last opinion, which becomes the answer; fixed positions as given.
        accepted: Positions that were accepted at the last step, fixed ones not counted.
        done: Whether it needs no further step.
        converged: Whether it is done because it was stable and sure.

    """

    schedule: Schedule
    tokens: NDArray[np.int64]
    fixed: NDArray[np.bool_]
    vocabulary: int
    draws: Draws
    steps: int = 0
    likeliest: NDArray[np.int64] = field(init=False)
    accepted: int = 0
    done: bool = False
    converged: bool = False
    _stable: int = 0

    def __post_init__(self) -> None:
        """See `start`."""
        self.likeliest = self.tokens.copy()

    @classmethod
    def start(
        cls,
        schedule: Schedule,
        draws: Draws,
        *,
        vocabulary: int,
        given: NDArray[np.int64],
        fixed: NDArray[np.bool_],
    ) -> Canvas:
        """A canvas before its first step.

        Args:
            schedule: How it is denoised.
            draws: Its randomness.
            vocabulary: Tokens there are.
            given: Tokens to start from; `RANDOM` where there is none. Shape (canvas,).
            fixed: Positions that stay; none of them is `RANDOM`. Shape (canvas,).

        """
        assert not (fixed & (given == RANDOM)).any()
        noise = draws.noise(len(given), vocabulary)
        tokens = np.where(given == RANDOM, noise, given)
        return cls(schedule, tokens, fixed.copy(), vocabulary, draws)

    @property
    def temperature(self) -> float:
        """Of the next step."""
        return self.schedule.temperature(self.steps + 1)

    def uniforms(self) -> NDArray[np.float32]:
        """Numbers from 0 to below 1 that the next step draws tokens with; shape (canvas,)."""
        return self.draws.uniforms(len(self.tokens))

    def take(self, reading: Reading) -> None:
        """Go on by the step that the model has done."""
        free = ~self.fixed
        likeliest = np.where(free, reading.likeliest, self.tokens)
        # Before its first step there is no opinion of the model's that could have stayed.
        same = self.steps > 0 and bool((likeliest == self.likeliest).all())
        self._stable = self._stable + 1 if same else 0
        self.steps += 1
        self.likeliest = likeliest
        accepted = np.zeros_like(free)
        accepted[free] = accept(reading.entropy[free], self.schedule.entropy_bound)
        self.accepted = int(accepted.sum())
        # Drawn whether or not it is used: what a seed gives must not depend on what is accepted.
        noise = self.draws.noise(len(free), self.vocabulary)
        chosen = likeliest if self.schedule.greedy else reading.drawn
        self.tokens = np.where(free, np.where(accepted, chosen, noise), self.tokens)
        self.converged = self._settled(reading.entropy[free])
        self.done = self.converged or self.steps >= self.schedule.max_steps

    def _settled(self, entropy: NDArray[np.float32]) -> bool:
        stability, confidence = (
            self.schedule.stability_threshold,
            self.schedule.confidence_threshold,
        )
        if stability is None or confidence is None:
            return False
        mean = float(entropy.mean()) if len(entropy) else 0.0
        return self._stable >= stability and mean < confidence
