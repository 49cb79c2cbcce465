"""Requests that cannot become tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd import wire
from tests.support.llama import Bench, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMPT = wire.Prompt(text="hello")


@pytest.fixture(scope="module")
def smol(smollm2: Path) -> Iterator[Bench]:
    """A loaded SmolLM2."""
    with loaded(smollm2, context_tokens=256) as bench:
        yield bench


@pytest.mark.parametrize(
    "request_",
    [
        wire.Score(request_id="none", prompt=PROMPT, continuations=()),
        wire.Score(request_id="empty", prompt=PROMPT, continuations=("",)),
        wire.Score(request_id="no-tokens", prompt=PROMPT, continuations=((),)),
        wire.Score(request_id="unknown", prompt=PROMPT, continuations=((49152,),)),
        wire.Embed(request_id="no-texts", texts=()),
        wire.Embed(request_id="empty-text", texts=("a", "")),
        wire.Count(request_id="no-input", prompt=wire.Prompt()),
        wire.Generate(
            request_id="bias",
            prompt=PROMPT,
            sampling=wire.Sampling(logit_bias={49152: 1.0}),
        ),
    ],
    ids=lambda request: request.request_id,
)
def test_a_request_for_nothing_is_refused_and_the_worker_goes_on(
    smol: Bench, request_: wire.Work
) -> None:
    """A named error of that request; anything else would end the process and all answers."""
    smol.run(request_)
    error = smol.of(request_).one(wire.RequestFailed).error
    assert error.reason == "INVALID_REQUEST"
    assert error.metadata["field"]
    assert smol.engine.idle()


@pytest.mark.parametrize(
    "field,value",
    [("spans", (wire.Span(free=True),)), ("watch_canvas", True), ("candidates", 2)],
)
def test_what_needs_a_canvas_is_refused(smol: Bench, field: str, value: object) -> None:
    """The daemon does not send it; whoever does is told, and the worker goes on."""
    request = wire.Generate(request_id=field, prompt=PROMPT).model_copy(update={field: value})
    smol.run(request)
    error = smol.of(request).one(wire.RequestFailed).error
    assert (error.reason, error.metadata["field"]) == ("UNSUPPORTED_INPUT", field)
    assert smol.engine.idle()
