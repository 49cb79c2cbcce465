"""What is learnt with one pair of models: loaded only where something is drafted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.routing.risk import Judge, Key, Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.routing.risk import KeptStates
    from gemd.routing.route import Pair


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learnt with one pair of models.

    Attributes:
        judge: Of its drafts.
        memory: Of those that were shipped, for what is said of them later.

    """

    judge: Judge
    memory: Memory = field(default_factory=Memory)


def key_of(pair: Pair, identity: Callable[[str], str]) -> Key:
    """What makes things learnt with a pair worthless when it changes.

    Args:
        pair: The models.
        identity: Of a model by its id.

    """
    names = [each.id if each is not None else "" for each in (pair.fast, pair.checker)]
    drafter, checker = (f"{name} {identity(name)}" if name else "" for name in names)
    return Key(drafter=drafter, checker=checker)


def lesson_of(key: Key, states: KeptStates | None, *, budget: float, harm: float) -> Lesson:
    """The lesson of a pair, with what earlier runs have learnt. Reads a file."""
    state = None if states is None else states.load(key)
    return Lesson(Judge(budget=budget, harm=harm, state=state))
