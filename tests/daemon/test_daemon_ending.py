from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING

import grpc

from gemd.engine.spec import Ladder
from gemd.rpc.activity import Activity, is_use
from gemd.rpc.app import LONGEST_STOP_S
from gemd.rpc.idle import IdleExit
from gemd.rpc.lifecycle import Phase
from tests.support.app import MODEL, fails, serving, until
from tests.support.residency import FakeClock
from tests.support.workers import state_of

if TYPE_CHECKING:
    from gemd.residency.states import Located


async def test_a_worker_that_ignores_everything_is_killed_in_time() -> None:
    """Neither a drain nor SIGTERM moves it; the daemon is gone soon all the same."""

    def hasty(located: Located) -> Located:
        ladder = Ladder(close_s=0.2, terminate_s=0.2, kill_s=10)
        return dataclasses.replace(located, spec=dataclasses.replace(located.spec, ladder=ladder))

    stubborn = {"ignore_sigterm": True, "ignore_drain": True}
    async with serving(load=stubborn, adapt=hasty) as running:
        answer = running.ask(stall_at=1, stall="gil", tokens=["a", "b"])
        await until(lambda: running.app.manager.residence(MODEL).active == 1)
        worker = running.workers[0]
        began = time.monotonic()
        await running.app.stop(grace_s=0.2)
        assert time.monotonic() - began < LONGEST_STOP_S + 1
        assert state_of(worker) == "exited"
        assert not running.paths.socket.exists()
        answer.cancel()


async def test_running_answers_get_their_grace() -> None:
    """An answer that ends within the grace is complete; nothing new is begun."""
    async with serving() as running:
        await running.answer("warm")
        answer = running.ask(count=20, token_seconds=0.02)
        await until(lambda: running.app.manager.residence(MODEL).active == 1)
        stopping = asyncio.create_task(running.app.stop(grace_s=10))
        await until(lambda: running.app.lifecycle.phase is Phase.DRAINING)
        late = await fails(running.ask("late"))
        assert (late.reason, late.metadata["try"]) == ("SHUTTING_DOWN", f"gemctl load {MODEL}")
        events = [event async for event in answer]
        assert events[-1].WhichOneof("event") == "finished"
        await stopping


async def test_an_answer_that_outlasts_its_grace_is_told_so() -> None:
    """It ends with a reason of gemd's, and not as a connection that broke."""
    async with serving() as running:
        answer = running.ask(count=100_000, token_seconds=0.005)
        await until(lambda: running.app.manager.residence(MODEL).active == 1)
        stopping = asyncio.create_task(running.app.stop(grace_s=0.1))
        seen = await fails(answer)
        assert (seen.code, seen.reason) == (grpc.StatusCode.CANCELLED, "CANCELLED")
        assert seen.metadata["model"] == MODEL
        assert seen.metadata["why"] == "gemd is ending"
        assert seen.metadata["try"] == f"gemctl load {MODEL}"
        await stopping


async def test_the_second_signal_ends_the_grace() -> None:
    """Whoever asks twice does not want to wait."""
    async with serving() as running:
        answer = running.ask(count=100_000, token_seconds=0.005)
        await until(lambda: running.app.manager.residence(MODEL).active == 1)
        running.app.lifecycle.end()
        began = time.monotonic()
        stopping = asyncio.create_task(running.app.stop(grace_s=12))
        await until(lambda: running.app.lifecycle.phase is Phase.DRAINING)
        running.app.lifecycle.end()
        await stopping
        assert time.monotonic() - began < 8
        answer.cancel()


async def test_idleness_ends_the_daemon_after_its_time() -> None:
    """Use puts the end off; what binds the daemon puts it off as well."""
    clock = FakeClock()
    activity = Activity(now=clock.time)
    ended: list[float] = []
    bound = [False]
    idle = IdleExit(
        idle_s=60,
        last_use=activity.last_use,
        is_bound=lambda: bound[0],
        end=lambda: ended.append(clock.now),
        clock=clock,
    )
    start = clock.now
    idle.start()
    await clock.advance(50)
    activity.begin("/gemd.v1.GenerationService/Generate")
    await clock.advance(100)
    activity.end("/gemd.v1.GenerationService/Generate")
    assert idle.when == start + 150 + 60
    await clock.advance(59)
    assert ended == []
    bound[0] = True
    await clock.advance(100)
    assert ended == []
    bound[0] = False
    await clock.advance(60)
    assert len(ended) == 1


def test_looking_is_no_use() -> None:
    """A monitor must not keep a forgotten daemon alive; work does."""
    assert is_use("/gemd.v1.GenerationService/Generate")
    assert is_use("/gemd.v1.ModelService/LoadModel")
    assert not is_use("/gemd.v1.DaemonService/GetStatus")
    assert not is_use("/gemd.v1.DaemonService/WatchEvents")
    assert not is_use("/grpc.health.v1.Health/Check")


async def test_a_pull_or_a_pinned_warm_model_binds_an_idle_daemon() -> None:
    """A pin alone does not: it survives restarts, and would keep every daemon for ever."""
    async with serving() as running:
        assert not running.app._is_bound()
        await running.app.manager.pin(MODEL, pinned=True)
        assert not running.app._is_bound()
        await running.answer("warm")
        assert running.app._is_bound()
