from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.hardware import RAM, process_rss_bytes
from gemd.residency.states import State
from gemd.v1 import daemon_service_pb2, decision_pb2, model_service_pb2, status_pb2
from tests.support.app import MODEL, Running, fails, profile, serving
from tests.support.sensing import FakeSensor, Memory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from gemd.catalog import Profile

OTHER = "local/other"
MIB = 2**20
GIB = 2**30
WEIGHTS = 64 * MIB
"""What each worker allocates beside its interpreter."""


def two(file: Path) -> list[Profile]:
    """Two models of one file."""
    return [profile(file), profile(file, name=OTHER)]


@pytest.fixture
async def running() -> AsyncGenerator[Running]:
    """A daemon with two scripted models, whose workers hold real memory and no more is booked."""
    load = {"allocate_mib": WEIGHTS // MIB}
    async with serving(sensor=FakeSensor(), catalog=two, load=load, prompt_cache="0B") as daemon:
        yield daemon


async def warm(running: Running, *models: str) -> None:
    """Load them, one after the other."""
    for model in models:
        async for _ in running.models.LoadModel(model_service_pb2.LoadModelRequest(model=model)):
            pass


async def given(running: Running, **fields: Any) -> daemon_service_pb2.YieldedMemory:
    """What is given back of the one device that is meant."""
    answer = await running.daemon.Yield(daemon_service_pb2.YieldRequest(**fields))
    (one,) = answer.yielded
    assert isinstance(one, daemon_service_pb2.YieldedMemory)
    return one


async def status(running: Running) -> status_pb2.DaemonStatus:
    """The whole state."""
    answer = await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
    assert isinstance(answer.status, status_pb2.DaemonStatus)
    return answer.status


async def conditions(running: Running) -> list[str]:
    """The types of those that hold."""
    return [each.type for each in (await status(running)).conditions]


def ready(running: Running) -> set[str]:
    """The models that are warm."""
    found = running.app.manager.residences()
    return {model for model, seen in found.items() if seen.state is State.READY}


def resident(running: Running) -> dict[str, int]:
    """What the process of each warm model holds, in bytes."""
    return {
        spec.model: process_rss_bytes(worker.pid)
        for spec, worker in zip(running.specs, running.workers, strict=True)
        if spec.model in ready(running)
    }


async def test_everything_is_given_back(running: Running) -> None:
    """The processes have ended, a sensor has seen their memory free, and the record says so."""
    await warm(running, MODEL, OTHER)
    held = resident(running)
    assert min(held.values()) > WEIGHTS
    one = await given(running)
    assert (one.device, one.confirmed) == ("devices/cpu", True)
    assert sorted(one.models) == [f"models/{OTHER}", f"models/{MODEL}"]
    assert one.released_bytes == pytest.approx(sum(held.values()), rel=0.1)
    assert (one.kept_bytes, list(one.kept_reasons)) == (0, [])
    assert 0 < one.duration.ToMilliseconds() < 10_000
    assert not one.HasField("keep_off_until")
    assert ready(running) == set()
    assert [process_rss_bytes(worker.pid) for worker in running.workers] == [0, 0]
    state = await status(running)
    (device,) = state.devices
    assert (device.memory.ours_bytes, device.memory.reserved_bytes) == (0, 0)
    assert (state.statistics.yields, state.statistics.evictions) == (2, 0)
    # It was once, and for nobody in particular: the next request loads again.
    assert await running.answer("again")


async def test_its_reason_is_that_somebody_asked(running: Running) -> None:
    """Each model that went has a decision with the memory before and after."""
    await warm(running, MODEL)
    await given(running, device="devices/cpu")
    answer = await running.daemon.Explain(
        daemon_service_pb2.ExplainRequest(kinds=[decision_pb2.Decision.KIND_YIELD])
    )
    (made,) = answer.decisions
    assert (made.model, made.device) == (f"models/{MODEL}", "devices/cpu")
    assert [reason.code for reason in made.reasons] == ["ASKED"]
    (change,) = made.memory
    assert change.before.ours_bytes > WEIGHTS
    assert change.after.ours_bytes == 0
    assert made.HasField("effect_duration")


async def test_no_more_than_was_asked_for(running: Running) -> None:
    """One model is enough; the other stays, and it is said how much it holds and why."""
    await warm(running, MODEL, OTHER)
    held = resident(running)
    one = await given(running, device="cpu", size_bytes=WEIGHTS)
    (gone,) = one.models
    assert one.released_bytes >= WEIGHTS
    (stayed,) = ready(running)
    assert gone == f"models/{(held.keys() - {stayed}).pop()}"
    assert one.kept_bytes == pytest.approx(held[stayed], rel=0.1)
    (reason,) = one.kept_reasons
    assert (reason.code, reason.metadata["model"]) == ("ENOUGH", stayed)
    more = await given(running, size_bytes=0)
    assert (more.released_bytes, list(more.models)) == (0, [])
    assert ready(running) == {stayed}


async def test_a_pinned_model_stays_unless_it_is_forced(running: Running) -> None:
    """The answer names it; `force` takes it, and it stays pinned for the next load."""
    await warm(running, MODEL, OTHER)
    await running.models.PinModel(model_service_pb2.PinModelRequest(model=MODEL, pinned=True))
    one = await given(running)
    assert list(one.models) == [f"models/{OTHER}"]
    (reason,) = one.kept_reasons
    assert (reason.code, reason.metadata["model"]) == ("PINNED", MODEL)
    assert one.kept_bytes > WEIGHTS
    assert ready(running) == {MODEL}
    forced = await given(running, force=True)
    assert (list(forced.models), forced.kept_bytes) == ([f"models/{MODEL}"], 0)
    assert ready(running) == set()


async def test_running_answers_end_first(running: Running) -> None:
    """Nothing of them is lost, and the call answers after them."""
    await warm(running, MODEL)
    asked = asyncio.create_task(running.answer(count=30, token_seconds=0.02))
    await until_running(running)
    one = await given(running)
    assert asked.done()
    assert len((await asked).split()) == 30
    assert (list(one.models), one.kept_bytes) == ([f"models/{MODEL}"], 0)


async def test_forced_answers_are_cut_off(running: Running) -> None:
    """They get a moment, not as long as they need; their clients are told."""
    await warm(running, MODEL)
    asked = asyncio.create_task(fails(running.ask(count=6000, token_seconds=0.1)))
    await until_running(running)
    begun = time.monotonic()
    one = await given(running, force=True)
    assert list(one.models) == [f"models/{MODEL}"]
    assert time.monotonic() - begun < 60, "it would have run for ten minutes"
    assert (await asked).code is not grpc.StatusCode.OK


async def until_running(running: Running) -> None:
    """Return when a model works on a request."""
    async with asyncio.timeout(20):
        while not (await status(running)).running_requests:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)


