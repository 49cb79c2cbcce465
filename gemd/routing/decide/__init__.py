"""Which way a request takes through the two tiers: a pure decision with its reasons."""

from gemd.routing.decide.choosing import decide
from gemd.routing.decide.odds import DEFAULT_ODDS, Detection, Odds, detection, odds_of
from gemd.routing.decide.values import (
    DRAFTS,
    Ask,
    Choice,
    Option,
    Standing,
    Strategy,
    Tiers,
)

__all__ = [
    "DEFAULT_ODDS",
    "DRAFTS",
    "Ask",
    "Choice",
    "Detection",
    "Odds",
    "Option",
    "Standing",
    "Strategy",
    "Tiers",
    "decide",
    "detection",
    "odds_of",
]
