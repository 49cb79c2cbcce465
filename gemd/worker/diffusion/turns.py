"""Whose turn it is: who gets the next slot, and how much of which prompt a step reads. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gemd.worker.schedule import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.worker.diffusion.answer import Answer


def next_answer(waiting: Sequence[Answer], running: Sequence[Answer]) -> Answer | None:
    """Who gets the next slot: of the request that has the fewest, the one that waits longest.

    So a question does not wait for all of 64 candidates of somebody else, nor they for a stream of
    questions.

    Args:
        waiting: Answers without a slot, in the order in which they came.
        running: Those that have one.

    """
    taken = Counter(id(each.task) for each in running)
    # The candidates of a request share its prompt: the first reads it, the others copy.
    reading = {id(each.task) for each in running if each.reads_prompt}
    ready = (each for each in waiting if id(each.task) not in reading)
    return min(ready, key=lambda each: taken[id(each.task)], default=None)


def portions(readers: Sequence[Answer], budget: int) -> list[tuple[Answer, int]]:
    """How many tokens of whom a step reads, in which order.

    Half is for the one that came first, the rest goes to the shortest first: neither a short prompt
    nor a canvas that was committed waits behind a prompt of 20,000 tokens. They are not all read a
    little, because each that is read costs a pass over the weights.

    Args:
        readers: Answers with pending tokens.
        budget: Tokens in all.

    """
    if not readers:
        return []
    first, *others = sorted(readers, key=lambda each: each.task.arrived)
    others.sort(key=lambda each: len(each.pending))
    wanted = [len(each.pending) for each in others]
    part, left = share(budget, [len(first.pending), sum(wanted)])
    given = [(first, part)]
    for answer, most in zip(others, wanted, strict=True):
        given.append((answer, min(left, most)))
        left -= given[-1][1]
    return [(answer, tokens) for answer, tokens in given if tokens]