async def test_memory_is_kept_free_until_that_is_ended(running: Running) -> None:
    """Requests are refused meanwhile, with what ends it; the status says until when."""
    await warm(running, MODEL)
    keep_off = daemon_service_pb2.YieldRequest()
    keep_off.keep_off.FromSeconds(7200)
    before = time.time()
    one = await given(running, device="cpu", keep_off=keep_off.keep_off)
    assert list(one.models) == [f"models/{MODEL}"]
    assert 7190 < one.keep_off_until.seconds - before < 7230
    state = await status(running)
    (device,) = state.devices
    assert abs(device.keep_off_until.seconds - one.keep_off_until.seconds) <= 1
    (condition,) = [each for each in state.conditions if each.type == "KeptOff"]
    assert condition.subject == "devices/cpu"
    assert condition.message.endswith(", 120 min more")
    assert list(condition.advice) == ["gemctl yield cpu --resume"]
    found = await fails(running.ask("hello"))
    assert (found.code, found.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "VRAM_BUDGET_EXCEEDED",
    )
    assert "--resume" in found.metadata["try"]
    # A second wish without a time gives back what is there, and leaves the first as it is.
    again = await given(running)
    assert abs(again.keep_off_until.seconds - one.keep_off_until.seconds) <= 1
    resumed = await given(running, resume=True)
    assert (resumed.released_bytes, resumed.HasField("keep_off_until")) == (0, False)
    assert "KeptOff" not in await conditions(running)
    assert not (await status(running)).devices[0].HasField("keep_off_until")
    assert await running.answer("hello") == "hello"


