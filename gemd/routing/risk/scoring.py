"""One score of many signals, with the weights of a machine that has no labels yet.

Signals of one group say the same thing in several ways, so a group counts as one: the root mean
square of its signals, which lets a single alarming one be heard. Groups are averaged by their
weights over those that are there (research: converged .25, likelihood .35, checks .25, prior .15).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.routing.risk.signals import GROUP_OF, SIGNALS, Group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.routing.risk.running import Running

WEIGHTS: Final = {
    Group.CONVERGED: 0.25,
    Group.LIKELIHOOD: 0.35,
    Group.CHECKS: 0.25,
    Group.PRIOR: 0.15,
}
STYLE_TASKS: Final = frozenset({"REWRITE", "WRITING", "CHAT"})
"""Tasks of which likelihood says little: which wording is preferred it did not predict (AUROC .46
on AlpacaEval)."""
_STYLE_FACTOR: Final = 0.5


@dataclass(frozen=True, slots=True)
class Score:
    """How bad a draft looks.

    Attributes:
        value: 0 (no reason for doubt) to 1.
        shares: What each signal adds to it; they sum up to it.
        groups: How bad each group looks by itself, 0 to 1.

    """

    value: float
    shares: Mapping[str, float]
    groups: Mapping[Group, float]


def absolute(signals: Mapping[str, float], task: str) -> Score:
    """On the reference scales, which are the same on every machine.

    Args:
        signals: By name; not empty.
        task: The name of the prompt's task.

    """
    return _combined({name: SIGNALS[name].badness(value) for name, value in signals.items()}, task)


def relative(signals: Mapping[str, float], task: str, seen: Mapping[str, Running]) -> Score:
    """By each signal's rank among what this machine has seen.

    Args:
        signals: By name; not empty.
        task: The name of the prompt's task.
        seen: Earlier values by signal; one that is missing has none.

    """
    ranks = {
        name: seen[name].rank(value) if name in seen else 0.5 for name, value in signals.items()
    }
    return _combined(ranks, task)


def mixed(one: Score, other: Score, share: float) -> Score:
    """So much of the other and the rest of the one; both of the same signals."""
    rest = 1.0 - share
    return Score(
        rest * one.value + share * other.value,
        {name: rest * one.shares[name] + share * other.shares[name] for name in one.shares},
        {group: rest * one.groups[group] + share * other.groups[group] for group in one.groups},
    )


def _combined(badness: Mapping[str, float], task: str) -> Score:
    squares: dict[Group, float] = {}
    weights: dict[Group, float] = {}
    parts: dict[str, float] = {}
    for name, value in badness.items():
        group, weight = GROUP_OF[name], SIGNALS[name].weight
        parts[name] = weight * value * value
        squares[group] = squares.get(group, 0.0) + parts[name]
        weights[group] = weights.get(group, 0.0) + weight
    groups = {group: math.sqrt(squares[group] / weights[group]) for group in squares}
    counted = {group: _weight(group, task) for group in groups}
    total = sum(counted.values())
    shares = {}
    for name, part in parts.items():
        group = GROUP_OF[name]
        # Of a group's value each signal gets the share that it has in the sum of squares.
        own = part / squares[group] if squares[group] else 0.0
        shares[name] = counted[group] / total * groups[group] * own
    value = sum(counted[group] * groups[group] for group in groups) / total
    return Score(min(1.0, value), shares, groups)


def _weight(group: Group, task: str) -> float:
    factor = _STYLE_FACTOR if group is Group.LIKELIHOOD and task in STYLE_TASKS else 1.0
    return WEIGHTS[group] * factor
