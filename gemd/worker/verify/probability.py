"""How far one model's predictions are from another's: divergence, agreement, perplexity. Pure.

Of the reference only the 64 most likely tokens of each position are kept, and the mass of all
others together. The divergence over these 65 outcomes is at most the one over the whole vocabulary
(merging outcomes cannot raise it), and for a language model nearly as large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

KEPT: Final = 64
_LEAST: Final = 1e-12
"""Mass that is left for an outcome at least: rounding makes some of it vanish."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a distribution.

    Attributes:
        tokens: The most likely ones, in no order; int64, shape (kept,).
        logprobs: Of these, natural logarithms; float64, shape (kept,).
        rest: Mass of all others.
        best: The most likely one.
        following: Log-probability of the token that follows in the text.

    """

    tokens: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    rest: float
    best: int
    following: float


def kept_of(logits: NDArray[np.float32], following: int) -> Kept:
    """The part of one position's prediction that is kept.

    Args:
        logits: Shape (vocabulary,).
        following: The token that follows in the text.

    """
    count = min(KEPT, logits.size)
    tokens = np.argpartition(logits, -count)[-count:]
    total, rest = _totals(logits, tokens)
    return Kept(
        tokens=tokens,
        logprobs=logits[tokens].astype(np.float64) - total,
        rest=rest,
        best=int(logits.argmax()),
        following=float(logits[following]) - total,
    )


@dataclass(frozen=True, slots=True)
class Position:
    """One position, compared.

    Attributes:
        divergence: Of the model from the reference, nats.
        agrees: Whether both find the same token the most likely.
        reference: Log-probability of the text's next token in the reference.
        model: The same in the model.

    """

    divergence: float
    agrees: bool
    reference: float
    model: float


def compared(kept: Kept, logits: NDArray[np.float32], following: int) -> Position:
    """Holds a model's prediction against what was kept of the reference's.

    Args:
        kept: Of the reference, at the same position.
        logits: Of the model, shape (vocabulary,).
        following: The token that follows in the text.

    """
    total, rest = _totals(logits, kept.tokens)
    model = logits[kept.tokens].astype(np.float64) - total
    divergence = float((np.exp(kept.logprobs) * (kept.logprobs - model)).sum())
    if kept.rest > _LEAST:
        divergence += kept.rest * (math.log(kept.rest) - math.log(max(rest, _LEAST)))
    return Position(
        divergence=divergence if math.isfinite(divergence) else math.inf,
        agrees=int(logits.argmax()) == kept.best,
        reference=kept.following,
        model=float(logits[following]) - total,
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the positions amount to.

    Attributes:
        positions: How many.
        divergence: Mean, nats for each token.
        divergence_p99: Not exceeded by 99 of 100 positions.
        agreement: Share of those where both agree on the most likely token.
        perplexity: Of the model on the text.
        reference_perplexity: Of the reference.

    """

    positions: int
    divergence: float
    divergence_p99: float
    agreement: float
    perplexity: float
    reference_perplexity: float

    @property
    def ratio(self) -> float:
        """Of the perplexities; 1 for a model that has lost nothing."""
        return self.perplexity / self.reference_perplexity


def comparison(positions: Sequence[Position]) -> Comparison:
    """Sums up positions, of which there is at least one."""
    divergences = np.array([position.divergence for position in positions])
    return Comparison(
        positions=len(positions),
        divergence=float(divergences.mean()),
        divergence_p99=float(np.quantile(divergences, 0.99, method="higher")),
        agreement=float(np.mean([position.agrees for position in positions])),
        perplexity=_perplexity([position.model for position in positions]),
        reference_perplexity=_perplexity([position.reference for position in positions]),
    )


def _perplexity(logprobs: Sequence[float]) -> float:
    mean = -float(np.mean(logprobs))
    # NaN too: a model that predicts no number at all is infinitely surprised.
    return math.exp(mean) if mean < math.log(np.finfo(np.float64).max) else math.inf


def _totals(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> tuple[float, float]:
    """Logarithm of the sum of exponentials, and the mass of all tokens but these."""
    largest = float(logits.max())
    if not math.isfinite(largest):
        return math.nan, math.nan
    exponentials = np.exp(logits - np.float32(largest))
    total = float(exponentials.sum(dtype=np.float64))
    # Of the same numbers: one minus the mass of the kept ones would be what rounding left.
    others = total - float(exponentials[tokens].sum(dtype=np.float64))
    return largest + math.log(total), max(others, 0.0) / total
