"""What is wrong with the text of an answer, given how it came to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.routing.checks import find_faults

if TYPE_CHECKING:
    from gemd import wire
    from gemd.routing.cascade.job import Job
    from gemd.routing.checks import Fault

OF_THE_END: Final = frozenset({"TRUNCATED", "CODE_SYNTAX", "JSON_SYNTAX", "ANSWER_MISSING"})
"""Faults that an answer has as well if it was only cut short."""


def faults_of(job: Job, answer: str, finished: wire.Finished) -> tuple[Fault, ...]:
    """The faults of an answer.

    Where the request's own limit or stop string has ended it, any other model's answer would end
    there as well: that it has no end is no fault then.

    Args:
        job: What was asked.
        answer: The text.
        finished: How it ended.

    """
    limit = job.asked.sampling.get("max_tokens")
    wished = finished.reason == "stop_string" or (
        finished.reason == "max_tokens"
        and limit is not None
        and finished.completion_tokens >= limit
    )
    found = find_faults(
        job.question,
        answer,
        system=job.instructions,
        truncated=not wished and finished.reason in {"max_tokens", "context_full"},
    )
    if wished:
        return tuple(fault for fault in found if fault.code not in OF_THE_END)
    return found