async def test_a_daemon_that_keeps_off_does_not_end_when_idle(running: Running) -> None:
    """The next one would know nothing of the wish, and load again."""
    keep_off = daemon_service_pb2.YieldRequest()
    keep_off.keep_off.FromSeconds(7200)
    await given(running, device="cpu", keep_off=keep_off.keep_off)
    assert running.app._is_bound()
    await given(running, resume=True)
    assert not running.app._is_bound()


async def test_what_is_said_to_be_given_back_was_there() -> None:
    """Of a booking for prompts that never came, nothing comes back."""
    async with serving(prompt_cache="256MiB") as running:
        await warm(running, MODEL)
        held = (await status(running)).devices[-1].memory.ours_bytes
        one = await given(running)
        assert 0.9 * held <= one.released_bytes <= 1.1 * held


async def test_a_real_gpu_is_not_asked_for_what_is_in_main_memory() -> None:
    """No model is on it in this version: what is meant is where models are."""
    sensor = FakeSensor()
    sensor.devices["gpu0"] = Memory(24 * GIB, others=GIB, vendor="nvidia")
    async with serving(sensor=sensor) as running:
        await warm(running, MODEL)
        one = await given(running)
        assert (one.device, list(one.models)) == ("devices/cpu", [f"models/{MODEL}"])


async def test_to_resume_gives_nothing_back(running: Running) -> None:
    """Also where nothing was kept free."""
    await warm(running, MODEL)
    one = await given(running, resume=True)
    assert (one.released_bytes, list(one.models)) == (0, [])
    assert ready(running) == {MODEL}


async def test_gpus_are_meant_where_there_are_any() -> None:
    """An entry for each of them, and none for the main memory unless it is named."""
    sensor = FakeSensor()
    for number in range(2):
        sensor.devices[f"gpu{number}"] = Memory(24 * GIB, others=GIB, simulated=True)
    async with serving(sensor=sensor) as running:
        answer = await running.daemon.Yield(daemon_service_pb2.YieldRequest())
        assert sorted(one.device for one in answer.yielded) == ["devices/gpu0", "devices/gpu1"]
        for name in (RAM, "gpu1"):
            one = await given(running, device=name)
            assert one.device == f"devices/{name}"


NEGATIVE = daemon_service_pb2.YieldRequest()
NEGATIVE.keep_off.FromSeconds(-1)
LONG = daemon_service_pb2.YieldRequest()
LONG.keep_off.FromSeconds(7 * 24 * 3600 + 1)
RESUMED = daemon_service_pb2.YieldRequest(resume=True)
RESUMED.keep_off.FromSeconds(0)


@pytest.mark.parametrize(
    "request_,field",
    [
        (NEGATIVE, "keep_off"),
        (LONG, "keep_off"),
        (RESUMED, "resume"),
        (daemon_service_pb2.YieldRequest(resume=True, force=True), "resume"),
        (daemon_service_pb2.YieldRequest(resume=True, size_bytes=0), "resume"),
        (daemon_service_pb2.YieldRequest(device="x" * 129), "device"),
    ],
)
async def test_a_wrong_field_is_named(
    running: Running, request_: daemon_service_pb2.YieldRequest, field: str
) -> None:
    """And nothing is given back."""
    await warm(running, MODEL)
    found = await fails(running.daemon.Yield(request_))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert found.fields == (field,)
    assert ready(running) == {MODEL}


async def test_an_unknown_device_is_not_found(running: Running) -> None:
    """The error says which there are."""
    found = await fails(running.daemon.Yield(daemon_service_pb2.YieldRequest(device="gpu7")))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert "cpu" in found.metadata["why"]
