"""When the daemon was last used, for its idle exit.

Use is any call but those that only look: somebody who leaves `gemctl status --watch`
open, or a monitor that asks for health, must not keep a forgotten daemon alive. A pull
is use for as long as it runs, whether or not somebody watches it; the daemon asks the
operations about that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOKS = frozenset(
    {
        "Check",
        "Explain",
        "GetInfo",
        "GetModel",
        "GetOperation",
        "GetStatus",
        "List",
        "ListDevices",
        "ListLeases",
        "ListModels",
        "ListOperations",
        "Plan",
        "ServerReflectionInfo",
        "Watch",
        "WatchEvents",
        "WatchOperation",
    }
)


def is_use(method: str) -> bool:
    """Whether a call of this method (`/package.Service/Method`) counts as use."""
    return method.rpartition("/")[2] not in _LOOKS


class Activity:
    """Counts the calls that are use.

    Args:
        now: Gives monotonic seconds.

    """

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._running = 0
        self._last = now()

    def begin(self, method: str) -> None:
        """A call begins; `end` has to follow."""
        if is_use(method):
            self._running += 1

    def end(self, method: str) -> None:
        """A call that began has ended."""
        if is_use(method):
            self._running -= 1
            self._last = self._now()

    def last_use(self) -> float:
        """When the last use ended; now if one is under way."""
        return self._now() if self._running else self._last
