"""How crashes are answered: rest, and quarantine. Pure; times are monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass


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
