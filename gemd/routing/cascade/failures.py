"""Which failures of one model another model can make up for."""

from __future__ import annotations

from gemd.errors import (
    ContextTooLongError,
    DeadlineExpiredError,
    GemdError,
    InvalidRequestError,
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
