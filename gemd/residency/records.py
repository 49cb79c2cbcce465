"""Decisions in words: what `gemctl why` says about loads, evictions and refusals. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.hardware import RAM
from gemd.residency.decisions import Alternative, Decision, DecisionKind, MemoryChange, Reason
from gemd.residency.refusals import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.errors import GemdError
    from gemd.residency.entry import Entry
    from gemd.residency.ledger import Ledger
    from gemd.residency.planner import Evict


def loaded(entry: Entry, *, now: float, ledger: Ledger) -> Decision:
    """A model is loaded because requests wait for it and it fits."""
    need, room = entry.estimate_bytes, ledger.room(RAM)
    waiting = len(entry.queue)
    requests = "1 request" if waiting == 1 else f"{waiting} requests"
    return _about_memory(
        DecisionKind.LOAD,
        entry,
        f"load {entry.model}: it may take {size_text(need)}, {size_text(room)} are left",
        Reason("WANTED", f"{requests} waited for it", {"waiting": str(waiting)}),
        now=now,
        ledger=ledger,
        inputs={"needed_bytes": need, "room_bytes": room},
    )


def evicted(action: Evict, entry: Entry, *, now: float, ledger: Ledger) -> Decision:
    """A model goes because another one needs its memory."""
    frees = ledger.holdings[entry.model][RAM].taken
    idle_s = _idle_s(entry, now=now)
    return _about_memory(
        DecisionKind.EVICT,
        entry,
        f"unload {entry.model} for {action.wanted_by}: it frees {size_text(frees)}",
        _why_this_one(action, entry, idle_s=idle_s),
        now=now,
        ledger=ledger,
        inputs={"frees_bytes": frees, "idle_seconds": idle_s, "loss_seconds": action.loss},
        alternatives=tuple(
            Alternative(
                model,
                Reason("DEARER_OR_TOO_SMALL", f"{model} was expected to cost {loss:.2f} s"),
                loss,
            )
            for model, loss in action.spared
        ),
    )


def unloaded(entry: Entry, reason: Reason, *, now: float, ledger: Ledger) -> Decision:
    """A model goes though nobody needs its memory."""
    idle_s = _idle_s(entry, now=now)
    return _about_memory(
        DecisionKind.UNLOAD,
        entry,
        f"unload {entry.model}: {reason.message}",
        reason,
        now=now,
        ledger=ledger,
        inputs={"idle_seconds": idle_s},
    )


def refused(entry: Entry, error: GemdError, *, now: float, ledger: Ledger) -> Decision:
    """A load cannot come about."""
    return _about_memory(
        DecisionKind.REFUSE,
        entry,
        f"refuse {entry.model}: {error.message}",
        Reason(error.reason, error.why, error.metadata),
        now=now,
        ledger=ledger,
    )


def quarantined(entry: Entry, *, now: float) -> Decision:
    """A model that keeps crashing is not started again by itself."""
    crashes = len(entry.crash_times)
    return Decision(
        time=now,
        kind=DecisionKind.QUARANTINE,
        model=entry.model,
        summary=f"do not start {entry.model} again by itself: it crashed {crashes} times",
        reasons=(
            Reason(
                "CRASHES",
                "too many crashes in too short a time",
                {"crashes": str(crashes)},
            ),
        ),
    )


def _why_this_one(action: Evict, entry: Entry, *, idle_s: float) -> Reason:
    if entry.queue:
        waiting = len(entry.queue)
        return Reason(
            "TURN_OVER",
            f"its turn is over: {action.wanted_by} is waited for longer than the {waiting} that "
            "wait for it",
            {"waiting": str(waiting)},
        )
    return Reason(
        "CHEAPEST",
        f"nobody used it for {idle_s:.0f} s, and its going is expected to cost "
        f"{action.loss:.2f} s of reloading",
        {"idle_seconds": f"{idle_s:.3f}", "loss_seconds": f"{action.loss:.6f}"},
    )


def _about_memory(
    kind: DecisionKind,
    entry: Entry,
    summary: str,
    reason: Reason,
    *,
    now: float,
    ledger: Ledger,
    inputs: Mapping[str, float] | None = None,
    alternatives: tuple[Alternative, ...] = (),
) -> Decision:
    return Decision(
        time=now,
        kind=kind,
        model=entry.model,
        device=RAM,
        summary=summary,
        reasons=(reason,),
        alternatives=alternatives,
        memory=(MemoryChange(ledger.figures(RAM)),),
        inputs=inputs or {},
    )


def _idle_s(entry: Entry, *, now: float) -> float:
    return 0.0 if entry.last_used is None else now - entry.last_used
