"""How requests fared, by way."""

from __future__ import annotations

import dataclasses

from gemd.routing.cascade import Resolution, Way
from gemd.routing.decide import Strategy
from gemd.routing.request import Tier
from gemd.routing.shares import WINDOW, Shares

DIRECT = Way(model="large", tier=Tier.STRONG, reason="HARD_PROMPT", explanation="x")
KEPT = Way(
    model="quick",
    tier=Tier.FAST,
    reason="PRICED",
    explanation="x",
    strategy=Strategy.DRAFT,
    resolution=Resolution.KEPT,
)


def test_ways_are_counted_apart() -> None:
    """By strategy, tier and what became of the draft; the most frequent comes first."""
    shares = Shares()
    shares.note(KEPT, 0.5)
    for seconds in (1.0, 2.0, 9.0):
        shares.note(DIRECT, seconds)
    first, second = shares.list()
    assert (first.strategy, first.tier, first.resolution) == (Strategy.DIRECT, Tier.STRONG, None)
    assert (first.requests, first.median_s) == (3, 2.0)
    assert 2.0 < first.p95_s <= 9.0
    assert (second.requests, second.median_s, second.p95_s) == (1, 0.5, 0.5)
    assert second.resolution is Resolution.KEPT


def test_only_judged_drafts_count_as_judged() -> None:
    """One whose drafter failed was replaced and never judged, and a direct answer has no draft."""
    shares = Shares()
    replaced = dataclasses.replace(KEPT, tier=Tier.STRONG, resolution=Resolution.REPLACED)
    for way in (DIRECT, replaced, dataclasses.replace(KEPT, risk=0.1)):
        shares.note(way, 1.0)
    assert (shares.judged, shares.refined) == (1, 0)
    shares.note(dataclasses.replace(replaced, risk=0.0), 1.0)
    assert (shares.judged, shares.refined) == (2, 1)


def test_counts_go_on_where_times_are_forgotten() -> None:
    """Times are of the latest answers only."""
    shares = Shares()
    for _ in range(WINDOW):
        shares.note(DIRECT, 100.0)
    for _ in range(WINDOW):
        shares.note(DIRECT, 1.0)
    [share] = shares.list()
    assert (share.requests, share.median_s, share.p95_s) == (2 * WINDOW, 1.0, 1.0)
