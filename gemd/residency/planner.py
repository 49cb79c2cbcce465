"""The decisions of residency as functions from values to values.

Nothing here reads a clock, a sensor or a process; `gemd.residency.manager` does, and
asks these functions what to do. Times are monotonic seconds, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.errors import BudgetExceededError, GemdError, ModelTooLargeError

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_AFTER_S = 5.0
"""What a client is told to wait before it asks for memory again."""


@dataclass(frozen=True, slots=True)
class Admit:
    """The load may start; `reserved_bytes` is booked for it from now on."""

    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The load must not start; `error` says so with its numbers."""

    error: GemdError


def admit(
    *,
    model: str,
    estimate_bytes: int,
    budget_bytes: int,
    booked_bytes: Mapping[str, int],
    idle: frozenset[str] = frozenset(),
) -> Admit | Refuse:
    """Whether a model may be loaded beside those that are booked.

    Args:
        model: The model that asks.
        estimate_bytes: The peak it is expected to take.
        budget_bytes: The most that all models together may hold.
        booked_bytes: What every other model holds: measured if it is warm, reserved if
            it is loading or has not confirmed its release.
        idle: Those of `booked_bytes` that nobody uses; the advice names them.

    """
    numbers = {
        "model": model,
        "needed_bytes": estimate_bytes,
        "budget_bytes": budget_bytes,
    }
    if estimate_bytes > budget_bytes:
        return Refuse(
            ModelTooLargeError(
                f"{model} needs {_size(estimate_bytes)}, the budget is {_size(budget_bytes)}",
                why="it cannot fit even with no other model loaded",
                advice=(
                    f"GEMD_RAM_BUDGET={_gib_ceiling(estimate_bytes)} gemd",
                    "gemctl list",
                ),
                metadata=numbers,
            )
        )
    ours = sum(booked_bytes.values())
    free = budget_bytes - ours
    if estimate_bytes <= free:
        return Admit(estimate_bytes)
    largest_first = sorted(idle & booked_bytes.keys(), key=lambda name: -booked_bytes[name])
    return Refuse(
        BudgetExceededError(
            f"{model} needs {_size(estimate_bytes)}, {_size(max(free, 0))} of the "
            f"{_size(budget_bytes)} budget are left",
            why=f"{_listed(sorted(booked_bytes))} hold {_size(ours)}",
            advice=tuple(f"gemctl unload {name}" for name in largest_first),
            metadata=numbers | {"ours_bytes": ours, "free_bytes": max(free, 0)},
            retry_after=RETRY_AFTER_S,
        )
    )


@dataclass(frozen=True, slots=True)
class CrashPolicy:
    """How often a model may crash, and how long it rests after it did.

    Attributes:
        limit: This many crashes within `window_s` put the model into quarantine.
        window_s: Crashes older than this are forgotten.
        first_delay_s: Rest after the first crash in the window; it doubles with each.
        max_delay_s: The longest rest.

    """

    limit: int = 3
    window_s: float = 600.0
    first_delay_s: float = 1.0
    max_delay_s: float = 60.0


def recent(crashes: tuple[float, ...], *, now: float, policy: CrashPolicy) -> tuple[float, ...]:
    """The crashes that still count, oldest first."""
    return tuple(when for when in crashes if now - when < policy.window_s)


def is_quarantined(crashes: tuple[float, ...], *, now: float, policy: CrashPolicy) -> bool:
    """Whether a model with these crashes has to wait for a user's word."""
    return len(recent(crashes, now=now, policy=policy)) >= policy.limit


def retry_time(crashes: tuple[float, ...], *, now: float, policy: CrashPolicy) -> float:
    """When the model may start again; `now` if it may at once."""
    counted = recent(crashes, now=now, policy=policy)
    if not counted:
        return now
    # An exponent beyond this is the ceiling anyway, and overflows a float.
    doublings = min(len(counted) - 1, 63)
    delay = min(policy.first_delay_s * 2.0**doublings, policy.max_delay_s)
    return max(now, counted[-1] + delay)


def idle_unload_time(*, last_used: float, keep_warm_s: float, pinned: bool) -> float | None:
    """When an unused warm model is unloaded; None if it stays."""
    if pinned or keep_warm_s == float("inf"):
        return None
    return last_used + keep_warm_s


def _size(count: int) -> str:
    gib = count / 2**30
    return f"{gib:.2f} GiB" if gib >= 1 else f"{count / 2**20:.0f} MiB"


def _gib_ceiling(count: int) -> str:
    return f"{-(-count // 2**30)}GiB"


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "other models"
