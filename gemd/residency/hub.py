"""Numbered events for any number of readers, none of which can slow the writer down."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from gemd.errors import EventsLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from gemd.errors import GemdError

Payload = TypeVar("Payload")


@dataclass(frozen=True, slots=True)
class Numbered(Generic[Payload]):
    """One event: its number within this run, its wall-clock second, and what happened."""

    sequence: int
    time: float
    payload: Payload


class Hub(Generic[Payload]):
    """Publishes events to subscribers.

    Args:
        wall: Gives the wall-clock time in seconds since the epoch.
        limit: Events a reader may lag behind, and events kept for those who resume.

    """

    def __init__(self, *, wall: Callable[[], float], limit: int = 1024) -> None:
        self._wall = wall
        self._limit = limit
        self._kept: deque[Numbered[Payload]] = deque(maxlen=limit)
        self._subscribers: set[Subscription[Payload]] = set()
        self._end: GemdError | None = None
        self.sequence = 0

    def publish(self, payload: Payload) -> None:
        """Number an event and hand it to every subscriber. Never waits."""
        self.sequence += 1
        event = Numbered(self.sequence, self._wall(), payload)
        self._kept.append(event)
        for subscriber in self._subscribers:
            subscriber.offer(event)

    def end(self, error: GemdError) -> None:
        """Every reader gets this error after what it has not read yet; later ones too."""
        self._end = error
        for subscriber in self._subscribers:
            subscriber.end(error)

    def subscribe(self, *, since: int | None = None) -> Subscription[Payload]:
        """A reader of everything after event `since`, or from now on if None.

        Raises:
            EventsLostError: Some event after `since` is no longer kept, or `since` lies
                in the future.

        """
        missed: list[Numbered[Payload]] = []
        if since is not None:
            oldest = self._kept[0].sequence if self._kept else self.sequence + 1
            if not oldest - 1 <= since <= self.sequence:
                raise _lost(
                    f"event {since} is not among those kept",
                    why=f"events {oldest} to {self.sequence} are",
                    since=since,
                )
            missed = [event for event in self._kept if event.sequence > since]
        made = Subscription(self._subscribers, limit=self._limit, missed=missed)
        if self._end is not None:
            made.end(self._end)
        return made


class Subscription(Generic[Payload]):
    """One reader's events: an async iterator, and a context manager that ends it."""

    def __init__(
        self,
        registry: set[Subscription[Payload]],
        *,
        limit: int,
        missed: list[Numbered[Payload]],
    ) -> None:
        self._registry = registry
        self._limit = limit
        self._queue = deque(missed)
        self._arrived = asyncio.Event()
        self._overflowed = False
        self._end: GemdError | None = None

    def __enter__(self) -> Self:
        self._registry.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._registry.discard(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Numbered[Payload]:
        """The next event, oldest first.

        Raises:
            EventsLostError: This reader lagged behind by more than the limit.
            GemdError: The one given to `Hub.end`.

        """
        while not self._queue:
            if self._overflowed:
                raise _lost(
                    f"this reader fell more than {self._limit} events behind",
                    why="the daemon does not wait for readers",
                    limit=self._limit,
                )
            if self._end is not None:
                # A copy: several readers raise it, and each raise hangs its frames on the object.
                raise copy.copy(self._end)
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()

    def end(self, error: GemdError) -> None:
        """Raise the error once everything is read."""
        self._end = error
        self._arrived.set()

    def offer(self, event: Numbered[Payload]) -> None:
        """Queue an event; past the limit, queue nothing ever again."""
        if self._overflowed:
            return
        if len(self._queue) >= self._limit:
            # The gap starts here: later events without this one would be a false history.
            self._overflowed = True
            return
        self._queue.append(event)
        self._arrived.set()


def _lost(message: str, *, why: str, **numbers: int) -> EventsLostError:
    return EventsLostError(
        message, why=why, advice=("ask for the initial state again",), metadata=numbers
    )
