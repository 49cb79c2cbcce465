"""A worker that does not end although it was killed, as users see it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gemd.engine.spec import Ladder
from gemd.v1 import daemon_service_pb2, model_service_pb2
from tests.support.app import MODEL, fails, serving
from tests.support.workers import eventually, unkillable

if TYPE_CHECKING:
    from gemd.residency.states import Located

HASTY = Ladder(close_s=0.2, terminate_s=0.2, kill_s=0.2)


def stubborn(located: Located) -> Located:
    """Its worker is given little time for its end, and that to the end of its request."""
    return dataclasses.replace(located, spec=dataclasses.replace(located.spec, ladder=HASTY))


async def test_status_and_refusals_name_a_worker_that_does_not_end() -> None:
    """Until it has ended; after that the model is loaded as ever."""
    async with serving(load={"ignore_sigterm": True}, adapt=stubborn) as running:
        with unkillable() as let_go:
            answer = asyncio.create_task(running.answer(count=5, stall_at=1, stall="gil"))
            await eventually(
                lambda: running.workers != [] and "stalled" in running.workers[0]._process.lines
            )
            request = model_service_pb2.UnloadModelRequest(model=MODEL, drain_timeout=Duration())
            unloaded = await fails(running.models.UnloadModel(request))
            assert unloaded.reason == "ENGINE_CRASHED"
            assert "does not end" in unloaded.message
            with pytest.raises(grpc.aio.AioRpcError, match="does not end"):
                await answer
            refused = await fails(running.ask("one"))
            assert refused.reason == "ENGINE_CRASHED"
            assert "keeps its memory" in refused.metadata["why"]
            status = await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
            (condition,) = status.status.conditions
            assert (condition.type, condition.subject) == ("WorkerStuck", f"models/{MODEL}")
            assert f"process {running.workers[0].pid}" in condition.message
            let_go()
            await running.workers[0].wait_exit()
        assert await running.answer("one two") == "one two"
        status = await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
        assert list(status.status.conditions) == []
