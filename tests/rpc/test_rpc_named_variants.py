"""MODEL:VARIANT as the name of a model: loaded, seen, planned and removed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import HubSource, Profile, Variant
from gemd.store import Manifest, Store
from gemd.store.manifest import Stamp
from gemd.v1 import daemon_service_pb2, model_pb2, model_service_pb2, store_service_pb2
from gemd.v1 import generation_service_pb2 as generation
from tests.support.app import Running, fails, serving, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SOURCE = HubSource(repository="someone/tiny", file="tiny.gguf")


def on_disk(file: Path) -> list[Profile]:
    """A model with two variants, both in the store of that home."""
    store = Store(file.parent / "store")
    variants = []
    for name in ("a", "b"):
        data = f"GGUF{name}".encode()
        digest = hashlib.sha256(data).hexdigest()
        path = store.root / "blobs" / f"{digest}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        variants.append(
            Variant(
                id=name,
                quantization="none",
                engine="scripted",
                file_name="tiny.gguf",
                size_bytes=len(data),
                sha256=digest,
                sources=(SOURCE,),
            )
        )
        store.record(
            Manifest(
                model="tiny",
                variant=name,
                path=f"blobs/{path.name}",
                sha256=digest,
                stamp=Stamp.of(path.stat()),
                source="hub",
                origin="someone/tiny@main",
                created=datetime.now(UTC),
            )
        )
    return [
        Profile(
            id="tiny",
            display_name="Tiny",
            family="scripted",
            context_tokens=4096,
            roles=("strong",),
            variants=tuple(variants),
        )
    ]


@pytest.fixture(name="running")
async def _running() -> AsyncIterator[Running]:
    async with serving(catalog=on_disk, default_model="tiny") as running:
        yield running


async def warm(running: Running, name: str) -> None:
    """Load it, and let it answer."""
    request = generation.GenerateRequest(text="hello", model=name)
    events = [event async for event in running.generation.Generate(request)]
    assert events[-1].HasField("finished")


async def loaded(running: Running) -> dict[str, model_pb2.Model]:
    """What the status says is warm, by name."""
    status = (await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())).status
    return {each.id: each for each in status.models if each.pid}


async def removed(running: Running, name: str, **fields: object) -> None:
    """Remove it; returns when that is done."""
    request = store_service_pb2.DeleteModelRequest(model=name, **fields)  # type: ignore[arg-type] # by name
    operation = (await running.store.DeleteModel(request)).operation
    await until(lambda: not running.app._operations.running_on("tiny"))
    assert operation.model == "models/tiny"


async def there(running: Running) -> set[str]:
    """Variants on disk."""
    request = model_service_pb2.GetModelRequest(name="tiny")
    found = (await running.models.GetModel(request)).model
    return {each.id for each in found.variants if each.on_disk}


async def test_a_variant_is_warm_under_its_name(running: Running) -> None:
    """Beside the model itself, in the status; the list of models has each once."""
    await warm(running, "tiny:b")
    assert set(await loaded(running)) == {"tiny:b"}
    await warm(running, "tiny")
    warmed = await loaded(running)
    assert {name: each.variant for name, each in warmed.items()} == {"tiny": "a", "tiny:b": "b"}
    listed = (await running.models.ListModels(model_service_pb2.ListModelsRequest())).models
    assert [each.id for each in listed] == ["tiny"]
    named = await running.models.GetModel(model_service_pb2.GetModelRequest(name="tiny:b"))
    assert [each.id for each in named.model.variants] == ["b"]
    assert named.model.state == model_pb2.Model.STATE_READY


async def test_only_that_variant_is_removed(running: Running) -> None:
    """Not while it is loaded, under whichever name; the other one stays."""
    await warm(running, "tiny:b")
    for name, fields in (("tiny:b", {}), ("tiny", {}), ("tiny", {"variant": "b"})):
        request = store_service_pb2.DeleteModelRequest(model=name, **fields)  # type: ignore[arg-type] # by name
        failure = await fails(running.store.DeleteModel(request))
        assert failure.reason == "MODEL_BUSY"
        assert "tiny:b" in failure.message
    # The one that is not loaded is nobody's.
    await removed(running, "tiny:a")
    assert await there(running) == {"b"}
    await removed(running, "tiny:b", force=True)
    assert await there(running) == set()
    assert await loaded(running) == {}


async def test_an_unknown_variant_is_met_with_those_there_are(running: Running) -> None:
    """As an unknown model is."""
    request = generation.GenerateRequest(text="hello", model="tiny:c")
    failure = await fails(running.generation.Generate(request))
    assert failure.reason == "MODEL_NOT_FOUND"
    assert "it has a, b" in failure.metadata["why"]


async def test_one_that_was_found_bad_gives_way_to_a_sound_one(running: Running) -> None:
    """By the model's name alone; by its own it is refused, and so is the model without others."""
    request = model_service_pb2.GetModelRequest(name="tiny")
    found = (await running.models.GetModel(request)).model
    store = Store(Path(found.variants[0].path).parents[1])

    async def refused(name: str) -> bool:
        request = generation.GenerateRequest(text="hello", model=name)
        return (await fails(running.generation.Generate(request))).reason == "CONTENT_MISMATCH"

    def reject(name: str) -> None:
        entry = store.entry("tiny", name)
        assert entry is not None
        store.record(entry.manifest.model_copy(update={"rejection": "smoke: it says nothing"}))

    reject("a")
    assert await refused("tiny:a")
    await warm(running, "tiny")
    assert (await loaded(running))["tiny"].variant == "b"
    await running.models.UnloadModel(model_service_pb2.UnloadModelRequest(model="tiny"))
    reject("b")
    assert await refused("tiny:b")
    assert await refused("tiny")
