"""The daemon's end, as its clients meet it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gemd.rpc.server import SERVICES
from gemd.v1 import (
    daemon_service_pb2,
)
from gemd.v1 import status_pb2 as status_messages
from tests.support.app import Running, fails, until, until_delta


async def test_drain_lets_answers_finish(running: Running) -> None:
    """Drain refuses what is new, waits, counts, and asks for the daemon's end."""
    await running.answer("warm")
    answer = running.ask(count=20, token_seconds=0.02)
    await until_delta(answer)
    drain = asyncio.ensure_future(running.daemon.Drain(daemon_service_pb2.DrainRequest()))
    await until(lambda: running.app.lifecycle.phase.value == "DRAINING")
    refused = await fails(running.ask("late"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    checked = await health.Check(health_pb2.HealthCheckRequest())
    assert checked.status == health_pb2.HealthCheckResponse.NOT_SERVING
    rest = [event async for event in answer]
    assert rest[-1].WhichOneof("event") == "finished"
    counted = await drain
    assert (counted.finished_requests, counted.cancelled_requests) == (1, 0)
    await asyncio.wait_for(running.app.lifecycle.wait_ending(), 5)


async def test_a_drain_goes_on_without_its_caller(running: Running) -> None:
    """A daemon that refuses everything has to end, though whoever asked for it gave up."""
    await running.answer("warm")
    answer = running.ask(count=20, token_seconds=0.02)
    await until_delta(answer)
    drain = running.daemon.Drain(daemon_service_pb2.DrainRequest())
    await until(lambda: running.app.lifecycle.phase.value == "DRAINING")
    drain.cancel()
    rest = [event async for event in answer]
    assert rest[-1].WhichOneof("event") == "finished"
    await asyncio.wait_for(running.app.lifecycle.wait_ending(), 5)


async def test_after_a_drain_ran_out_of_time_no_other_grace_begins(running: Running) -> None:
    """What outlasts the drain is counted as cut off, and is cut off."""
    answer = running.ask(count=100_000, token_seconds=0.005)
    await until_delta(answer)
    nothing = duration_pb2.Duration()
    counted = await running.daemon.Drain(daemon_service_pb2.DrainRequest(timeout=nothing))
    assert (counted.finished_requests, counted.cancelled_requests) == (0, 1)
    await asyncio.wait_for(running.app.lifecycle.wait_hurried(), 1)
    answer.cancel()


async def test_watchers_of_health_hear_of_the_end(running: Running) -> None:
    """Each service's watcher is told NOT_SERVING when the daemon begins to refuse."""
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    watches = [
        health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", SERVICES[1])
    ]
    for watch in watches:
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await running.app.drain(0)
    for watch in watches:
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_watchers_of_events_are_told_of_the_end(running: Running) -> None:
    """They read what is left and get a reason, not a connection that broke."""
    watch: Any = running.daemon.WatchEvents(
        daemon_service_pb2.WatchEventsRequest(initial_state=True)
    )
    events = aiter(watch)
    await anext(events)
    stopping = asyncio.create_task(running.app.stop(grace_s=0))
    draining = (await anext(events)).event
    assert draining.daemon.state == status_messages.DaemonInfo.STATE_DRAINING
    ended = await fails(watch)
    assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    await stopping
