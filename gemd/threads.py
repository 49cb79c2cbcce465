"""What a blocking call in another thread returns or raises, as a future of the event loop."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")


def delivering(work: Callable[[], T], future: asyncio.Future[T]) -> Callable[[], None]:
    """The work for a thread; what comes of it goes to the future, unless that is done by then."""
    loop = future.get_loop()

    def settle(deliver: Callable[[Any], None], value: object) -> None:
        if not future.done():
            deliver(value)

    def run() -> None:
        deliver: Callable[[Any], None]
        value: object
        try:
            deliver, value = future.set_result, work()
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller
            deliver, value = future.set_exception, error
        # A loop that is closed has nobody left who wants to know.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, deliver, value)

    return run
