"""Which failures of one model another can make up for, and which it is to blame for."""

from __future__ import annotations

from gemd.errors import (
    CancelledError,
    ContextTooLongError,
    DeadlineExpiredError,
    GemdError,
    InvalidRequestError,
    QueueFullError,
    ShuttingDownError,
    UnsupportedInputError,
)


def another_may(error: GemdError) -> bool:
    """Whether another model may do better.

    Not where time is up, the daemon ends, or the request itself is wrong; but what one engine
    does not support or one context does not hold, another may.
    """
    if isinstance(error, DeadlineExpiredError | ShuttingDownError):
        return False
    if isinstance(error, UnsupportedInputError | ContextTooLongError):
        return True
    return not isinstance(error, InvalidRequestError)


def broke_down(error: GemdError) -> bool:
    """Whether the model itself has failed, and would fail the next request as well.

    Not where it does not support or hold this one request, is only busy, or was unloaded by hand.
    """
    excused = InvalidRequestError | QueueFullError | CancelledError
    return another_may(error) and not isinstance(error, excused)
