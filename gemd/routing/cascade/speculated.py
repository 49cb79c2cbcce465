"""Exact mode: the strong tier's own answer, with the fast tier's draft to reach it sooner."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from gemd import wire
from gemd.errors import GemdError
from gemd.routing.cascade.direct import way_of
from gemd.routing.cascade.events import Ended
from gemd.routing.cascade.failures import another_may, broke_down
from gemd.routing.cascade.part import Part, Spent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gemd.routing.cascade.events import Event
    from gemd.routing.cascade.job import Job, Tools


async def speculated(job: Job, tools: Tools) -> AsyncGenerator[Event]:
    """The strong model's answer, token for token.

    The draft goes to its engine, which takes over as much of it as it would have written itself.
    Nothing of it is shown: until then it is nobody's answer. A drafter that fails only costs time.

    Raises:
        GemdError: The strong model cannot be had, or fails.

    """
    spent = Spent(job.arrived)
    way = way_of(job)
    texts: list[str] = []
    guessed = 0
    drafter = Part(job, tools, job.choice.drafter, spent)
    own = job.draft_sampling(tools.sampling_defaults(drafter.model))
    try:
        async with aclosing(
            drafter.write(job.asked.prompt, sampling=own, thinking=job.asked.thinking)
        ) as messages:
            async for message in messages:
                if isinstance(message, wire.Delta):
                    texts.append(message.text)
                elif isinstance(message, wire.Finished):
                    spent.add(message)
                    guessed = message.completion_tokens
                else:
                    yield message
        tools.recent.drafted(failed=False, now=tools.manager.time())
    except GemdError as error:
        if not another_may(error):
            raise
        if broke_down(error):
            tools.recent.drafted(failed=True, now=tools.manager.time())
        texts.clear()
        failed = f"{way.explanation}; {drafter.model} failed ({error.message}) and helped nothing"
        way = replace(way, reason="DRAFTER_FAILED", explanation=failed)
    strong = Part(job, tools, job.strong, spent, work_id=f"{job.work_id}.strong")
    fields = {"thinking": job.asked.thinking, "draft": "".join(texts)}
    async with aclosing(strong.write(job.asked.prompt, **fields)) as messages:
        async for message in messages:
            if isinstance(message, wire.Finished):
                spent.add(message)
                # Of a draft whose first token is wrong the engine evaluates nothing: that counts.
                tools.speeds.observe_speculation(
                    strong.model,
                    drafted=max(guessed, message.drafted_tokens),
                    accepted=message.accepted_tokens,
                )
                way = replace(
                    way,
                    drafted_tokens=message.drafted_tokens,
                    accepted_tokens=message.accepted_tokens,
                )
                # The draft's tokens are no part of the answer: those that are, the strong
                # model has drawn itself.
                yield Ended(message, way, spent.times(0, tools.manager.time()))
            else:
                if isinstance(message, wire.Delta):
                    spent.saw_text(0, tools.manager.time)
                yield message
