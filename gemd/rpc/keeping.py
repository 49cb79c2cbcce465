"""What stays, and how long: models that nobody uses, their files in memory, the daemon itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import structlog

from gemd.errors import ModelNotFoundError
from gemd.residency.states import State

if TYPE_CHECKING:
    from gemd.config import Settings
    from gemd.residency.lease_book import LeaseBook
    from gemd.residency.manager import Manager
    from gemd.residency.parking import Parking
    from gemd.residency.schedule_runner import ScheduleRunner
    from gemd.rpc.library import Library
    from gemd.store import Operations

log = structlog.get_logger(__name__)


def idle_seconds(keep_warm: float | None) -> float:
    """Seconds until a model goes; infinity for never."""
    return math.inf if keep_warm is None else keep_warm


def idle_times(settings: Settings, library: Library) -> dict[str, float]:
    """By the ids of models; one that no profile describes is said in the log."""
    times = {}
    for each in settings.keep_warm_models:
        try:
            times[library.resolve(each.model).id] = idle_seconds(each.seconds)
        except ModelNotFoundError:
            log.warning("settings.unknown_model", setting="keep_warm_models", model=each.model)
    return times


def parking_for(settings: Settings, manager: Manager) -> Parking | None:
    """What keeps files of models in unused memory; None if the settings do not want that."""
    if not settings.parking:
        return None
    # Nobody else needs ctypes and a look into the page cache, and it is off by default.
    from gemd.hardware.page_cache import UnusedMemory  # noqa: PLC0415 - see above
    from gemd.residency.parking import Parking  # noqa: PLC0415 - as above

    unused = UnusedMemory().read
    return Parking(manager.residences, allowance=settings.parking, unused=unused)


def is_bound(
    operations: Operations, leases: LeaseBook, schedules: ScheduleRunner, manager: Manager
) -> bool:
    """Whether a daemon that is not used has to stay.

    There is work on files, a lease, a pinned model that is warm, or a schedule's.
    """
    if any(not item.done for item in operations.list()) or leases.list():
        return True
    if schedules.demanding or manager.keeps_off:
        # Nobody would start a daemon for a schedule; and the wish to keep off is this one's.
        return True
    return any(seen.pinned and seen.state is State.READY for seen in manager.residences().values())
