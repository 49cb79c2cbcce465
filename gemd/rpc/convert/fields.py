"""Checks of single fields, and the small types that every resource uses."""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING

from google.protobuf import duration_pb2, timestamp_pb2

from gemd.errors import GemdError, InvalidRequestError, UnsupportedInputError
from gemd.v1 import error_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import TypeVar

    Item = TypeVar("Item")

MODEL_PREFIX = "models/"
MAX_ID_CHARACTERS = 128
MAX_MODEL_BYTES = 4096
"""Of a model's name; the longest path that Linux takes."""
DEFAULT_PAGE = 100
MAX_PAGE = 1000


def model_id(name: str, *, field: str = "model") -> str:
    """The id in `models/{id}` or `{id}`, or the path of a file; empty if the field is unset."""
    identity = name.removeprefix(MODEL_PREFIX)
    size = len(identity.encode())
    if size > MAX_MODEL_BYTES:
        # Before anything compares it with the names it knows: that takes long for a long one.
        raise invalid(
            field,
            f"{field} may have {MAX_MODEL_BYTES} bytes, got {size}",
            size_bytes=size,
            limit_bytes=MAX_MODEL_BYTES,
        )
    if "\0" in identity:
        raise invalid(field, f"{field} holds a NUL character", why="no id and no path has one")
    return identity


def required_model_id(name: str, *, field: str = "model") -> str:
    """As `model_id`, for a field that must be set."""
    identity = model_id(name, field=field)
    if not identity:
        raise invalid(field, f"{field} must name a model", why="it is empty")
    return identity


def model_name(model: str) -> str:
    """`models/{id}`."""
    return f"{MODEL_PREFIX}{model}"


def short_text(value: str, *, field: str) -> str:
    """A name or id that a client chose; it ends up in logs and statuses."""
    if len(value) > MAX_ID_CHARACTERS or not value.isprintable():
        raise invalid(
            field,
            f"{field} must have at most {MAX_ID_CHARACTERS} printable characters, got {len(value)}",
            characters=len(value),
            limit_characters=MAX_ID_CHARACTERS,
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
    # Nothing is worded before something is wrong: this runs several times per request, ahead
    # of its first token. (A NaN fails every comparison.)
    if least <= value <= most and value > above:
        return
    got = f"got {_plain(value)}"
    if math.isnan(value):
        raise invalid(field, f"{field} must be a number, {got}", value=value)
    if value < least:
        raise invalid(field, f"{field} must be >= {_plain(least)}, {got}", value=value, least=least)
    if value <= above:
        raise invalid(field, f"{field} must be > {_plain(above)}, {got}", value=value, above=above)
    raise invalid(field, f"{field} must be <= {_plain(most)}, {got}", value=value, most=most)


def check_known(number: int, known: Collection[int], *, field: str) -> None:
    """Raise InvalidRequestError for a number that this version's enumeration does not have."""
    if number not in known:
        raise invalid(field, f"{field} {number} is not known to this daemon", value=number)


def invalid(field: str, message: str, *, why: str = "", **numbers: float) -> InvalidRequestError:
    """The error for one field of a request, with the numbers of its message."""
    metadata = {name: _plain(number) for name, number in numbers.items()}
    return InvalidRequestError(message, why=why, metadata={"field": field, **metadata})


def _plain(number: float) -> str:
    # A float32 of the wire is a long decimal here; a whole number loses no digit.
    return str(number) if isinstance(number, int) else f"{number:g}"


def unsupported(field: str, what: str) -> UnsupportedInputError:
    """The error for a field that the API reserves."""
    return UnsupportedInputError(
        f"{field}: {what} cannot be used in this version",
        why="the API reserves the field, no engine here can take it yet",
        metadata={"field": field},
    )


def page(
    items: Sequence[Item],
    *,
    key: Callable[[Item], tuple[float | str, ...]],
    page_size: int,
    page_token: str,
) -> tuple[Sequence[Item], str]:
    """One page of a list, and the token of the next; empty if there is none.

    Args:
        items: In ascending order of their keys.
        key: Unlike for any two items, and the same in every call. The token names the key of
            the last item shown, so what comes or goes between two calls moves nothing else.
        page_size: The most items; 0 for 100, more than 1000 is taken as 1000.
        page_token: Of the page before; empty for the first.

    Raises:
        InvalidRequestError: The token is none.

    """
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    rest = items
    if page_token:
        after = _token_key(page_token)
        try:
            rest = [item for item in items if key(item) > after]
        except TypeError:
            raise _no_token(page_token) from None
    shown = rest[:size]
    if len(shown) == len(rest):
        return shown, ""
    text = json.dumps(key(shown[-1]))
    return shown, base64.urlsafe_b64encode(text.encode()).decode()


def _token_key(token: str) -> tuple[float | str, ...]:
    try:
        found = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        raise _no_token(token) from None
    if not isinstance(found, list):
        raise _no_token(token)
    return tuple(found)


def _no_token(token: str) -> InvalidRequestError:
    return invalid("page_token", f"page_token {token[:32]!r} was not given by this daemon")


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
