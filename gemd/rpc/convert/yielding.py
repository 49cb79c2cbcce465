"""Memory that is asked back: the request in, what was given out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.residency.yielding import Ask, Yielded
from gemd.rpc.convert.decisions import reason
from gemd.rpc.convert.fields import check_range, duration, invalid, model_name, seconds, timestamp
from gemd.v1 import daemon_service_pb2 as service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LONGEST_KEEP_OFF_S: Final = 7 * 24 * 3600.0


def ask(request: service.YieldRequest, devices: tuple[str, ...], *, now: float) -> Ask:
    """What is asked for, on these devices.

    Args:
        request: As it came.
        devices: Ids that its field `device` means.
        now: Monotonic second.

    Raises:
        InvalidRequestError: Fields contradict each other, or a time is out of range.

    """
    if request.resume and (
        request.HasField("size_bytes") or request.HasField("keep_off") or request.force
    ):
        raise invalid(
            "resume",
            "resume goes with no other field but device",
            why="it gives nothing back and keeps off nothing",
        )
    keep_off_s = 0.0
    if request.HasField("keep_off"):
        keep_off_s = seconds(request.keep_off, field="keep_off")
        check_range(keep_off_s, field="keep_off", least=0, most=LONGEST_KEEP_OFF_S)
    return Ask(
        devices=devices,
        size=request.size_bytes if request.HasField("size_bytes") else None,
        keep_off_until=now + keep_off_s if keep_off_s else None,
        force=request.force,
        resume=request.resume,
    )


def response(
    given: Iterable[Yielded], *, wall_of: Callable[[float], float]
) -> service.YieldResponse:
    """What was given; `wall_of` turns monotonic seconds into those since the epoch."""
    return service.YieldResponse(yielded=[_yielded(each, wall_of=wall_of) for each in given])


def _yielded(given: Yielded, *, wall_of: Callable[[float], float]) -> service.YieldedMemory:
    until = given.keep_off_until
    return service.YieldedMemory(
        device=f"devices/{given.device}",
        released_bytes=given.released,
        confirmed=given.confirmed,
        duration=duration(given.seconds),
        models=[model_name(model) for model in given.models],
        kept_bytes=given.kept,
        kept_reasons=[reason(each) for each in given.reasons],
        keep_off_until=None if until is None else timestamp(wall_of(until)),
    )
