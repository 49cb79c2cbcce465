"""Checks of single fields, and the small types that every resource uses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from google.protobuf import duration_pb2, timestamp_pb2

from gemd.errors import GemdError, InvalidRequestError, UnsupportedInputError
from gemd.v1 import error_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    Item = TypeVar("Item")

MODEL_PREFIX = "models/"
MAX_ID_CHARACTERS = 128
DEFAULT_PAGE = 100
MAX_PAGE = 1000


def model_id(name: str) -> str:
    """The id in `models/{id}` or `{id}`."""
    return name.removeprefix(MODEL_PREFIX)


def required_model_id(name: str, *, field: str = "model") -> str:
    """As `model_id`, for a field that must be set."""
    if not model_id(name):
        raise invalid(field, f"{field} must name a model", why="it is empty")
    return model_id(name)


def model_name(model: str) -> str:
    """`models/{id}`."""
    return f"{MODEL_PREFIX}{model}"


def short_text(value: str, *, field: str) -> str:
    """A name or id that a client chose; it ends up in logs and statuses."""
    if len(value) > MAX_ID_CHARACTERS or not value.isprintable():
        raise invalid(
            field,
            f"{field} must have at most {MAX_ID_CHARACTERS} printable characters, got {len(value)}",
        )
    return value


def check_range(
    value: float,
    *,
    field: str,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Raise InvalidRequestError unless above < value, least <= value and value <= most."""
    got = f"got {value:g}"
    if math.isnan(value):
        raise invalid(field, f"{field} must be a number, {got}")
    if value < least:
        raise invalid(field, f"{field} must be >= {least:g}, {got}", value=value)
    if value <= above:
        raise invalid(field, f"{field} must be > {above:g}, {got}", value=value)
    if value > most:
        raise invalid(field, f"{field} must be <= {most:g}, {got}", value=value)


def invalid(
    field: str, message: str, *, why: str = "", value: float | None = None
) -> InvalidRequestError:
    """The error for one field of a request."""
    metadata: dict[str, object] = {"field": field}
    if value is not None:
        metadata["value"] = f"{value:g}"
    return InvalidRequestError(message, why=why, metadata=metadata)


def unsupported(field: str, what: str) -> UnsupportedInputError:
    """The error for a field that the API reserves."""
    return UnsupportedInputError(
        f"{field}: {what} cannot be used in this version",
        why="the API reserves the field, no engine here can take it yet",
        metadata={"field": field},
    )


def page(items: Sequence[Item], *, page_size: int, page_token: str) -> tuple[Sequence[Item], str]:
    """One page of a list whose order does not change, and the token of the next.

    The token is the index of its first item: items that come or go between two calls may
    be left out or shown twice, none of the others is.
    """
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    if page_token and not (page_token.isascii() and page_token.isdigit()):
        raise invalid("page_token", f"page_token {page_token[:32]!r} was not given by this daemon")
    start = int(page_token or 0)
    end = start + size
    return items[start:end], str(end) if end < len(items) else ""


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a Duration."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def timestamp(wall: float) -> timestamp_pb2.Timestamp:
    """Seconds since the epoch as a Timestamp."""
    message = timestamp_pb2.Timestamp()
    message.FromNanoseconds(round(wall * 1e9))
    return message


def seconds(message: duration_pb2.Duration, *, field: str) -> float:
    """A Duration that must not be negative, in seconds."""
    value = message.seconds + message.nanos / 1e9
    check_range(value, field=field, least=0)
    return value


def error_detail(error: GemdError) -> error_pb2.ErrorDetail:
    """A failure that outlives its call."""
    return error_pb2.ErrorDetail(
        reason=error.reason,
        message=error.message,
        why=error.why,
        advice=error.advice,
        metadata=error.metadata,
    )
