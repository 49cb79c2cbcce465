"""A daemon with two scripted tiers, questions they answer differently, and all that is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gemd.v1 import generation_pb2 as generation
from gemd.v1 import generation_service_pb2 as service
from gemd.v1.model_service_pb2 import LoadModelRequest
from gemd.wire import Trace
from tests.support.app import Running, profile, serving
from tests.support.tiers import FAST, STRONG, tiers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gemd.catalog import Profile

CHECKER = "local/small"
QUESTION = "Tell me something about the sea."


def trace(steps: int = 4, entropy: float = 0.05) -> Trace:
    """Of a draft of one canvas that took so many of 48 steps."""
    return Trace(
        canvases=1,
        steps=steps,
        max_steps=48,
        capped=int(steps == 48),
        positions=8,
        first_entropy_mean=entropy,
        first_entropy_q90=2 * entropy,
        first_entropy_max=4 * entropy,
        last_entropy_mean=entropy / 10,
        last_entropy_q90=entropy / 5,
        last_entropy_max=entropy / 2,
        late_entropy_area=entropy / 10,
        flips=entropy,
        late_flips=0.0,
        margin_q10=max(0.0, 1 - entropy),
    )


HOPELESS = trace(48, 6.0)
"""Of a canvas that did not settle."""


@contextlib.asynccontextmanager
async def both_tiers(
    *, warm: tuple[str, ...] = (FAST, STRONG), **settings: Any
) -> AsyncIterator[Running]:
    """A daemon with both, warm, and a verifier that nobody has asked for.

    Args:
        warm: Models that are loaded before anybody asks.
        settings: Fields of `Settings`.

    """

    def catalog(file: Path) -> list[Profile]:
        return [*tiers(file), profile(file, name=CHECKER, roles=("verifier",), quality=5)]

    chosen = {"default_model": "auto", "fast_model": FAST, "strong_model": STRONG}
    async with serving(catalog=catalog, **{**chosen, **settings}) as running:
        await asyncio.gather(*(_load(running, model) for model in warm))
        yield running


async def _load(running: Running, model: str) -> None:
    async for _ in running.models.LoadModel(LoadModelRequest(model=model)):
        pass


@dataclass
class Told:
    """The events of one answer.

    Attributes:
        events: All of them.
        error: What it ended with; None if it ended well.

    """

    events: list[service.GenerateResponse] = field(default_factory=list)
    error: Exception | None = None

    @property
    def kinds(self) -> list[str]:
        """Their kinds in order, repeated ones once."""
        found: list[str] = []
        for event in self.events:
            kind = event.WhichOneof("event") or ""
            if not found or found[-1] != kind:
                found.append(kind)
        return found

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(event.delta.text for event in self.events)

    @property
    def draft(self) -> str:
        """What was provisional."""
        return "".join(event.draft.text for event in self.events)

    def one(self, kind: str) -> Any:
        """The only event of a kind."""
        [found] = [event for event in self.events if event.WhichOneof("event") == kind]
        return getattr(found, kind)


def scripted(
    models: dict[str, dict[str, Any]],
    *,
    question: str = QUESTION,
    then: dict[str, dict[str, Any]] | None = None,
    **fields: Any,
) -> service.GenerateRequest:
    """A question, and ahead of it what each model makes of it.

    The scripts stand in an earlier turn, so that the question is one that can be looked at. With
    `then`, which is what they make of whatever is asked behind the answer, they are the question.
    """
    play = json.dumps({"models": models, "again": then or {}})
    turns = [("ROLE_USER", play)]
    if then is None:
        turns += [("ROLE_ASSISTANT", "I see."), ("ROLE_USER", question)]
    chat = generation.Chat(
        messages=[
            generation.Message(
                role=generation.Message.Role.Value(role),
                parts=[generation.Part(text=text)],
            )
            for role, text in turns
        ]
    )
    return service.GenerateRequest(chat=chat, **fields)


async def ask(running: Running, request: service.GenerateRequest, **call: Any) -> Told:
    """All that a request is answered with."""
    told = Told()
    try:
        async for event in running.generation.Generate(request, **call):
            told.events.append(event)
    except Exception as error:  # noqa: BLE001 - for the test to look at
        told.error = error
    return told
