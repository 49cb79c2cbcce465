"""A worker process whose context is made anew: scripted ones, and SmolLM2."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from gemd import wire
from gemd.engine.worker import Worker, WorkerSpec
from gemd.errors import (
    CancelledError,
    ContextTooLongError,
    EngineCrashedError,
    EngineStartFailedError,
    ModelBusyError,
    ShuttingDownError,
)
from gemd.footprint import Placement, gguf_shape, predict_gguf, read_gguf_model
from tests.support.workers import QUICK, eventually, generate, running, spec, state_of, text_of

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform == "linux":
    import resource

LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux limits the memory of another process"
)
MIB = 1 << 20


async def _resize(worker: Worker, context_tokens: int) -> wire.Resized:
    return await worker.resize(context_tokens=context_tokens, prompt_cache_bytes=0)


def _prompt(words: int) -> wire.Generate:
    return wire.Generate(
        request_id=f"p{words}",
        prompt=wire.Prompt(text=" ".join(["sea"] * words)),
        sampling=wire.Sampling(max_tokens=4, ignore_eos=True),
    )


# --- the channel, with scripted workers -----------------------------------------------------


async def test_the_worker_says_its_new_size_and_keeps_it() -> None:
    """In the answer, in what is known of it, and in what it refuses; the memory follows."""
    async with running(spec(cell_bytes=16 * 1024)) as worker:
        before = worker.rss_bytes()
        loaded = worker.ready
        resized = await _resize(worker, 1024)
        assert resized.context_tokens == worker.ready.context_tokens == 1024
        assert worker.ready.memory_bytes == resized.memory_bytes == {"CPU": 16 * MIB}
        assert before - worker.rss_bytes() > 0.9 * 48 * MIB
        with pytest.raises(ContextTooLongError, match="the context 1024"):
            await text_of(worker.generate(_prompt(1025)))
        await _resize(worker, 4096)
        assert worker.ready == loaded
        assert not worker._requests._cancelled
        assert (await text_of(worker.generate(_prompt(1025))))[1].prompt_tokens == 1025


async def test_a_resize_beside_a_request_is_refused_and_the_request_ends_well() -> None:
    """At once: it does not wait for the answer to be complete."""
    async with running() as worker:
        stream = worker.generate(generate(count=1000, token_seconds=0.001))
        await anext(stream)
        with pytest.raises(ModelBusyError):
            await _resize(worker, 512)
        assert (await worker.ping()).active == 1
        assert worker.ready.context_tokens == 4096
        assert (await text_of(stream))[1].completion_tokens == 1000
        await _resize(worker, 512)


async def test_a_request_behind_a_resize_gets_the_new_size() -> None:
    """It waits for it in the channel and knows nothing of it."""
    async with running(spec(resize_seconds=0.2)) as worker:
        resizing = asyncio.create_task(_resize(worker, 512))
        await asyncio.sleep(0)
        with pytest.raises(ContextTooLongError, match="the context 512"):
            await text_of(worker.generate(_prompt(513)))
        await resizing


async def test_a_size_is_known_although_nobody_waited_for_it() -> None:
    """Whoever asked was cancelled; the worker did it all the same."""
    async with running(spec(resize_seconds=0.2)) as worker:
        resizing = asyncio.create_task(_resize(worker, 512))
        await asyncio.sleep(0)
        resizing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await resizing
        await worker.ping()
        assert worker.ready.context_tokens == 512
        await eventually(lambda: not worker._requests._cancelled)


async def test_a_refused_size_leaves_worker_and_size() -> None:
    """The engine's own error arrives."""
    error = wire.ErrorBody.of(EngineStartFailedError("no room", metadata={"context_tokens": 512}))
    async with running(spec(resize_error=error.model_dump())) as worker:
        with pytest.raises(EngineStartFailedError, match="no room") as caught:
            await _resize(worker, 512)
        assert caught.value.metadata == {"context_tokens": "512"}
        assert state_of(worker) == "ready"
        assert worker.ready.context_tokens == 4096
        assert (await text_of(worker.generate(generate(count=2))))[0] == "0 1"


async def test_a_worker_that_has_lost_its_context_is_gone_when_that_is_said() -> None:
    """With the engine's reason and the process's end."""
    error = wire.ErrorBody.of(EngineCrashedError("no room at all", why="it was refused"))
    async with running(spec(resize_error=error.model_dump())) as worker:
        with pytest.raises(EngineCrashedError, match="no room at all: it was refused") as caught:
            await _resize(worker, 512)
        assert state_of(worker) == "exited"
        assert caught.value.metadata["exit_code"] == "1"
        assert caught.value.metadata["model"] == "scripted"
        with pytest.raises(EngineCrashedError):
            await _resize(worker, 512)


