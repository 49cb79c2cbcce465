"""How requests are shared between the two tiers, as `gemctl status` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.cli.text import format_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.cli.output import Output
    from gemd.client import ModelSpeed, RouteShare, Routing

_BASES = {
    "REFERENCE": "fixed scales",
    "BUDGET": "the share that may be refined",
    "CALIBRATED": "what became of earlier ones",
}


def print_tiers(routing: Routing, routes: Sequence[RouteShare], output: Output) -> None:
    """Who drafts, who answers, how drafts fared, and the ways that requests took."""
    checker = f", drafts checked by {routing.checker}" if routing.checker else ""
    output.line(f"tiers: fast {routing.fast or '-'}, strong {routing.strong or '-'}{checker}")
    output.line(f"drafts: {_drafts(routing)}")
    if routing.judged_drafts or routing.labels:
        output.line(f"judged: {_judged(routing)}")
        output.line(f"limit of the risk: {_limit(routing)}")
    if routes:
        _print_routes(routes, output)
    if routing.speeds:
        _print_speeds(routing.speeds, output)


def _drafts(routing: Routing) -> str:
    return "on" if routing.drafts_off is None else f"off: {routing.drafts_off.message}"


def _judged(routing: Routing) -> str:
    share = "" if routing.refine_rate is None else f" ({_percent(routing.refine_rate)})"
    return f"{_counted(routing.judged_drafts, 'draft')}, {routing.refined_drafts} refined{share}"


def _limit(routing: Routing) -> str:
    basis = _BASES.get(routing.basis, routing.basis.lower() or "-")
    return f"by {basis}; {_counted(routing.labels, 'draft')} known to be good or bad"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _print_routes(routes: Sequence[RouteShare], output: Output) -> None:
    total = sum(one.requests for one in routes)
    output.table(
        ("way", "answered by", "draft", "requests", "share", "median", "p95"),
        [
            (
                _words(one.strategy),
                _words(one.tier),
                _words(one.resolution),
                str(one.requests),
                _percent(one.requests / total) if total else "-",
                _time(one.median),
                _time(one.p95),
            )
            for one in sorted(routes, key=lambda one: -one.requests)
        ],
        right={"requests", "share", "median", "p95"},
    )


def _print_speeds(speeds: Sequence[ModelSpeed], output: Output) -> None:
    output.table(
        ("model", "reads", "writes", "canvas", "load", "measured on"),
        [
            (
                one.model,
                _rate(one.prefill_tokens_per_second),
                _rate(one.decode_tokens_per_second),
                _time(one.canvas),
                _time(one.load),
                _counted(one.samples, "request") if one.samples else "nothing yet",
            )
            for one in speeds
        ],
        right={"reads", "writes", "canvas", "load"},
    )


def _words(name: str) -> str:
    return "-" if name == "UNSPECIFIED" else name.lower().replace("_", " ")


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else format_seconds(seconds)


def _rate(tokens_per_second: float | None) -> str:
    return "-" if tokens_per_second is None else f"{tokens_per_second:.0f} tokens/s"
