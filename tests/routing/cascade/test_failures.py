"""Which failures another model makes up for, and which a model is to blame for."""

from __future__ import annotations

import pytest

from gemd import errors
from gemd.routing.cascade.failures import another_may, broke_down

GONE = (errors.DeadlineExpiredError, errors.ShuttingDownError, errors.InvalidRequestError)
EXCUSED = (
    errors.UnsupportedInputError,
    errors.ContextTooLongError,
    errors.QueueFullError,
    errors.CancelledError,
)
BROKEN = (
    errors.EngineCrashedError,
    errors.EngineStartFailedError,
    errors.ModelQuarantinedError,
    errors.ModelTooLargeError,
    errors.ModelNotFoundError,
    errors.UnexpectedError,
)


@pytest.mark.parametrize("kind", GONE)
def test_a_request_that_nobody_can_answer(kind: type[errors.GemdError]) -> None:
    """Too late, or wrong in itself."""
    assert not another_may(kind("x"))
    assert not broke_down(kind("x"))


@pytest.mark.parametrize("kind", EXCUSED)
def test_a_request_that_this_model_cannot_answer(kind: type[errors.GemdError]) -> None:
    """It answers the next one as ever."""
    assert another_may(kind("x"))
    assert not broke_down(kind("x"))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_breaks_down(kind: type[errors.GemdError]) -> None:
    """It would fail the next request as well."""
    assert another_may(kind("x"))
    assert broke_down(kind("x"))
