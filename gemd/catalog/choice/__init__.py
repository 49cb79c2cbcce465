"""Which weights suit a machine, where they lie, how fast they are, and why. Pure.

`choose` takes a machine, the memory that models may have of it, every variant of the catalogue and
a user's wishes, and returns a `Plan`. Nothing here reads a file or a sensor.
"""

from __future__ import annotations

from gemd.catalog.choice.choose import Question, choose, strong_of
from gemd.catalog.choice.engine_sized import EngineSized, Told
from gemd.catalog.choice.pools import Limits, Memory, Pool, memory_of
from gemd.catalog.choice.sizes import DiffusionSized, GgufSized, expert_share, profile_sized
from gemd.catalog.choice.values import (
    DEFAULT_FAST_CONTEXT,
    Candidate,
    Engines,
    Placed,
    Plan,
    PlannedDevice,
    PlannedModel,
    Reads,
    Reason,
    Sized,
    Speed,
    Verdict,
    Where,
    Wishes,
)

__all__ = [
    "DEFAULT_FAST_CONTEXT",
    "Candidate",
    "DiffusionSized",
    "EngineSized",
    "Engines",
    "GgufSized",
    "Limits",
    "Memory",
    "Placed",
    "Plan",
    "PlannedDevice",
    "PlannedModel",
    "Pool",
    "Question",
    "Reads",
    "Reason",
    "Sized",
    "Speed",
    "Told",
    "Verdict",
    "Where",
    "Wishes",
    "choose",
    "expert_share",
    "memory_of",
    "profile_sized",
    "strong_of",
]
