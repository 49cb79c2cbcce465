"""A worker that ends by itself, or says what it should not."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from gemd import wire
from gemd.engine.spec import Ladder
from gemd.errors import Code, EngineCrashedError
from tests.support.workers import (
    alive,
    descriptors,
    eventually,
    generate,
    running,
    spec,
    stalled,
    state_of,
    text_of,
)

if TYPE_CHECKING:
    from gemd.engine.worker import Worker


async def _read_until_crash(
    worker: Worker, request: wire.Generate
) -> tuple[str, EngineCrashedError]:
    text = ""
    try:
        async for message in worker.generate(request):
            if isinstance(message, wire.Delta):
                text += message.text
    except EngineCrashedError as error:
        return text, error
    raise AssertionError("the worker did not crash")


async def test_crash_before_the_first_token_may_be_retried() -> None:
    """Nothing has been said yet: UNAVAILABLE, with exit code and stderr."""
    async with running() as worker:
        crashing = generate(count=5, crash_at=0, exit_code=9, noise=("CUDA error: 700",))
        text, error = await _read_until_crash(worker, crashing)
        assert text == ""
        assert error.code is Code.UNAVAILABLE
        assert error.metadata["exit_code"] == "9"
        assert error.metadata["stderr"] == "CUDA error: 700"
        assert error.metadata["pid"] == str(worker.pid)
        assert "code 9" in str(error)
        assert state_of(worker) == "exited"
        assert (await worker.wait_exit()).returncode == 9


async def test_crash_mid_stream_keeps_the_tokens_and_aborts() -> None:
    """The client keeps what it had; a retry would not be transparent: ABORTED."""
    async with running() as worker:
        crashing = generate(count=9, crash_at=3, signal=int(signal.SIGSEGV), token_seconds=0.005)
        text, error = await _read_until_crash(worker, crashing)
        assert text == "0 1 2"
        assert error.code is Code.ABORTED
        assert error.metadata["signal"] == "SIGSEGV"
        assert error.metadata["stderr"] == "Fatal Python error: Segmentation fault"
        assert error.metadata["oom_killed"] == "false"


async def test_kill_9_fails_every_request_of_the_worker_and_no_other() -> None:
    """All its streams end with the crash; another worker's stream goes on; nothing leaks."""
    before = descriptors()
    async with running() as victim, running() as bystander:
        crashes = [
            asyncio.create_task(
                _read_until_crash(victim, generate(str(n), count=10**6, token_seconds=0.005))
            )
            for n in range(3)
        ]
        beside = asyncio.create_task(
            text_of(bystander.generate(generate(count=40, token_seconds=0.01)))
        )
        while (await victim.ping()).active < 3:
            pass
        os.kill(victim.pid, signal.SIGKILL)
        for text, error in await asyncio.gather(*crashes):
            assert error.metadata["signal"] == "SIGKILL"
            assert error.code is (Code.ABORTED if text else Code.UNAVAILABLE)
        assert (await beside)[1].completion_tokens == 40
        with pytest.raises(EngineCrashedError):
            await text_of(victim.generate(generate(count=1)))
        with pytest.raises(EngineCrashedError):
            await victim.ping()
        assert (await victim.stop(grace_s=5)).rung == "exited"
        async with running() as successor:
            assert (await text_of(successor.generate(generate(count=2))))[0] == "0 1"
    await eventually(lambda: descriptors() <= before)


async def test_a_ping_under_way_fails_with_the_crash() -> None:
    """A question to a stuck engine ends when its process does."""
    async with running() as worker:
        stream = worker.generate(generate(count=2, stall_at=1, stall="c"))
        await anext(stream)
        await stalled(worker)
        ping = asyncio.create_task(worker.ping())
        done, _ = await asyncio.wait({ping}, timeout=0.1)
        assert not done, "the engine's thread is stuck and must not answer"
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(EngineCrashedError):
            await ping
        await stream.aclose()


@pytest.mark.parametrize(
    "fault,message",
    [
        ({"garbage_at": 2}, "not a frame"),
        ({"wrong_identity_at": 2}, "somebody-else#0"),
    ],
)
async def test_garbage_from_a_worker_is_the_end_of_it(fault: dict[str, Any], message: str) -> None:
    """Bytes that are no frame of this worker: killed, reaped, and said so."""
    async with running() as worker:
        text, error = await _read_until_crash(
            worker, generate(count=10**6, token_seconds=0.005, **fault)
        )
        assert text == "0 1"
        assert error.code is Code.ABORTED
        assert message in error.metadata["protocol_error"]
        report = await worker.wait_exit()
        assert report.signal == "SIGKILL"
        assert report.oom_killed is False
        assert message in report.protocol_error
        assert not alive(worker.pid)


async def test_an_exception_of_the_engine_is_a_crash() -> None:
    """What is no domain error ends the process, with the traceback in the tail."""
    async with running() as worker:
        _, error = await _read_until_crash(worker, generate(count=3, raise_at=1))
        assert error.metadata["exit_code"] == "1"
        assert error.metadata["stderr"].endswith("RuntimeError: scripted failure at 1")


async def test_a_worker_that_hangs_up_but_lives_is_killed() -> None:
    """A channel closed from its side leaves a process that nobody can reach; it goes."""
    async with running(spec(ladder=Ladder(close_s=0.2))) as worker:
        stream = worker.generate(generate(count=2, stall_at=1, stall="gil"))
        await anext(stream)
        await stalled(worker)
        # As if its end had been closed: the process hangs in C and cannot notice.
        worker._channel.abort()
        report = await worker.wait_exit()
        assert report.signal == "SIGKILL"
        await stream.aclose()


async def test_oom_kill_is_told_from_other_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL that nobody here sent, and a kernel that counted one more OOM kill."""
    counter = iter([3, 4])
    monkeypatch.setattr("gemd.engine.process.oom_kills", lambda: next(counter))
    async with running(spec()) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        report = await worker.wait_exit()
    assert report.oom_killed is True
    assert "memory ran out" in report.cause
