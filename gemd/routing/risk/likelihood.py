"""What an autoregressive model thinks of a draft, in figures that do not grow with its length.

The sum of log-probabilities prefers short answers, and the mean hides one wrong number among many
easy words; low quantiles of the tokens' log-probabilities do better than both (token-level
uncertainty in language model cascades, arXiv 2404.10136). `gap` is how far the draft lies below
what the model expects of its own text: log-probability plus entropy is zero on average there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd import wire

WINDOW_TOKENS: Final = 8
LEAST: Final = -30.0
"""Of a log-probability, in nats: what is impossible is -inf, with which no mean can be taken."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of one draft under one model; log-probabilities are in nats, at temperature 1.

    Attributes:
        tokens: Of the draft.
        q10: The log-probability below which a tenth of the tokens lie.
        q25: Likewise a quarter.
        median: Likewise half.
        mean: Of all tokens.
        worst_window: The least mean of eight tokens in a row; of all, if there are fewer.
        top1: Share of tokens that are the model's own first choice.
        gap: Mean of log-probability plus entropy. Below 0: less likely than the model's own text.
        second_half: Mean of the tokens behind the middle.

    """

    tokens: int
    q10: float
    q25: float
    median: float
    mean: float
    worst_window: float
    top1: float
    gap: float
    second_half: float

    @classmethod
    def of(cls, tokens: Sequence[wire.TokenLogprob]) -> Likelihood:
        """The figures of a draft.

        Args:
            tokens: All of its tokens, in order.

        Raises:
            ValueError: There are none.

        """
        if not tokens:
            raise ValueError("a draft without tokens has no likelihood")
        values = [_finite(each.logprob) for each in tokens]
        ordered = sorted(values)
        count = len(values)
        entropies = [each.entropy if math.isfinite(each.entropy) else 0.0 for each in tokens]
        half = values[count // 2 :]
        return cls(
            tokens=count,
            q10=_quantile(ordered, 0.1),
            q25=_quantile(ordered, 0.25),
            median=_quantile(ordered, 0.5),
            mean=math.fsum(values) / count,
            worst_window=_worst_window(values),
            top1=sum(each.rank == 0 for each in tokens) / count,
            gap=(math.fsum(values) + math.fsum(entropies)) / count,
            second_half=math.fsum(half) / len(half),
        )


def _finite(logprob: float) -> float:
    # A model that says NaN has not seen the token as possible.
    return LEAST if math.isnan(logprob) else min(0.0, max(LEAST, logprob))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """With linear interpolation between order statistics (type 7 of Hyndman and Fan)."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _worst_window(values: Sequence[float]) -> float:
    width = min(WINDOW_TOKENS, len(values))
    total = math.fsum(values[:width])
    worst = total
    for new, old in zip(values[width:], values, strict=False):
        total += new - old
        worst = min(worst, total)
    return worst / width
