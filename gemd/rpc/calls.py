"""What servicers read of the call itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


def time_remaining(context: Context) -> float | None:
    """Seconds until the call's deadline; None if it has none (the type stubs forget that)."""
    remaining = cast("float | None", context.time_remaining())
    return None if remaining is None else max(0.0, remaining)
