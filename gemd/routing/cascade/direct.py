"""One model answers, and its text goes out as it comes."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gemd import wire
from gemd.errors import GemdError
from gemd.routing.cascade.events import Ended, Way
from gemd.routing.cascade.failures import another_may, broke_down
from gemd.routing.cascade.part import Part, Spent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from gemd.routing.cascade.events import Event
    from gemd.routing.cascade.job import Job, Tools


def way_of(job: Job) -> Way:
    """The way that is planned."""
    choice = job.choice
    return Way(
        model=choice.model,
        tier=choice.tier,
        reason=choice.reason,
        explanation=choice.explanation,
        strategy=choice.strategy,
        drafter=choice.drafter,
        checker=choice.checker,
    )


def plain(job: Job, tools: Tools, noted: Callable[[Ended], None]) -> AsyncGenerator[Event]:
    """The answer of one model that nobody stands in for.

    Most requests come this way, and every generator around another one costs each message.

    Args:
        job: The request.
        tools: What it works with.
        noted: Told of the end of each candidate.

    Raises:
        GemdError: The model cannot be had, or fails.

    """
    spent = Spent(job.arrived)
    part = Part(job, tools, job.choice.model, spent)
    return answer(job, tools, part, spent, way_of(job), noted=noted, **_own_fields(job))


async def direct(job: Job, tools: Tools) -> AsyncGenerator[Event]:
    """The answer of the model that was chosen.

    Where the choice names another model to fall back to, that one answers if the first one fails
    before it has said anything.

    Raises:
        GemdError: The model cannot be had, or fails.

    """
    spent = Spent(job.arrived)
    way = way_of(job)
    part = Part(job, tools, job.choice.model, spent)
    said = False
    try:
        async with aclosing(answer(job, tools, part, spent, way, **_own_fields(job))) as events:
            async for event in events:
                said = said or isinstance(event, wire.Delta)
                yield event
    except GemdError as error:
        instead = job.fallback
        if instead and broke_down(error):
            tools.recent.drafted(failed=True, now=tools.manager.time())
        if said or not instead or not another_may(error):
            raise
        way = replace(
            way,
            model=instead,
            tier=tools.tier(instead),
            reason="DRAFTER_FAILED",
            explanation=f"{job.choice.model} failed ({error.message}), so {instead} answers",
        )
    else:
        if job.fallback:
            tools.recent.drafted(failed=False, now=tools.manager.time())
        return
    part = Part(job, tools, instead, spent)
    async with aclosing(answer(job, tools, part, spent, way, thinking=job.asked.thinking)) as rest:
        async for event in rest:
            yield event


async def answer(
    job: Job,
    tools: Tools,
    part: Part,
    spent: Spent,
    way: Way,
    *,
    noted: Callable[[Ended], None] = lambda _: None,
    **fields: Any,
) -> AsyncGenerator[Event]:
    """What one model says, as it comes; `noted` is told of the end of each candidate first."""
    async with aclosing(part.write(job.asked.prompt, **fields)) as messages:
        async for message in messages:
            if isinstance(message, wire.Delta):
                spent.saw_text(message.candidate, tools.manager.time)
                yield message
            elif isinstance(message, wire.Finished):
                ended = _ended(message, way, spent, tools)
                noted(ended)
                yield ended
            else:
                yield message


def _ended(message: wire.Finished, way: Way, spent: Spent, tools: Tools) -> Ended:
    # Candidates run side by side: each one's account is its own.
    account = replace(spent)
    account.add(message)
    return Ended(message, way, account.times(message.candidate, tools.manager.time()))


def _own_fields(job: Job) -> dict[str, Any]:
    asked = job.asked
    return {
        "thinking": asked.thinking,
        "candidates": asked.candidates,
        "spans": asked.spans,
        "watch_canvas": asked.watch_canvas,
    }
