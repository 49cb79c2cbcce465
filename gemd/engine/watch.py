"""Whether a worker that has work still lives: signs of life are counted, not trusted to a clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOKS: Final = 4
"""So many of its periods are in a patience, which is over at the first look after the last of them.
They are counted and not timed: after a pause of the daemon itself what the worker said meanwhile
is read first."""
_ASKS_AT: Final = 2
"""The look at which a worker is asked for a sign."""


class Watch:
    """Tells when a worker that has work gives no sign of life any more.

    Every message is one. The engine's own thread answers a ping after each of its steps, so
    that a prompt of any length is no silence; a step that takes longer than `patience_s` is.

    Args:
        patience_s: Of silence.
        is_busy: Whether there is work.
        ask: Asks for a sign of life.
        stalled: Told once that there was none.

    """

    def __init__(
        self,
        *,
        patience_s: float,
        is_busy: Callable[[], bool],
        ask: Callable[[], None],
        stalled: Callable[[], None],
    ) -> None:
        self._period_s = patience_s / _LOOKS
        self._is_busy = is_busy
        self._ask = ask
        self._stalled = stalled
        self._silent = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Work was given; without effect while it watches already."""
        if self._timer is None:
            self._silent = 0
            self._arm()

    def heard(self) -> None:
        """A sign of life."""
        self._silent = 0

    def end(self) -> None:
        """There is nothing to watch any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._is_busy():
            return
        self._silent += 1
        if self._silent > _LOOKS:
            self._stalled()
            return
        if self._silent == _ASKS_AT:
            self._ask()
        self._arm()
