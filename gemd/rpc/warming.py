"""Both tiers warm while requests are shared between them, where memory allows.

Each request by itself goes to the tier that is warm: no single one is worth a load. Without this
the other tier would never be loaded again once it is cold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.residency.wishes import Wish

if TYPE_CHECKING:
    from gemd.residency.hold import Clock, Handle
    from gemd.residency.manager import Manager
    from gemd.routing.route import Pair

SOURCE: Final = "tiers"
FOR_S: Final = 60.0
"""How long a request makes both be wished warm: long enough for a load to begin, and short enough
for a model that was unloaded for being idle to stay so."""


class Warming:
    """Wishes for the models of the pair.

    A wish loads what there is free memory for; nobody is unloaded for it.

    Args:
        manager: Heeds wishes.
        clock: Sets the alarm that ends them.

    """

    def __init__(self, manager: Manager, clock: Clock) -> None:
        self._manager = manager
        self._clock = clock
        self._wished: frozenset[str] = frozenset()
        self._until = 0.0
        self._alarm: Handle | None = None

    def used(self, pair: Pair) -> None:
        """A request was weighed between these two."""
        models = frozenset(each.id for each in (pair.fast, pair.strong) if each is not None)
        self._until = self._clock.time() + FOR_S
        if models != self._wished:
            self._wished = models
            self._manager.wish(SOURCE, {model: Wish(warm=True) for model in models})
        if self._alarm is None:
            self._alarm = self._clock.call_at(self._until, self._look)

    def stop(self) -> None:
        """Wish nothing more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._end()

    def _look(self) -> None:
        if self._clock.time() < self._until:
            self._alarm = self._clock.call_at(self._until, self._look)
        else:
            self._end()

    def _end(self) -> None:
        self._alarm = None
        self._wished = frozenset()
        self._manager.wish(SOURCE, {})
