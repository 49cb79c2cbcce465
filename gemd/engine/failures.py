"""What is said of a worker that failed: as it started, while it answered, as it was to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd import wire
from gemd.engine.reports import tail
from gemd.errors import CancelledError, EngineCrashedError, EngineStartFailedError

if TYPE_CHECKING:
    from gemd.engine.reports import ExitReport
    from gemd.engine.spec import WorkerSpec


def unstarted(spec: WorkerSpec, error: OSError) -> EngineStartFailedError:
    """The system gives it no process."""
    return EngineStartFailedError(
        f"the worker of {spec.model} could not be started with {spec.python}",
        why=str(error),
        metadata={"model": spec.model, "python": spec.python},
    )


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


def crashed(
    spec: WorkerSpec, pid: int, report: ExitReport, *, mid_stream: bool
) -> EngineCrashedError:
    """Its process ended under a request."""
    return EngineCrashedError(
        f"the worker of {spec.model} crashed",
        mid_stream=mid_stream,
        why=report.cause,
        advice=report.advice(spec.model),
        metadata={"model": spec.model, "pid": pid, **report.metadata},
    )


def cut_off(spec: WorkerSpec) -> CancelledError:
    """It was to end, and a request needed longer than was granted."""
    return CancelledError(
        f"{spec.model} was unloaded before the answer was complete",
        why="it did not end within the grace that unloading allowed",
        metadata={"model": spec.model},
    )


def stuck(model: str, pid: int, *, mid_stream: bool = False) -> EngineCrashedError:
    """Its process outlives SIGKILL."""
    return EngineCrashedError(
        f"the worker of {model} does not end, although it was killed",
        mid_stream=mid_stream,
        why=f"the kernel or a driver holds process {pid}; until it ends it keeps its memory",
        advice=(f"ps -o pid,stat,wchan:32,args -p {pid}", "gemctl status"),
        metadata={"model": model, "pid": pid},
    )
