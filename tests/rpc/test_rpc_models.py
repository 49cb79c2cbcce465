"""Models over gRPC: lists, loads, pins, unloads, and names that mean nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import duration_pb2

from gemd.v1 import (
    generation_service_pb2,
    model_pb2,
    model_service_pb2,
    store_service_pb2,
)
from tests.support.app import MODEL, Running, fails, profile, serving, until_delta

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile


def some(file: Path) -> list[Profile]:
    """Five models of one file, and one whose file is missing."""
    gone = file.with_name("gone.gguf")
    gone.write_bytes(file.read_bytes())
    missing = profile(gone, name="local/missing")
    gone.unlink()
    return [profile(file, name=f"local/m{index}") for index in range(5)] + [missing]


async def test_lists_come_in_pages() -> None:
    """Models are ordered by id; the token leads on, and the last page has none."""
    async with serving(catalog=some) as running:
        names: list[str] = []
        token = ""
        while True:
            answer = await running.models.ListModels(
                model_service_pb2.ListModelsRequest(page_size=2, page_token=token)
            )
            assert len(answer.models) <= 2
            names += [model.id for model in answer.models]
            token = answer.next_page_token
            if not token:
                break
        assert names == sorted(names)
        assert len(names) == 6
        absent = await running.models.ListModels(
            model_service_pb2.ListModelsRequest(states=[model_pb2.Model.STATE_ABSENT])
        )
        assert [model.id for model in absent.models] == ["local/missing"]
        found = await fails(
            running.models.ListModels(model_service_pb2.ListModelsRequest(page_token="x"))
        )
        assert found.fields == ("page_token",)


async def test_models_are_loaded_pinned_and_unloaded(running: Running) -> None:
    """LoadModel ends with the READY model; the pin stays through an unload, and on disk."""
    load = running.models.LoadModel(model_service_pb2.LoadModelRequest(model=MODEL))
    events = [event async for event in load]
    ready = events[-1].ready
    assert ready.state == model_pb2.Model.STATE_READY
    assert ready.pid == running.workers[0].pid
    assert ready.memory[0].measured_bytes > 0
    assert {event.WhichOneof("event") for event in events[:-1]} == {"loading"}
    pinned = await running.models.PinModel(
        model_service_pb2.PinModelRequest(model=f"models/{MODEL}", pinned=True)
    )
    assert pinned.model.pinned
    unloaded = await running.models.UnloadModel(model_service_pb2.UnloadModelRequest(model=MODEL))
    assert unloaded.model.state == model_pb2.Model.STATE_ON_DISK
    assert unloaded.model.pinned
    assert unloaded.model.pid == 0
    pins = running.paths.socket.parent.parent / "pins.json"
    assert pins.read_text(encoding="utf-8") == f'["{MODEL}"]'


async def test_a_pin_that_cannot_be_kept_is_none(running: Running) -> None:
    """Where the file cannot be written, the call fails and the model is as it was."""
    pins = running.paths.socket.parent.parent / "pins.json"
    pins.mkdir()
    for pinned in (True, False):
        request = model_service_pb2.PinModelRequest(model=MODEL, pinned=True)
        await running.app.manager.pin(MODEL, pinned=not pinned)
        request.pinned = pinned
        await fails(running.models.PinModel(request))
        assert running.app.manager.residence(MODEL).pinned is not pinned
    pins.rmdir()
    await running.models.PinModel(model_service_pb2.PinModelRequest(model=MODEL, pinned=True))
    assert running.app.manager.residence(MODEL).pinned


async def test_unload_can_end_running_answers(running: Running) -> None:
    """A drain time of 0 ends them with CANCELLED; the worker is gone afterwards."""
    answer = running.ask(count=10_000, token_seconds=0.005)
    await until_delta(answer)
    await running.models.UnloadModel(
        model_service_pb2.UnloadModelRequest(model=MODEL, drain_timeout=duration_pb2.Duration())
    )
    assert running.workers[0].state == "exited"
    assert (await fails(answer)).reason == "CANCELLED"


async def test_a_model_that_answers_is_said_to(running: Running) -> None:
    """Who wants to remove it learns how many requests would be cut off."""
    answer = running.ask(count=10_000, token_seconds=0.005)
    await until_delta(answer)
    request = store_service_pb2.DeleteModelRequest(model=MODEL)
    found = await fails(running.store.DeleteModel(request))
    assert found.message == f"{MODEL} is loaded and answers 1 request"
    assert found.metadata["active"] == "1"
    answer.cancel()


async def test_a_default_model_that_is_not_there_is_blamed_on_its_setting() -> None:
    """The client named none: where it was named, and how that is undone."""
    async with serving(default_model="nobody", default_origin="GEMD_DEFAULT_MODEL") as running:
        text = generation_service_pb2.GenerateRequest(text="x")
        count = generation_service_pb2.CountTokensRequest(text="x")
        for found in (
            await fails(running.generation.Generate(text)),
            await fails(running.generation.CountTokens(count)),
        ):
            assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
            assert "GEMD_DEFAULT_MODEL sets default_model to it" in found.metadata["why"]
            assert found.metadata["try"].startswith("unset GEMD_DEFAULT_MODEL")
        text.model = "nobody"
        assert "default_model" not in str(await fails(running.generation.Generate(text)))


async def test_an_unknown_model_is_not_found(running: Running) -> None:
    """By every way to name one."""
    for found in (
        await fails(running.models.GetModel(model_service_pb2.GetModelRequest(name="nobody"))),
        await fails(running.models.LoadModel(model_service_pb2.LoadModelRequest(model="nobody"))),
        await fails(
            running.generation.Generate(
                generation_service_pb2.GenerateRequest(text="x", model="nobody")
            )
        ),
    ):
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        assert found.metadata["model"] == "nobody"
        assert found.metadata["try"]


LOADS: list[tuple[dict[str, Any], str, str]] = [
    ({"context_length": 0}, "INVALID_REQUEST", "context_length"),
    ({"max_sequences": 0}, "INVALID_REQUEST", "max_sequences"),
    ({"priority": 99}, "INVALID_REQUEST", "priority"),
    ({"client": "x" * 129}, "INVALID_REQUEST", "client"),
    ({"context_length": 512}, "UNIMPLEMENTED", "context_length"),
]


@pytest.mark.parametrize("fields,reason,field", LOADS)
async def test_a_load_checks_its_fields(
    running: Running, fields: dict[str, Any], reason: str, field: str
) -> None:
    """0 is no length, and what is not chosen by the request yet says so."""
    request = model_service_pb2.LoadModelRequest(model=MODEL, **fields)
    found = await fails(running.models.LoadModel(request))
    assert (found.reason, found.metadata["field"]) == (reason, field)


async def test_a_daemon_of_short_requests_gives_long_answers() -> None:
    """The limit is on what it takes; a status or a list of vectors may be larger."""
    async with serving(max_message_bytes="64KiB") as running:
        continuation = generation_service_pb2.Continuation(text="x " * 20_000)
        answer = await running.generation.Score(
            generation_service_pb2.ScoreRequest(text="a", continuations=[continuation])
        )
        assert answer.ByteSize() > 64 * 1024
