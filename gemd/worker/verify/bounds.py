"""How much of its source a quantization may lose. Where the figures come from: DESIGN.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GAUSSIAN_ERROR: Final[dict[str, float]] = {
    "F64": 0.0,
    "F32": 0.0,
    "F16": 0.0003,
    "BF16": 0.0017,
    "Q8_0": 0.0054,
    "Q6_K": 0.0178,
    "Q5_K": 0.0363,
    "Q5_1": 0.0380,
    "Q5_0": 0.0428,
    "Q4_K": 0.0715,
    "IQ4_NL": 0.0765,
    "IQ4_XS": 0.0770,
    "Q4_1": 0.0782,
    "Q4_0": 0.0862,
    "NVFP4": 0.0950,
    "MXFP4": 0.1142,
    "Q3_K": 0.1515,
    "Q2_K": 0.2961,
}
"""Relative root-mean-square error of normally distributed weights, by ggml's name of a type."""

SINGLE_FACTOR: Final = 2.0
"""What one matrix may have of that: weights of real models have heavier tails."""
MEAN_FACTOR: Final = 1.5
"""What all tensors of a type may have on average."""
MEAN_OF: Final = 8
"""Tensors that an average says something about."""
_ROUNDING: Final = 1e-6
_ANY: Final = 0.5
"""Of a type that the table does not have: it at least looks like its source."""


def error_limit(kind: str, *, mean: bool = False) -> float:
    """The largest relative error of a tensor of that type, or the largest mean of many."""
    if kind not in GAUSSIAN_ERROR:
        return _ANY
    factor = MEAN_FACTOR if mean else SINGLE_FACTOR
    return max(GAUSSIAN_ERROR[kind] * factor, _ROUNDING)


@dataclass(frozen=True, slots=True)
class Gate:
    """What a comparison of a model with its source has to give.

    Attributes:
        divergence: The largest mean Kullback-Leibler divergence, nats for each token.
        agreement: The least share of tokens that both find the most likely.
        perplexity: The largest ratio of the perplexities.

    """

    divergence: float
    agreement: float
    perplexity: float


_CLASSES: Final[tuple[tuple[str, Gate], ...]] = (
    ("F32", Gate(0.005, 0.95, 1.005)),
    ("F16", Gate(0.005, 0.95, 1.005)),
    ("BF16", Gate(0.005, 0.95, 1.005)),
    ("Q8", Gate(0.005, 0.947, 1.005)),
    ("Q6", Gate(0.013, 0.915, 1.014)),
    ("Q5", Gate(0.094, 0.802, 1.119)),
    ("Q4", Gate(0.347, 0.683, 1.552)),
    ("IQ4", Gate(0.347, 0.683, 1.552)),
    ("MXFP4", Gate(0.347, 0.683, 1.552)),
    ("Q3", Gate(0.474, 0.614, 1.838)),
    ("IQ3", Gate(0.474, 0.614, 1.838)),
    ("Q2", Gate(0.474, 0.614, 1.838)),
)
"""What the worse of two small models gave, by the beginning of a quantization's name. Those that
were not measured have the figures of the next class that is as good or worse: floats those of Q8_0,
MXFP4 those of Q4_0, IQ3 those of Q2_K."""
MEASURED_PARAMETERS: Final = 135e6
"""Of the smaller one."""
_SHRINKING: Final = 0.25
"""Power of the number of parameters with which the loss of larger models falls, at least."""
_SLACK: Final = 2.0
_AGREEMENT_SLACK: Final = 1.5


def gate_of(quantization: str, parameters: float) -> Gate | None:
    """What a variant has to reach; None if nothing is known of its quantization.

    Args:
        quantization: Such as ``Q4_K_M``.
        parameters: Of the model.

    """
    name = quantization.upper()
    found = next((gate for start, gate in _CLASSES if name.startswith(start)), None)
    if found is None:
        return None
    share = min(1.0, (MEASURED_PARAMETERS / max(parameters, 1.0)) ** _SHRINKING)
    return Gate(
        divergence=_SLACK * share * found.divergence,
        agreement=1.0 - _AGREEMENT_SLACK * share * (1.0 - found.agreement),
        perplexity=found.perplexity ** (_SLACK * share),
    )