async def test_a_worker_that_dies_or_ends_meanwhile_says_so() -> None:
    """Killed: crashed. Stopped without grace: cancelled. Asked while it ends: shutting down."""
    slow = spec(resize_seconds=3600)
    async with running(slow) as worker:
        resizing = asyncio.create_task(_resize(worker, 512))
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(EngineCrashedError) as caught:
            await resizing
        assert caught.value.metadata["signal"] == "SIGKILL"
    async with running(slow) as worker:
        resizing = asyncio.create_task(_resize(worker, 512))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(worker.stop(grace_s=0))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDownError):
            await _resize(worker, 512)
        with pytest.raises(CancelledError):
            await resizing
        await stopping


# --- memory, with a model -------------------------------------------------------------------


def _smollm2(path: Path, context_tokens: int) -> WorkerSpec:
    load = wire.Load(
        path=str(path), context_tokens=context_tokens, max_sequences=4, threads=1, use_mmap=True
    )
    return WorkerSpec(model="smol", engine="llama", load=load, environ=os.environ, ladder=QUICK)


def _kv_bytes(path: Path, context_tokens: int) -> int:
    prediction = predict_gguf(
        gguf_shape(read_gguf_model(path)),
        context_tokens=context_tokens,
        max_sequences=4,
        placement=Placement(),
    )
    return prediction.host.kv_cache


async def test_the_cache_of_a_model_goes_back_to_the_system_and_returns(smollm2: Path) -> None:
    """The resident size follows the cache both ways, time and again; answers go on."""
    async with running(_smollm2(smollm2, 8192)) as worker:
        text, _ = await text_of(worker.generate(_prompt(40)))
        large = worker.rss_bytes()
        # A cache below 32 MiB is where the C library would keep freed memory for itself.
        for size in (1024, 256):
            cells = _kv_bytes(smollm2, 8192) - _kv_bytes(smollm2, size)
            resized = await _resize(worker, size)
            small = worker.rss_bytes()
            assert large - small > 0.95 * cells
            assert resized.memory_bytes["CPU"] == pytest.approx(small, rel=0.05)
            assert (await text_of(worker.generate(_prompt(40))))[0] == text
            await _resize(worker, 8192)
            assert worker.rss_bytes() == pytest.approx(large, abs=0.1 * cells)


async def test_a_model_that_answers_is_not_disturbed(smollm2: Path) -> None:
    """The resize is refused and the answer complete; a longer prompt is refused afterwards."""
    async with running(_smollm2(smollm2, 512)) as worker:
        long = _prompt(280)
        stream = worker.generate(long)
        await anext(stream)
        with pytest.raises(ModelBusyError):
            await _resize(worker, 256)
        assert (await text_of(stream))[1].completion_tokens == 4
        await _resize(worker, 256)
        with pytest.raises(ContextTooLongError) as caught:
            await text_of(worker.generate(long))
        assert caught.value.metadata["limit"] == "255"


async def _with_room(worker: Worker, room_mib: int, context_tokens: int) -> wire.Resized:
    """Resize while the process may not take more than so much beside what it has."""
    space = psutil.Process(worker.pid).memory_info().vms + room_mib * MIB
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (space, space))
    return await _resize(worker, context_tokens)


@LINUX
async def test_the_old_cache_makes_room_for_the_new_one(smollm2: Path) -> None:
    """It is gone before the new one is made: 180 MiB of cells, and 90 in their place."""
    async with running(_smollm2(smollm2, 8192)) as worker:
        assert (await _with_room(worker, 0, 4096)).context_tokens == 4096


@LINUX
async def test_without_memory_for_the_new_size_the_old_one_comes_back(smollm2: Path) -> None:
    """The worker answers as before, and takes a size for which there is memory."""
    async with running(_smollm2(smollm2, 256)) as worker:
        with pytest.raises(EngineStartFailedError, match="a context of 8192 tokens"):
            await _with_room(worker, 32, 8192)
        assert worker.ready.context_tokens == 256
        assert (await text_of(worker.generate(_prompt(40))))[1].completion_tokens == 4
        assert (await _resize(worker, 512)).context_tokens == 512


@LINUX
async def test_without_memory_for_either_size_the_worker_ends(smollm2: Path) -> None:
    """It says what it was refused, and is gone by then."""
    async with running(_smollm2(smollm2, 8192)) as worker:
        # Some of what the old one had is left: llama.cpp aborts when it cannot have a graph.
        with pytest.raises(EngineCrashedError, match="4096 tokens, nor again one of 8192"):
            await _with_room(worker, -180, 4096)
        assert state_of(worker) == "exited"
