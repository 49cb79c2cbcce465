from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import grpc
import pytest

from gemd.client import AsyncClient
from gemd.doctor import Check, Diagnosis, Errand, Result, checks
from gemd.rpc.convert import diagnoses
from gemd.v1 import daemon_service_pb2 as service
from gemd.v1 import model_service_pb2, status_pb2
from tests.support.app import MODEL, Running, fails, serving
from tests.support.sensing import FakeSensor, Memory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gemd.doctor import Surroundings

GIB = 2**30


@pytest.fixture
async def running() -> AsyncGenerator[Running]:
    """A daemon with one scripted model and a GPU, which asks nobody over the network."""
    sensor = FakeSensor()
    sensor.devices["gpu0"] = Memory(24 * GIB, others=20 * GIB, name="RTX", vendor="nvidia")
    async with serving(sensor=sensor, offline=True) as daemon:
        yield daemon


async def diagnosed(
    running: Running, *names: str, thorough: bool = False
) -> dict[str, service.Diagnosis]:
    """What the daemon's doctor finds, by check."""
    request = service.DiagnoseRequest(checks=names, thorough=thorough)
    answer = await running.daemon.Diagnose(request)
    return {each.check: each for each in answer.diagnoses}


async def test_the_daemon_makes_every_check(running: Running) -> None:
    """In their order, each with a result and a detail; none of them breaks."""
    found = await diagnosed(running)
    assert list(found) == [check.name for check in checks.CHECKS]
    for each in found.values():
        assert each.result != service.Diagnosis.RESULT_UNSPECIFIED
        assert each.detail
        assert "the check" not in each.detail, each
    assert found["hub"].result == service.Diagnosis.RESULT_SKIPPED


async def test_it_sees_itself_from_inside(running: Running) -> None:
    """Its own pid, its own workers, and the conditions that it reports."""
    async for _ in running.models.LoadModel(model_service_pb2.LoadModelRequest(model=MODEL)):
        pass
    found = await diagnosed(running, "memory", "daemon")
    assert list(found) == ["daemon", "memory"]
    assert f"pid {os.getpid()}, serving" in found["daemon"].detail
    assert "1 model in memory" in found["daemon"].detail
    assert "models hold" in found["memory"].detail
    status = await running.daemon.GetStatus(service.GetStatusRequest())
    for condition in status.status.conditions:
        assert condition.message in found["daemon"].detail


async def test_the_sensors_of_the_daemon_are_believed(running: Running) -> None:
    """What its own sampler saw is judged, and no second one is opened."""
    found = (await diagnosed(running, "gpu-memory"))["gpu-memory"]
    assert found.result == service.Diagnosis.RESULT_WARNING
    assert found.detail.startswith("gpu0: 20.0 GiB of 24.0 GiB are in use by other programs")
    assert list(found.fixes) == ["nvidia-smi"]


def test_names_that_are_no_utf_8_reach_the_client() -> None:
    """One such file must not cost all other rows."""
    odd = os.fsdecode(b"/models/\xff")
    found = Diagnosis("models", Result.FAILED, f"{odd} is gone", (f"ls -l {odd}",))
    (row,) = diagnoses.response([found]).diagnoses
    assert (row.detail, list(row.fixes)) == ("/models/? is gone", ["ls -l /models/?"])


def test_a_models_process_is_where_its_weights_are() -> None:
    """What it holds of main memory beside a GPU does not make it one of main memory's."""
    status = status_pb2.DaemonStatus()
    for pid, held in ((7, {"cpu": 5, "gpu1": 9}), (8, {"cpu": 5, "gpu0": 0}), (0, {"gpu0": 9})):
        model = status.models.add(pid=pid)
        for device, size in held.items():
            model.memory.add(device=f"devices/{device}", booked_bytes=size)
    assert diagnoses.report(status).workers == {7: "gpu1", 8: "cpu"}


async def test_an_unknown_check_is_refused_with_the_nearest(running: Running) -> None:
    """And a name that cannot be one is refused before it is compared."""
    found = await fails(running.daemon.Diagnose(service.DiagnoseRequest(checks=["gpu-memry"])))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert found.fields == ("checks",)
    assert found.metadata["why"] == "the nearest one is gpu-memory"
    assert found.metadata["try"] == "gemctl doctor gpu-memory"
    found = await fails(running.daemon.Diagnose(service.DiagnoseRequest(checks=["x" * 1000])))
    assert found.fields == ("checks",)


async def test_clients_get_plain_values(running: Running) -> None:
    """The rows with the words of the API, without their enum's prefix."""
    async with AsyncClient(running.paths.socket) as client:
        rows = await client.diagnose(["limits", "hub"])
    assert [row.check for row in rows] == ["hub", "limits"]
    assert rows[0].result == "SKIPPED"
    assert rows[0].detail.startswith("not asked")
    assert rows[0].fixes == ()


async def test_a_check_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon answers others meanwhile, and a caller that goes away ends the work."""
    began, stopped = threading.Event(), threading.Event()

    def hang(_: Surroundings, errand: Errand) -> Diagnosis:
        began.set()
        try:
            errand.stop.wait(60)
        finally:
            stopped.set()
        return Diagnosis("slow", Result.OK, "read")

    monkeypatch.setattr(checks, "CHECKS", (Check("slow", hang),))
    async with serving() as running:
        asked = asyncio.ensure_future(
            running.daemon.Diagnose(service.DiagnoseRequest(thorough=True))
        )
        assert await asyncio.to_thread(began.wait, 20)
        await running.daemon.GetInfo(service.GetInfoRequest())
        asked.cancel()
        assert await asyncio.to_thread(stopped.wait, 20)
