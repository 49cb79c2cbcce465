"""Every figure that is told: its name, what it means, and its labels. Pure.

Names are Prometheus': base units, and counters end with ``_total``. Values of labels are few and
never a client's to choose: `Family.closed` says which there are where a list can.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.errors import GemdError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOCAL: Final = "local"
"""The model of every file and folder that is named by its path."""
NONE: Final = "none"
"""No model: the request failed before one was chosen."""
OTHER: Final = "OTHER"
"""A reason, method or the like that is in no list here."""


class Kind(enum.Enum):
    """What a figure is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Family:
    """Figures of one name.

    Attributes:
        name: In full.
        kind: What they are.
        meaning: In one sentence, without a full stop at its end.
        labels: Their names, in order.
        buckets: Upper bounds of a histogram's, without infinity.

    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METHODS: Final = frozenset({"Generate", "Embed", "Score"})
"""The RPCs that models work for."""
OUTCOMES: Final = frozenset({"finished", "failed", "cancelled"})
CAUSES: Final = frozenset(
    {
        "ASKED",
        "CHEAPEST",
        "CRITICAL_PRESSURE",
        "ENOUGH",
        "OVER_BUDGET",
        "PRESSURE",
        "TURN_OVER",
    }
)
"""Why models give memory back; see `gemd.residency.records`."""

_WAIT: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LONG: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)

FAMILIES: Final = (
    Family("gemd_build_info", Kind.INFO, "The program that runs", ("version", "python")),
    Family("gemd_start_time_seconds", Kind.GAUGE, "When it started, in seconds since the epoch"),
    Family("gemd_uptime_seconds", Kind.GAUGE, "How long it has been running"),
    # Requests.
    Family(
        "gemd_requests_total",
        Kind.COUNTER,
        "Requests that are over, by the model that answered or would have",
        ("model", "method", "outcome"),
    ),
    Family(
        "gemd_request_failures_total",
        Kind.COUNTER,
        "Requests that failed, by the reason of the error",
        ("method", "reason"),
    ),
    Family(
        "gemd_requests_in_progress",
        Kind.GAUGE,
        "Requests under way: queued, waiting for a load, running",
        ("state",),
    ),
    Family(
        "gemd_request_queue_seconds",
        Kind.HISTOGRAM,
        "How long answered requests waited for others",
        ("model",),
        _WAIT,
    ),
    Family(
        "gemd_request_load_seconds",
        Kind.HISTOGRAM,
        "How long answered requests waited for loads; those that found all warm are not counted",
        ("model",),
        _LONG,
    ),
    Family(
        "gemd_request_time_to_first_token_seconds",
        Kind.HISTOGRAM,
        "From the arrival of a generation to the first text of its answer",
        ("model",),
        _WAIT,
    ),
    Family(
        "gemd_request_duration_seconds",
        Kind.HISTOGRAM,
        "From the arrival of answered requests to their end",
        ("model", "method"),
        _LONG,
    ),
    Family("gemd_prompt_tokens_total", Kind.COUNTER, "Tokens of prompts", ("model",)),
    Family(
        "gemd_cached_tokens_total",
        Kind.COUNTER,
        "Tokens of prompts that were still in a cache",
        ("model",),
    ),
    Family("gemd_completion_tokens_total", Kind.COUNTER, "Tokens written", ("model",)),
    Family(
        "gemd_routes_total",
        Kind.COUNTER,
        "Generations by the way they took: kept, continued and replaced drafts, and none",
        ("strategy", "tier", "resolution"),
    ),
    # Models.
    Family(
        "gemd_model_state",
        Kind.GAUGE,
        "Models that are in a state: 1 for the one it is in",
        ("model", "state"),
    ),
    Family(
        "gemd_model_memory_bytes",
        Kind.GAUGE,
        "Memory that a model's process holds",
        ("model", "device"),
    ),
    Family(
        "gemd_model_booked_bytes",
        Kind.GAUGE,
        "Memory that is booked for a model",
        ("model", "device"),
    ),
    Family("gemd_model_loads_total", Kind.COUNTER, "Loads that succeeded", ("model",)),
    Family(
        "gemd_model_load_seconds",
        Kind.HISTOGRAM,
        "How long loads took that succeeded",
        ("model",),
        _LONG,
    ),
    Family("gemd_model_crashes_total", Kind.COUNTER, "Crashes of its process", ("model",)),
    Family(
        "gemd_evictions_total",
        Kind.COUNTER,
        "Models unloaded to make room for others",
        ("model", "reason"),
    ),
    Family(
        "gemd_memory_reductions_total",
        Kind.COUNTER,
        "Contexts made smaller to make room for other models",
        ("model", "reason"),
    ),
    Family(
        "gemd_yields_total",
        Kind.COUNTER,
        "Times that a model gave memory back to other programs, whole or in part",
        ("model", "reason"),
    ),
    Family(
        "gemd_load_refusals_total",
        Kind.COUNTER,
        "Loads that could not be, by the reason of the error",
        ("model", "reason"),
    ),
    # Devices.
    Family("gemd_device_capacity_bytes", Kind.GAUGE, "Memory that a device has", ("device",)),
    Family(
        "gemd_device_budget_bytes", Kind.GAUGE, "The most that models may take of it", ("device",)
    ),
    Family(
        "gemd_device_margin_bytes",
        Kind.GAUGE,
        "What has to stay free for other programs",
        ("device",),
    ),
    Family("gemd_device_ours_bytes", Kind.GAUGE, "What models hold of it", ("device",)),
    Family(
        "gemd_device_reserved_bytes", Kind.GAUGE, "What is promised to models beyond", ("device",)
    ),
    Family("gemd_device_others_bytes", Kind.GAUGE, "What other programs hold of it", ("device",)),
    Family("gemd_device_unknown_bytes", Kind.GAUGE, "In use by nobody knows whom", ("device",)),
    Family("gemd_device_free_bytes", Kind.GAUGE, "What can be taken now", ("device",)),
    Family("gemd_device_power_watts", Kind.GAUGE, "What it draws", ("device",)),
    Family(
        "gemd_device_utilization_ratio",
        Kind.GAUGE,
        "Share of time that it was busy lately, from 0 to 1",
        ("device",),
    ),
    # Files.
    Family("gemd_operations_running", Kind.GAUGE, "Work on files under way", ("kind",)),
    Family(
        "gemd_operations_total",
        Kind.COUNTER,
        "Work on files that has ended since the start",
        ("kind", "outcome"),
    ),
    Family("gemd_disk_owned_bytes", Kind.GAUGE, "What gemd's own files of models take"),
    Family("gemd_disk_shared_bytes", Kind.GAUGE, "What models take that others share or own"),
    Family(
        "gemd_disk_quota_bytes", Kind.GAUGE, "The most that the own files may take; 0: no limit"
    ),
    Family("gemd_disk_free_bytes", Kind.GAUGE, "What is free where they are"),
    # Energy.
    Family(
        "gemd_energy_joules_total",
        Kind.COUNTER,
        "What whole devices used while their counters were read, idle or not",
        ("source",),
    ),
    Family(
        "gemd_request_energy_joules_total",
        Kind.COUNTER,
        "Of it, the shares of requests while models worked on them",
        ("model", "source"),
    ),
)
"""In the order in which they are told."""

BY_NAME: Final[Mapping[str, Family]] = {family.name: family for family in FAMILIES}


def error_reasons() -> frozenset[str]:
    """The reasons of all errors that there are."""
    return frozenset(_reasons(GemdError))


def _reasons(kind: type[GemdError]) -> Iterator[str]:
    yield kind.reason
    for special in kind.__subclasses__():
        yield from _reasons(special)


def listed(value: str, among: frozenset[str]) -> str:
    """The value of a label, if it is in the list; `OTHER` if not."""
    return value if value in among else OTHER
