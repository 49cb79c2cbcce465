"""A model that has a smaller context than the settings say: nobody is left to guess."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gemd.hardware import RAM
from gemd.residency.states import ContextSize
from gemd.v1 import daemon_service_pb2
from tests.support.app import GIB, MODEL, fails, serving

if TYPE_CHECKING:
    from gemd.residency.states import Located

WHOLE, SMALL = 4096, 16


def too_large(located: Located) -> Located:
    """The whole context never fits; a small one does."""
    smaller = (ContextSize(SMALL, {RAM: GIB // 4}),)
    return dataclasses.replace(located, estimate_bytes=2 * GIB, smaller=smaller)


async def test_status_and_refusals_say_that_a_context_is_smaller() -> None:
    """A condition with both figures; and who asks for more hears why, and what to look at."""
    async with serving(adapt=too_large) as running:
        assert await running.answer("one two") == "one two"
        answer = await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
        (condition,) = answer.status.conditions
        assert (condition.type, condition.subject) == ("ContextReduced", f"models/{MODEL}")
        assert f"{SMALL} of {WHOLE} tokens" in condition.message
        refused = await fails(running.ask("word " * (SMALL + 1)))
        assert refused.reason == "CONTEXT_TOO_LONG"
        assert refused.metadata["whole_context_tokens"] == str(WHOLE)
        assert f"its whole {WHOLE}" in refused.metadata["why"]
        assert f"gemctl why {MODEL}" in refused.metadata["try"]


async def test_a_whole_context_is_no_news() -> None:
    """Whatever does not fit does not fit, and nothing stands in the status."""
    async with serving() as running:
        assert await running.answer("one two") == "one two"
        answer = await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
        assert list(answer.status.conditions) == []
        refused = await fails(running.ask("word " * (WHOLE + 1)))
        assert refused.reason == "CONTEXT_TOO_LONG"
        assert "whole_context_tokens" not in refused.metadata
