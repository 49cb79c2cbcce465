"""What clients are told when the manager says no, or when a worker ended by itself."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from gemd.errors import (
    BudgetExceededError,
    CancelledError,
    DeadlineExpiredError,
    EngineCrashedError,
    ModelBusyError,
    ModelForbiddenError,
    ModelQuarantinedError,
    ModelTooLargeError,
    QueueFullError,
    ShuttingDownError,
)
from gemd.hardware import RAM
from gemd.residency.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.engine.reports import ExitReport
    from gemd.residency.crashes import CrashPolicy
    from gemd.residency.entry import Entry
    from gemd.residency.hold import Ticket

RETRY_AFTER_S = 1.0
MEMORY_RETRY_AFTER_S = 5.0
"""What a client is told to wait before it asks for memory again."""
STDERR_TAIL_CHARACTERS = 1000
"""Of a crashed worker's last words, so that error details stay small."""


def queue_full(entry: Entry, *, limit: int) -> QueueFullError:
    """The waiting line of a model is as long as it may be."""
    return QueueFullError(
        f"{limit} requests wait for {entry.model} already",
        why=f"its worker answers {len(entry.held)} at once",
        advice=("gemctl status",),
        metadata={
            "model": entry.model,
            "queued": limit,
            "limit": limit,
            "active": len(entry.held),
        },
        retry_after=RETRY_AFTER_S,
    )


def expired(ticket: Ticket, *, now: float) -> DeadlineExpiredError:
    """A request's time was over before its turn came."""
    waited = now - ticket.arrived
    return DeadlineExpiredError(
        f"the deadline passed after {waited:.1f} s of waiting for {ticket.model}",
        metadata={"model": ticket.model, "waited_seconds": f"{waited:.3f}"},
    )


def unloaded(entry: Entry) -> CancelledError:
    """Somebody unloaded a model whose load others waited for."""
    return CancelledError(
        f"{entry.model} was unloaded while it was loading",
        advice=(f"gemctl load {entry.model}",),
        metadata={"model": entry.model},
    )


_DOING = {
    State.LOADING: "is being loaded",
    State.READY: "is loaded",
    State.DRAINING: "is being unloaded",
    State.UNLOADING: "is being unloaded",
}


def busy(model: str, *, state: State, active: int) -> ModelBusyError:
    """A model's files are in use: it is neither cold nor failed."""
    answers = f" and answers {active} request{'s' if active > 1 else ''}" if active else ""
    return ModelBusyError(
        f"{model} {_DOING[state]}{answers}",
        why="its files are in use",
        advice=(f"gemctl unload {model}", f"gemctl rm --force {model}"),
        metadata={"model": model, "active": active, "state": state.value},
    )


def shutting_down(model: str = "") -> ShuttingDownError:
    """The daemon takes nothing new; `model` is what was wanted, if it was one."""
    return ShuttingDownError(
        "gemd is shutting down",
        why="it takes no new requests",
        # Both start gemd again once it has ended.
        advice=(f"gemctl load {model}" if model else "gemctl list",),
        metadata={"model": model} if model else {},
        retry_after=RETRY_AFTER_S,
    )


def cut_off(model: str) -> CancelledError:
    """An answer outlasted what the end of the daemon allowed it."""
    return CancelledError(
        f"{model} was unloaded before the answer was complete",
        why="gemd is ending",
        advice=(f"gemctl load {model}",),
        metadata={"model": model},
    )


def quarantined(entry: Entry, policy: CrashPolicy) -> ModelQuarantinedError:
    """Only an explicit load starts the model again; with the worker's last words."""
    stderr = "" if entry.failure is None else entry.failure.metadata.get("stderr", "")
    return ModelQuarantinedError(
        f"{entry.model} crashed {len(entry.crash_times)} times within "
        f"{policy.window_s / 60:g} minutes and is not started again by itself",
        why="" if entry.failure is None else entry.failure.message,
        advice=(
            f"gemctl load {entry.model}",
            f"gemctl pull {entry.model}"
            if entry.pullable
            # No pull mends what the user has put there.
            else f"ls -lL {shlex.quote(entry.path)}",
        ),
        metadata={
            "model": entry.model,
            "crashes": len(entry.crash_times),
            "window_seconds": f"{policy.window_s:g}",
            "stderr": stderr[-STDERR_TAIL_CHARACTERS:],
        },
    )


def crashed(model: str, report: ExitReport) -> EngineCrashedError:
    """A worker ended without being asked to."""
    return EngineCrashedError(
        f"the worker of {model} ended by itself",
        why=report.cause,
        advice=report.advice(model),
        metadata={"model": model, **report.metadata},
    )


