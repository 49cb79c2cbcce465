"""When a failed call is made again: a pure decision, without a clock of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.client.errors import GemdClientError

LONGEST_DEADLINE_SECONDS = 1e9
"""More than thirty years are none: gRPC's clock overflows, and the call would end at once."""


@dataclass(frozen=True)
class RetryPolicy:
    """Bounds of the retries of one call; all times in seconds.

    Only UNAVAILABLE is ever retried, and a stream only as long as it has delivered no
    token: after that a second attempt would not be transparent to its reader.
    """

    attempts: int = 4
    """Calls in total; 1 never retries."""
    first_delay: float = 0.1
    longest_delay: float = 5.0
    """Also the longest wait that the daemon may ask for; beyond it the call fails at once."""


def next_delay(
    policy: RetryPolicy,
    error: GemdClientError,
    *,
    attempt: int,
    remaining: float | None,
    random: Callable[[], float],
) -> float | None:
    """Seconds to wait before the next attempt, or None if `error` is final.

    Args:
        policy: The bounds.
        error: What the last attempt failed with.
        attempt: Attempts made so far, from 1.
        remaining: Seconds until the call's deadline; None without one.
        random: Draws from [0, 1), so that clients that failed together come back apart.

    """
    if error.code != "UNAVAILABLE" or attempt >= policy.attempts:
        return None
    ceiling = min(policy.first_delay * 2.0 ** (attempt - 1), policy.longest_delay)
    delay = ceiling * (0.5 + random() / 2)
    if error.retry_after is not None:
        if error.retry_after > policy.longest_delay:
            return None
        # Never before the daemon's word, and spread out after it.
        delay = max(delay, error.retry_after * (1 + random() / 4))
    if remaining is not None and delay >= remaining:
        return None
    return delay


class Attempts:
    """Counts the attempts of one call against its deadline.

    Args:
        policy: The bounds.
        deadline: Seconds that all attempts may take together; None without limit.
        clock: Monotonic seconds.
        random: Draws from [0, 1).

    Raises:
        ValueError: The deadline is not a number.

    """

    def __init__(
        self,
        policy: RetryPolicy,
        deadline: float | None,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._random = random
        if deadline is not None and math.isnan(deadline):
            raise ValueError("the deadline has to be a number of seconds, or None")
        if deadline is not None and deadline > LONGEST_DEADLINE_SECONDS:
            deadline = None
        self.deadline = deadline
        """What all attempts may take together, in seconds."""
        self._ends = None if deadline is None else clock() + deadline
        self._made = 0

    def remaining(self) -> float | None:
        """Seconds until the deadline, never below 0; None without one."""
        return None if self._ends is None else max(self._ends - self._clock(), 0.0)

    def delay_after(self, error: GemdClientError, *, repeatable: bool = True) -> float:
        """Seconds to wait before the next attempt.

        Args:
            error: What the attempt failed with.
            repeatable: Whether a second attempt would still go unnoticed.

        Raises:
            GemdClientError: `error` itself, if it is final.

        """
        self._made += 1
        delay = next_delay(
            self._policy,
            error,
            attempt=self._made,
            remaining=self.remaining(),
            random=self._random,
        )
        if delay is None or not repeatable:
            raise error
        return delay
