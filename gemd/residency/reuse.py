"""How likely a model is asked for again soon, from when it was asked for so far.

The chance is that of a next use before an alarm that rings after an exponential time of mean
`HORIZON_S`: the expectation of exp(-wait / HORIZON_S). Unlike «used within five minutes» it tells
a model that comes back in ten seconds from one that does in twenty, so that of three models
in turns the one that was just used goes, and not, as by LRU, the one that is next.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

HORIZON_S: Final = 300.0
REMEMBERED: Final = 16
"""Gaps between uses that are kept of each model; habits of a desktop change within days."""

_PRIOR_GAPS_S: Final = (30.0, 300.0, 3600.0, 86400.0)
"""What is thought of a model that nobody knows: each as likely as the others."""
_PRIOR_WEIGHT: Final = 0.25
"""Of each of them against one gap that was seen."""
_NEVER_WEIGHT: Final = 0.25


def chance_of_reuse(gaps: Sequence[float], *, elapsed: float) -> float:
    """The chance of a use in the near future, from 0 to 1.

    Args:
        gaps: Seconds between earlier uses; the latest `REMEMBERED` of them.
        elapsed: Seconds since the last use. Gaps shorter than that say nothing any more.

    """
    elapsed = max(0.0, elapsed)
    weight, expected = _NEVER_WEIGHT, 0.0
    for gap, each in (
        *((gap, 1.0) for gap in gaps),
        *((gap, _PRIOR_WEIGHT) for gap in _PRIOR_GAPS_S),
    ):
        if gap > elapsed:
            weight += each
            expected += each * math.exp(-(gap - elapsed) / HORIZON_S)
    return expected / weight
