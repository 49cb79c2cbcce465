"""Waiting that a cancellation does not cut short."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns; it is waited for to its end, however often the caller is cancelled.

    For work whose length is bounded, and that must have happened when its caller goes on.

    Raises:
        CancelledError: The caller was cancelled meanwhile; raised once the work has ended.

    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if not task.cancelled():
                cancelled = error
        except Exception:  # noqa: BLE001 - it is raised below
            break
    if cancelled is not None:
        raise cancelled
    return task.result()