def too_large(
    model: str,
    *,
    needed: int,
    budget: int,
    device: str = RAM,
    margin: int = 0,
    capacity: int | None = None,
) -> ModelTooLargeError:
    """A model exceeds what all models together may take of a device; bytes."""
    part = "RAM" if device == RAM else "GPU"
    of_device = "" if device == RAM else f" of {device}"
    if needed <= budget and capacity is not None:
        return ModelTooLargeError(
            f"{model} needs {size_text(needed)}{of_device}, and {size_text(margin)} of "
            f"{size_text(capacity)} have to stay free",
            why="it cannot fit even if no other program ran",
            advice=(f"GEMD_{part}_MARGIN=auto gemd", "gemctl list"),
            metadata={
                "model": model,
                "device": device,
                "needed_bytes": needed,
                "margin_bytes": margin,
                "capacity_bytes": capacity,
            },
        )
    variable = f"GEMD_{part}_BUDGET"
    return ModelTooLargeError(
        f"{model} needs {size_text(needed)}{of_device}, the budget is {size_text(budget)}",
        why="it cannot fit even with no other model loaded",
        advice=(f"{variable}={_gib_ceiling(needed)} gemd", "gemctl list"),
        metadata={
            "model": model,
            "device": device,
            "needed_bytes": needed,
            "budget_bytes": budget,
        },
    )


def crowded_out(
    model: str,
    device: str,
    *,
    needed: int,
    reach: int,
    others: int | None,
    surge: int,
    margin: int,
    pinned: Sequence[str],
    stuck: Sequence[str] = (),
) -> BudgetExceededError:
    """Other programs hold the memory that a model needs; bytes."""
    had = max(reach, 0)
    hold = "others hold the rest" if others is None else f"other programs hold {size_text(others)}"
    lately = f" and held {size_text(surge)} more a moment ago" if surge else ""
    beside = f", and {', '.join(pinned)} is pinned" if pinned else ""
    beside += "".join(f", and the worker of {each} does not end" for each in stuck)
    return BudgetExceededError(
        f"{model} needs {size_text(needed)} of {device}, {size_text(had)} can be had",
        why=f"{hold}{lately}, {size_text(margin)} have to stay free{beside}",
        advice=("gemctl status", f"gemctl why {model}"),
        metadata={
            "model": model,
            "device": device,
            "needed_bytes": needed,
            "free_bytes": had,
            "margin_bytes": margin,
            **({} if others is None else {"others_bytes": others}),
        },
        retry_after=MEMORY_RETRY_AFTER_S,
    )


def kept_off(model: str, device: str, *, left_s: float) -> BudgetExceededError:
    """A user asked gemd to load nothing on a device for a while; seconds."""
    return BudgetExceededError(
        f"{model} is not loaded: gemd keeps off {device} for {span_text(left_s)} more",
        why="it was asked to give that memory back",
        advice=(f"gemctl yield {device} --resume",),
        metadata={"model": model, "device": device, "left_seconds": f"{left_s:.0f}"},
        retry_after=left_s,
    )


def blind(model: str, device: str, *, why: str) -> BudgetExceededError:
    """Nobody can tell how much of a device is free."""
    return BudgetExceededError(
        f"{model} is not loaded: how much of {device} is free cannot be told",
        why=why,
        advice=("gemctl status",),
        metadata={"model": model, "device": device},
        retry_after=MEMORY_RETRY_AFTER_S,
    )


def device_lost(model: str, device: str) -> BudgetExceededError:
    """A device that a model was to be placed on is gone."""
    return BudgetExceededError(
        f"{model} is not loaded: {device} does not answer any more",
        why="its driver was reset, or it is not there",
        advice=("gemctl devices",),
        metadata={"model": model, "device": device},
        retry_after=MEMORY_RETRY_AFTER_S,
    )


def forbidden(model: str, *, why: str) -> ModelForbiddenError:
    """The settings say that a model shall not be warm now."""
    return ModelForbiddenError(
        f"{model} shall not be loaded now",
        why=why,
        advice=("gemctl status", "gemctl config show"),
        metadata={"model": model},
    )


def pinned_out(
    model: str,
    *,
    needed: int,
    budget: int,
    left: int,
    pinned: Sequence[str],
    stuck: Sequence[str] = (),
) -> BudgetExceededError:
    """Models that users pinned, or that do not end, leave too little for another one; bytes."""
    held, had = budget - left, max(left, 0)
    kept = [f"pinned: {', '.join(pinned)}"] if pinned else []
    if stuck:
        kept.append(f"held by workers that do not end: {', '.join(stuck)}")
    return BudgetExceededError(
        f"{model} needs {size_text(needed)}, {size_text(had)} of the "
        f"{size_text(budget)} budget can be had",
        why=f"{size_text(held)} are {' and '.join(kept)}",
        advice=tuple(f"gemctl pin --off {each}" for each in pinned) or ("gemctl status",),
        metadata={
            "model": model,
            "needed_bytes": needed,
            "budget_bytes": budget,
            "pinned_bytes": held,
            "free_bytes": had,
        },
        retry_after=MEMORY_RETRY_AFTER_S,
    )


def size_text(count: int) -> str:
    """A size for a message."""
    gib = count / 2**30
    return f"{gib:.2f} GiB" if gib >= 1 else f"{count / 2**20:.0f} MiB"


def span_text(seconds: float) -> str:
    """A time to go for a message."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004


def _gib_ceiling(count: int) -> str:
    return f"{-(-count // 2**30)}GiB"
