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
    from gemd.residency.plans import Evict
    from gemd.residency.relief import Yielding
    from gemd.residency.shrinking import Shrink


def loaded(entry: Entry, rung: int, *, now: float, ledger: Ledger) -> Decision:
    """A model is loaded because requests wait for it and it fits, maybe with a smaller context."""
    assert entry.located is not None
    size = entry.located.contexts[rung]
    need, room = size.demand[entry.device], ledger.room(entry.device)
    context = f" with {size.tokens} tokens of context" if rung else ""
    return _about_memory(
        DecisionKind.LOAD,
        entry,
        f"load {entry.model}{context}: it may take {size_text(need)}{_of(entry.device)}, "
        f"{size_text(room)} are left",
        _why_loaded(entry),
        more=() if entry.located.placed is None else (entry.located.placed,),
        now=now,
        ledger=ledger,
        inputs={"needed_bytes": need, "room_bytes": room, "context_tokens": size.tokens},
    )


def computed(entry: Entry) -> tuple[Reason, ...]:
    """Why the worker that has been loaded computes as it does, if its engine had a choice."""
    if entry.worker is None or not entry.worker.ready.compute:
        return ()
    ready = entry.worker.ready
    return (Reason("COMPUTE_CHOSEN", ready.compute_reason, {"compute": ready.compute}),)


def evicted(action: Evict, entry: Entry, *, now: float, ledger: Ledger) -> Decision:
    """A model goes because another one needs its memory."""
    frees = ledger.holdings[entry.model][entry.device].taken
    idle_s = _idle_s(entry, now=now)
    return _about_memory(
        DecisionKind.EVICT,
        entry,
        f"unload {entry.model} for {action.wanted_by}: "
        f"it frees {size_text(frees)}{_of(entry.device)}",
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


def shrunk(action: Shrink, entry: Entry, *, now: float, ledger: Ledger) -> Decision:
    """An idle model gets a smaller context because another one needs its memory."""
    before, after = entry.contexts[entry.rung].tokens, entry.contexts[action.rung].tokens
    frees = action.frees[entry.device]
    return _about_memory(
        DecisionKind.SHRINK,
        entry,
        f"make the context of {entry.model} smaller for {action.wanted_by}: "
        f"it frees {size_text(frees)}{_of(entry.device)}",
        Reason(
            "ENOUGH",
            f"{after} instead of {before} tokens are enough, and nobody has to go",
            {"before_tokens": str(before), "after_tokens": str(after)},
        ),
        now=now,
        ledger=ledger,
        inputs={"frees_bytes": frees, "idle_seconds": _idle_s(entry, now=now)},
    )


def yielded(action: Yielding, entry: Entry, *, now: float, ledger: Ledger) -> Decision:
    """A model goes because its memory is needed outside, or because too much is taken."""
    pressure = action.pressure
    account = ledger.accounts[pressure.device]
    free = 0 if account.free is None else account.free
    of_device = _of(pressure.device)
    if pressure.over_budget:
        reason = Reason(
            "OVER_BUDGET",
            f"models take {size_text(pressure.missing)} more than the budget of "
            f"{size_text(account.budget)}{of_device}",
            {"missing_bytes": str(pressure.missing), "budget_bytes": str(account.budget)},
        )
    else:
        reason = Reason(
            "CRITICAL_PRESSURE" if pressure.critical else "PRESSURE",
            f"other programs left {size_text(free)} of {size_text(account.margin)} "
            f"that have to stay free{of_device}",
            {
                "missing_bytes": str(pressure.missing),
                "free_bytes": str(free),
                "margin_bytes": str(account.margin),
                **({} if account.others is None else {"others_bytes": str(account.others)}),
            },
        )
    return _about_memory(
        DecisionKind.YIELD,
        entry,
        f"{_what(action, entry)}: it frees {size_text(action.frees)}{of_device}",
        reason,
        now=now,
        ledger=ledger,
        inputs={
            "frees_bytes": action.frees,
            "missing_bytes": pressure.missing,
            "loss_seconds": action.loss,
        },
        device=pressure.device,
    )


def asked_back(entry: Entry, device: str, *, now: float, ledger: Ledger) -> Decision:
    """A model goes because a user wants memory of a device for something else."""
    frees = ledger.holdings[entry.model][device].seen
    return _about_memory(
        DecisionKind.YIELD,
        entry,
        f"give back {entry.model}: it frees {size_text(frees)}{_of(device)}",
        Reason("ASKED", f"{device} was asked for"),
        now=now,
        ledger=ledger,
        inputs={"frees_bytes": frees},
        device=device,
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
        error.message,
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


def _what(action: Yielding, entry: Entry) -> str:
    if action.shrink is None:
        return f"give back {entry.model}"
    tokens = entry.contexts[action.shrink.rung].tokens
    return f"make the context of {entry.model} smaller ({tokens} tokens)"


def _why_loaded(entry: Entry) -> Reason:
    waiting = len(entry.queue)
    if not waiting:
        return Reason("WISHED", "a lease or a schedule wants it warm, and memory is free")
    requests = "1 request" if waiting == 1 else f"{waiting} requests"
    return Reason("WANTED", f"{requests} waited for it", {"waiting": str(waiting)})


def _of(device: str) -> str:
    return "" if device == RAM else f" of {device}"


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
    more: tuple[Reason, ...] = (),
    now: float,
    ledger: Ledger,
    inputs: Mapping[str, float] | None = None,
    alternatives: tuple[Alternative, ...] = (),
    device: str = "",
) -> Decision:
    held = ledger.holdings.get(entry.model, {}).keys() or (
        {} if entry.located is None else entry.located.demand
    )
    concerned = [each for each in ledger.accounts if each in {*held, entry.device, device}]
    return Decision(
        time=now,
        kind=kind,
        model=entry.model,
        device=device or entry.device,
        summary=summary,
        reasons=(reason, *more),
        alternatives=alternatives,
        memory=tuple(MemoryChange(ledger.figures(each)) for each in concerned),
        inputs=inputs or {},
    )


def _idle_s(entry: Entry, *, now: float) -> float:
    return 0.0 if entry.last_used is None else now - entry.last_used
