"""What an answer took and which way it went, in words."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from gemd.cli.text import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.client import Answer, Finished, GenerationEvent, Resolved


class DraftTimes:
    """Takes the time of drafts as this side sees it: no event carries it.

    Args:
        clock: Monotonic seconds.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started: float | None = None
        self._taken: dict[int, float] = {}

    def add(self, event: GenerationEvent) -> None:
        """Take one more event into account."""
        from gemd.client import Draft, Started

        if isinstance(event, Started):
            self._started = self._clock()
        elif isinstance(event, Draft) and event.last and self._started is not None:
            self._taken[event.candidate] = self._clock() - self._started

    def of(self, candidate: int) -> float | None:
        """Seconds from the start of the drafter to the whole draft; None if there was none."""
        return self._taken.get(candidate)


def figures(finished: Finished, *, written: int | None = None) -> str:
    """Tokens, times, speed and energy of an answer in one line.

    Args:
        finished: Its end.
        written: Tokens of all candidates of the request, whose energy it is.

    """
    usage, timings = finished.usage, finished.timings
    parts = [
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached)",
        f"{usage.completion_tokens} generated",
    ]
    if usage.denoising_steps:
        parts.append(f"{usage.denoising_steps} denoising steps")
    if finished.rank:
        score = "" if finished.score is None else f" (score {finished.score:.2f})"
        parts.append(f"rank {finished.rank}{score}")
    parts.append(f"finish {finished.finish_reason.lower()}")
    for label, value in (
        ("queued", timings.queued),
        ("load", timings.load),
        ("first token", timings.first_token),
        ("prefill", timings.prefill),
        ("decode", timings.decode),
        ("total", timings.total),
    ):
        if value is not None:
            parts.append(f"{label} {format_seconds(value)}")
    if timings.decode and usage.completion_tokens:
        parts.append(f"{usage.completion_tokens / timings.decode:.1f} tokens/s")
    if finished.energy_joules is not None:
        parts.append(_energy(finished.energy_joules, written or usage.completion_tokens))
    return f"{finished.model}: {', '.join(parts)}"


def way(answer: Answer, draft_seconds: float | None) -> str:
    """Which way an answer took and why, in one line; empty if the daemon does not say."""
    finished = answer.finished
    if finished.strategy == "UNSPECIFIED":
        return ""
    if answer.resolved is None:
        speculated = _speculation(finished)
        return f"{speculated or 'answered directly'}{_because(finished.explanation)}"
    parts = [_drafted(finished.drafter, draft_seconds)]
    risk = "" if finished.draft_risk is None else f" (risk {finished.draft_risk:.2f})"
    if finished.checker and risk:
        parts.append(f"checked by {finished.checker}{risk}")
    elif risk:
        parts.append(f"judged by its own signals{risk}")
    if finished.drafted_tokens:
        parts.append(f"{finished.accepted_tokens} of {finished.drafted_tokens} tokens kept")
    parts.append(_became(answer.resolved.resolution, finished.model))
    return ", ".join(parts) + _because(answer.resolved.explanation or finished.explanation)


def verdict(resolved: Resolved, drafter: str) -> str:
    """What became of a draft and why, in one line, without the numbers that `way` has."""
    said = resolved.resolution.lower()
    what = f"the draft of {drafter}" if drafter else "the draft"
    line = f"{what} was {said}{_because(_first_clause(resolved.explanation) or resolved.reason)}"
    return line if resolved.failure is None else f"{line} ({resolved.failure.message})"


def _energy(joules: float, tokens: int) -> str:
    used = f"{joules:.1f} J"
    return f"{used}, {tokens / joules:.2f} tokens/J" if joules > 0 and tokens else used


def _speculation(finished: Finished) -> str:
    if finished.strategy != "SPECULATE":
        return ""
    taken = "nothing of it"
    if finished.drafted_tokens:
        taken = f"{finished.accepted_tokens} of {finished.drafted_tokens} tokens"
    return f"{_drafted(finished.drafter, None)} ahead of {finished.model}, which took {taken}"


def _drafted(drafter: str, seconds: float | None) -> str:
    took = "" if seconds is None else f" in {format_seconds(seconds)}"
    return f"drafted by {drafter or 'nobody'}{took}"


def _became(resolution: str, model: str) -> str:
    by = "" if resolution == "KEPT" else f" by {model}"
    return f"{resolution.lower()}{by}"


def _first_clause(explanation: str) -> str:
    return re.split(r" \(|; ", explanation, maxsplit=1)[0]


def _because(explanation: str) -> str:
    return f": {explanation}" if explanation else ""
