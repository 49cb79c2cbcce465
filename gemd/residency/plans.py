"""What a plan is made from and what it is made of: values without behaviour.

Times are monotonic seconds, sizes are bytes.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.residency.shrinking import Shrink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.errors import GemdError
    from gemd.residency.shrinking import Option


class Standing(enum.Enum):
    """What a warm model's memory may be taken for."""

    FREE = "FREE"
    """Nobody uses it or waits for it."""
    BUSY = "BUSY"
    """It answers somebody."""
    HELD_OFF = "HELD_OFF"
    """It answers nobody, and who waits for it came after somebody who needs its memory."""
    FRESH = "FRESH"
    """It is loading, or was just loaded and has not answered yet."""
    PINNED = "PINNED"
    """A user forbade its eviction."""
    STUCK = "STUCK"
    """Its worker was killed and does not end: nobody knows when its memory comes back."""
    LEAVING = "LEAVING"
    """Its memory comes back by itself."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that holds memory.

    Attributes:
        model: Its id.
        taken: What it holds, by device.
        standing: What that may be taken for.
        loss: What its going would cost: seconds of a reload times the chance that it is used again.
        reload_s: Seconds that a reload takes.
        since: When its turn began: when it was loaded.
        turn_ends: It was held off in the last plan.
        loading: It is not warm yet.
        smaller: Contexts that it could have instead of its present one.
        helper: It serves requests for others, and goes only where all others are too few.
        oldest: Rank of the first request that waits for it; infinity if none does.

    """

    model: str
    taken: Mapping[str, int]
    standing: Standing
    loss: float = 0.0
    reload_s: float = 0.0
    since: float = 0.0
    turn_ends: bool = False
    loading: bool = False
    smaller: tuple[Option, ...] = ()
    helper: bool = False
    oldest: float = math.inf


@dataclass(frozen=True, slots=True)
class Want:
    """A cold model that requests wait for.

    Attributes:
        model: Its id.
        demand: The peak that it may take, by device.
        rank: Of its first request; lower goes first.
        since: When that request arrived.
        crowded_since: Since when it waits for other programs; None if it did not in the last plan.
        asked: Since when it waits for memory: its bytes had to be found first.
        load_s: Seconds that its load takes, as far as is known.
        spare: No request waits: it gets what nobody else needs, and nobody waits or goes for it.
        smaller: What it may take with smaller contexts, by device; the largest context first.
        rung: Which size `demand` is of: 0 for the whole context.

    """

    model: str
    demand: Mapping[str, int]
    rank: float
    since: float
    load_s: float = 0.0
    asked: float = 0.0
    crowded_since: float | None = None
    spare: bool = False
    smaller: tuple[Mapping[str, int], ...] = ()
    rung: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """Load it now.

    Attributes:
        model: Its id.
        rung: Which of its contexts it gets: 0 for the whole one.

    """

    model: str
    rung: int = 0


@dataclass(frozen=True, slots=True)
class Evict:
    """Unload a model so that another one fits.

    Attributes:
        model: Who goes.
        wanted_by: For whom.
        loss: What it costs; see `Resident`.
        spared: Who could have gone as well and what that would have cost, cheapest first.

    """

    model: str
    wanted_by: str
    loss: float
    spared: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class HoldOff:
    """Give a busy model no request of a higher rank, so that its turn ends.

    Attributes:
        model: Whose turn ends.
        rank: Of the request that waits for its memory.

    """

    model: str
    rank: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """The load cannot come about; `error` says so with its numbers."""

    model: str
    error: GemdError


@dataclass(frozen=True, slots=True)
class Wait:
    """It waits for memory.

    Attributes:
        model: Who waits.
        until: When the plan would change though nothing else happens; None if never.
        crowded: It waits for other programs.

    """

    model: str
    until: float | None = None
    crowded: bool = False


Action = Start | Shrink | Evict | HoldOff | Refuse | Wait
