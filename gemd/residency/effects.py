"""The border between deciding and doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.engine.worker import Worker
    from gemd.residency.entry import Entry
    from gemd.residency.hold import Handle
    from gemd.residency.states import Located, ResidencyEvent


class Effects(Protocol):
    """The scheduler's only way to act. No method waits."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def ring_at(self, when: float, handler: Callable[[], None]) -> Handle:
        """Send the scheduler a message at that time."""
        ...

    def publish(self, event: ResidencyEvent) -> None:
        """Tell whoever listens."""
        ...

    def look(self) -> None:
        """Have the sensors look at once; answered by `on_sample` or `on_blind`."""
        ...

    def locate(self, model: str, run: int) -> None:
        """Find the bytes; answered by `on_located`."""
        ...

    def spawn(self, model: str, run: int, located: Located) -> None:
        """Start a worker; answered by `on_born`, `on_progress`, `on_spawned`, later `on_exit`.

        If its process does not end when it is killed, `on_stuck` comes before any of those that
        tell an end, and `on_gone` when it has ended after all.
        """
        ...

    def stop(self, model: str, run: int, worker: Worker, grace_s: float) -> None:
        """Stop a worker; answered by `on_stopped`."""
        ...

    def resize(
        self, model: str, run: int, worker: Worker, tokens: int, prompt_cache_bytes: int
    ) -> None:
        """Make an idle worker's context anew; answered by `on_resized`."""
        ...

    def abandon(self, model: str, run: int) -> None:
        """Drop a locate or a spawn; its process, if any, ends. Answered by `on_stopped`."""
        ...


class SendAway(Protocol):
    """Begins or hastens the unload of an entry."""

    def __call__(self, entry: Entry, drain_s: float | None) -> None:
        """After `drain_s` seconds for what it answers; None for as long as that takes."""
        ...
