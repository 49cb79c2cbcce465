"""The one alarm on the clock of the wall, and what that clock shows here. Costs 5 MB of memory.

Nobody without schedules imports it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfoNotFoundError

import structlog
import tzlocal
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)


class WallAlarm:
    """Rings once at a time of day, in the running event loop; late rather than not at all."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.start()

    def set(self, when: datetime, callback: Callable[[], None]) -> None:
        """Ring at that moment instead of any set before; at once if it has passed."""
        self._scheduler.add_job(
            _ring,
            DateTrigger(when),
            args=(callback,),
            id="alarm",
            replace_existing=True,
            coalesce=True,
            misfire_grace_time=None,
            # It is set anew while it rings.
            max_instances=2,
        )

    def stop(self) -> None:
        """Never ring again."""
        self._scheduler.shutdown(wait=False)


async def _ring(callback: Callable[[], None]) -> None:
    # A coroutine, because APScheduler runs plain functions in threads.
    callback()


def local_now() -> datetime:
    """Now, in the time zone of this machine, which is read anew: laptops travel."""
    try:
        return datetime.now(tzlocal.reload_localzone())
    except (OSError, ValueError, ZoneInfoNotFoundError) as error:
        log.warning("schedules.time_zone_unknown", error=str(error))
        # Right until the next change of daylight saving; the schedules look again every hour.
        return datetime.now().astimezone()
