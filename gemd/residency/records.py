"""Decisions in words: what `gemctl why` says about loads, evictions and refusals. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.residency.decisions import Alternative, Decision, DecisionKind, MemoryChange, Reason
from gemd.residency.planner import size_text
from gemd.residency.survey import RAM

if TYPE_CHECKING:
    from gemd.errors import GemdError
    from gemd.residency.entry import Entry
    from gemd.residency.ledger import Ledger
    from gemd.residency.planner import Evict
    from gemd.residency.states import Located


def loaded(entry: Entry, located: Located, *, now: float, ledger: Ledger) -> Decision:
    """A model is loaded because requests wait for it and it fits."""
    need, room = located.estimate_bytes, ledger.room(RAM)
    waiting = len(entry.queue)
    return Decision(
        sequence=0,
        time=now,
        kind=DecisionKind.LOAD,
        model=entry.model,
        device=RAM,
        summary=f"load {entry.model}: it may take {size_text(need)}, {size_text(room)} are left",
        reasons=(
            Reason(
                "WANTED",
                f"{waiting} request{'s' if waiting != 1 else ''} waited for it",
                {"waiting": str(waiting)},
            ),
        ),
        memory=(MemoryChange(ledger.figures(RAM)),),
        inputs={"needed_bytes": need, "room_bytes": room},
    )


def evicted(action: Evict, entry: Entry, *, now: float, ledger: Ledger) -> Decision:
    """A model goes because another one needs its memory."""
    frees = ledger.holdings[entry.model][RAM].taken
    idle_s = 0.0 if entry.last_used is None else now - entry.last_used
    return Decision(
        sequence=0,
        time=now,
        kind=DecisionKind.EVICT,
        model=entry.model,
        device=RAM,
        summary=f"unload {entry.model} for {action.wanted_by}: it frees {size_text(frees)}",
        reasons=(
            Reason(
                "CHEAPEST",
                f"nobody used it for {idle_s:.0f} s, and its going is expected to cost "
                f"{action.loss:.2f} s of reloading",
                {"idle_seconds": f"{idle_s:.3f}", "loss_seconds": f"{action.loss:.6f}"},
            ),
        ),
        alternatives=tuple(
            Alternative(
                model,
                Reason("DEARER_OR_TOO_SMALL", f"{model} was expected to cost {loss:.2f} s"),
                loss,
            )
            for model, loss in action.spared
        ),
        memory=(MemoryChange(ledger.figures(RAM)),),
        inputs={"frees_bytes": frees, "idle_seconds": idle_s, "loss_seconds": action.loss},
    )


def unloaded(entry: Entry, *, now: float, ledger: Ledger) -> Decision:
    """A model goes because nobody used it for its idle time."""
    idle_s = 0.0 if entry.last_used is None else now - entry.last_used
    return Decision(
        sequence=0,
        time=now,
        kind=DecisionKind.UNLOAD,
        model=entry.model,
        device=RAM,
        summary=f"unload {entry.model}: nobody used it for {idle_s:.0f} s",
        reasons=(Reason("IDLE", "keep_warm is over", {"idle_seconds": f"{idle_s:.3f}"}),),
        memory=(MemoryChange(ledger.figures(RAM)),),
        inputs={"idle_seconds": idle_s},
    )


def refused(entry: Entry, error: GemdError, *, now: float, ledger: Ledger) -> Decision:
    """A load cannot come about."""
    return Decision(
        sequence=0,
        time=now,
        kind=DecisionKind.REFUSE,
        model=entry.model,
        device=RAM,
        summary=f"refuse {entry.model}: {error.message}",
        reasons=(Reason(error.reason, error.why or error.message, error.metadata),),
        memory=(MemoryChange(ledger.figures(RAM)),),
    )


def quarantined(entry: Entry, *, now: float) -> Decision:
    """A model that keeps crashing is not started again by itself."""
    return Decision(
        sequence=0,
        time=now,
        kind=DecisionKind.QUARANTINE,
        model=entry.model,
        summary=f"do not start {entry.model} again by itself: "
        f"it crashed {len(entry.crash_times)} times",
        reasons=(
            Reason(
                "CRASHES",
                "too many crashes in too short a time",
                {"crashes": str(len(entry.crash_times))},
            ),
        ),
    )
