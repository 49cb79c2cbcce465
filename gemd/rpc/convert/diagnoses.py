"""The doctor's rows as messages, and the daemon's own state as the doctor looks at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.doctor import Condition, DaemonReport, Diagnosis, Result
from gemd.hardware import RAM
from gemd.v1 import daemon_service_pb2 as service
from gemd.v1 import model_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_RESULTS: Final[Mapping[Result, service.Diagnosis.Result.ValueType]] = {
    Result.OK: service.Diagnosis.RESULT_OK,
    Result.WARNING: service.Diagnosis.RESULT_WARNING,
    Result.FAILED: service.Diagnosis.RESULT_FAILED,
    Result.SKIPPED: service.Diagnosis.RESULT_SKIPPED,
}


def response(found: Iterable[Diagnosis]) -> service.DiagnoseResponse:
    """The rows."""
    return service.DiagnoseResponse(diagnoses=map(_diagnosis, found))


def _diagnosis(found: Diagnosis) -> service.Diagnosis:
    return service.Diagnosis(
        check=found.check,
        result=_RESULTS[found.result],
        detail=_text(found.detail),
        fixes=map(_text, found.fixes),
    )


def _text(found: str) -> str:
    """Names of files need not be UTF-8, and texts of messages have to."""
    return found.encode("utf-8", errors="replace").decode("utf-8")


def report(status: status_pb2.DaemonStatus) -> DaemonReport:
    """What this daemon says of itself."""
    info = status.info
    return DaemonReport(
        version=info.version,
        pid=info.pid,
        state=status_pb2.DaemonInfo.State.Name(info.state).removeprefix("STATE_"),
        uptime_s=info.uptime.seconds + info.uptime.nanos / 1e9,
        started_by=status_pb2.DaemonInfo.StartedBy.Name(info.started_by).removeprefix(
            "STARTED_BY_"
        ),
        workers={model.pid: _device(model) for model in status.models if model.pid},
        conditions=tuple(
            Condition(
                severity=status_pb2.Condition.Severity.Name(condition.severity).removeprefix(
                    "SEVERITY_"
                ),
                message=condition.message,
                advice=tuple(condition.advice),
            )
            for condition in status.conditions
            if condition.status == status_pb2.Condition.STATUS_TRUE
        ),
    )


def _device(model: model_pb2.Model) -> str:
    """Where its weights are: on the first GPU that holds some of it, or in main memory."""
    held = [part.device.removeprefix("devices/") for part in model.memory if part.booked_bytes]
    return next((device for device in held if device != RAM), RAM)
