"""Whether a conversation that goes on is read again from its beginning."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gemd.client import AsyncClient, Delta, GenerationOptions, Message, Sampling
from tests.bench.daemon import daemon_of
from tests.bench.report import Check, Section, spread
from tests.bench.rounds import Samples

if TYPE_CHECKING:
    from tests.bench.setting import Setting

CONVERSATION_TOKENS = 1500
ANSWER_TOKENS = 32
ROUNDS = 5
_QUESTION = "Which item is the cheapest?"


async def measure(setting: Setting) -> Section:
    """The first and the second turn of long conversations, through the daemon."""
    section = Section(
        title="Second turn",
        how=f"Seconds to the first token through the daemon, {ROUNDS} different conversations of "
        f"{CONVERSATION_TOKENS} tokens; the second turn sends the whole conversation again, "
        "with the answer and another question.",
        head=("turn", "prompt tokens", "median s", "min – max"),
    )
    first, second = [], []
    async with daemon_of(setting) as daemon, AsyncClient(daemon.socket) as client:
        model = str(setting.model)
        await client.load_and_wait(model)
        lines = await _lines_for(client, model)
        for number in range(ROUNDS):
            opening = [Message("user", _shop(number, lines))]
            seconds, answer = await _turn(client, model, opening)
            first.append(seconds)
            whole = [*opening, Message("assistant", answer), Message("user", _QUESTION)]
            seconds, _ = await _turn(client, model, whole)
            second.append(seconds)
        tokens = (
            (await client.count_tokens(opening, model=model)).count,
            (await client.count_tokens(whole, model=model)).count,
        )
    for name, count, taken in zip(("first", "second"), tokens, (first, second), strict=True):
        section.rows.append((name, str(count), *spread(Samples(tuple(taken)), digits=3)))
    section.checks.append(
        Check(
            "second turn / first turn",
            Samples(tuple(second)).median / Samples(tuple(first)).median,
            0.25,
            at_least=False,
        )
    )
    return section


def _shop(number: int, lines: int) -> str:
    """A text of its own for every conversation, different from its first words on."""
    items = "\n".join(
        f"Item {1000 * (number + 1) + line} costs {(line * 7919) % 990 + 10} coins."
        for line in range(lines)
    )
    return f"Shop {number + 1} sells this:\n{items}\nDescribe the shop."


async def _lines_for(client: AsyncClient, model: str) -> int:
    """How many lines make the conversation as long as it is to be."""

    async def count(lines: int) -> int:
        return (await client.count_tokens([Message("user", _shop(0, lines))], model=model)).count

    few, many = await count(10), await count(50)
    per_line = (many - few) / 40
    return int(10 + (CONVERSATION_TOKENS - ANSWER_TOKENS - few) / per_line)


async def _turn(client: AsyncClient, model: str, messages: list[Message]) -> tuple[float, str]:
    """Seconds to the first text, and all of it."""
    options = GenerationOptions(
        model=model, sampling=Sampling(temperature=0, max_tokens=ANSWER_TOKENS)
    )
    began = time.monotonic()
    first = None
    async with client.chat(messages, options) as generation:
        async for event in generation:
            if first is None and isinstance(event, Delta):
                first = time.monotonic() - began
    if first is None:
        raise RuntimeError("the model answered nothing")
    return first, generation.text_so_far
