"""What is said of a worker that did not come to be ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd import wire
from gemd.engine.reports import tail
from gemd.errors import EngineStartFailedError

if TYPE_CHECKING:
    from gemd.engine.reports import ExitReport
    from gemd.engine.spec import WorkerSpec


def foreign(spec: WorkerSpec, hello: wire.Hello) -> EngineStartFailedError:
    """It speaks another protocol."""
    return EngineStartFailedError(
        f"the worker of {spec.model} speaks protocol {hello.protocol}, this daemon {wire.PROTOCOL}",
        why=f"{spec.python} has another version of gemd",
        metadata={
            "model": spec.model,
            "worker_protocol": hello.protocol,
            "daemon_protocol": wire.PROTOCOL,
            "python": spec.python,
        },
    )


def stalled(spec: WorkerSpec, phase: str, lines: tuple[str, ...]) -> EngineStartFailedError:
    """It gave no sign of life; `lines` are the last that it printed."""
    seconds = spec.stall_timeout_s
    return EngineStartFailedError(
        f"the worker of {spec.model} gave no sign of life for {seconds:g} s while loading",
        why=f"it hung in the phase {phase!r}",
        advice=(f"GEMD_LOAD_STALL_TIMEOUT={seconds * 4:g}s gemd",),
        metadata={
            "model": spec.model,
            "phase": phase,
            "stall_timeout_seconds": f"{seconds:g}",
            "stderr": tail(lines),
        },
    )


def died(spec: WorkerSpec, phase: str, report: ExitReport) -> EngineStartFailedError:
    """Its process ended."""
    return EngineStartFailedError(
        f"the worker of {spec.model} ended while loading (phase {phase!r})",
        why=report.cause,
        metadata={"model": spec.model, "phase": phase, **report.metadata},
    )
