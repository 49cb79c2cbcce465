"""Which calls join a running pull, and which contradict it: a real daemon, a hub that stalls."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

import grpc
import pytest

from gemd.catalog import HubSource, LocalSource, Profile, Variant
from gemd.errors import OperationConflictError
from gemd.rpc.pulling import Pulling
from gemd.rpc.upkeep import Upkeep
from gemd.store import Kind, OperationJournal, Operations, Store, Transport
from gemd.v1 import model_service_pb2, operation_pb2
from gemd.v1 import operation_service_pb2 as operations
from gemd.v1 import store_service_pb2 as service
from tests.support.app import Running, fails, serving
from tests.support.file_server import Stall
from tests.support.hub_server import HubServer
from tests.support.repositories import checkpoint_profile
from tests.support.stores import FILE, QUICK, REPOSITORY, content, environ, profile_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from gemd.catalog import Source
    from gemd.rpc.cleaning import Cleaning

DATA = content(1000)
HUB = HubSource(repository=REPOSITORY, file=FILE)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub that sends half of the file and no more."""
    with HubServer() as server:
        server.add(REPOSITORY, FILE, DATA)
        server.fault(Stall(500))
        yield server


@contextlib.asynccontextmanager
async def daemon(hub: HubServer, *sources: Source) -> AsyncIterator[Running]:
    """One whose only model has these sources."""

    def reaching(root: Path) -> Store:
        env = environ(root.parent, HF_HUB_CACHE=str(root.parent / "hub"))
        return Store(root, transport=Transport(hub_endpoint=hub.url, retries=QUICK, environ=env))

    async with serving(
        catalog=lambda _: [profile_of(DATA, *sources)], default_model="tiny", store=reaching
    ) as running:
        yield running


def wish(**fields: object) -> service.PullModelRequest:
    """A call."""
    return service.PullModelRequest(model="tiny", **fields)  # type: ignore[arg-type]


async def pulled(running: Running, **fields: object) -> str:
    """The operation that a call gets."""
    return (await running.store.PullModel(wish(**fields))).operation.name


async def cancel(running: Running, name: str) -> None:
    """End it."""
    await running.operations.CancelOperation(operations.CancelOperationRequest(name=name))


@pytest.mark.parametrize(
    "other",
    [
        {"revision": "deadbeef"},
        {"source": "hub"},
        {"source": "hub", "revision": "deadbeef"},
        {"source": "local"},
        {"force": True},
    ],
)
async def test_what_a_running_pull_does_not_do_contradicts_it(
    hub: HubServer, tmp_path: Path, other: dict[str, object]
) -> None:
    """Another source, another revision, and a check of all bytes that it does not make."""
    async with daemon(hub, HUB, LocalSource(path=tmp_path / "other.gguf")) as running:
        begun = await pulled(running)
        found = await fails(running.store.PullModel(wish(**other)))
        assert (found.code, found.reason) == (grpc.StatusCode.ABORTED, "OPERATION_CONFLICT")
        assert f"operations/{found.metadata['operation']}" == begun
        assert found.message.startswith("tiny:q4 is being pulled already, ")
        assert await pulled(running) == begun
        await cancel(running, begun)


@pytest.mark.parametrize(
    "first, second",
    [
        ({}, {}),
        ({"force": True}, {}),
        ({"force": True}, {"force": True}),
        ({}, {"source": "hub"}),
        ({"source": "hub"}, {}),
        ({}, {"revision": "main"}),
        ({"source": "hub", "revision": "main"}, {}),
        ({"accept_licence": True}, {}),
        ({}, {"variant": "q4"}),
    ],
)
async def test_who_asks_for_what_a_running_pull_does_joins_it(
    hub: HubServer, first: dict[str, object], second: dict[str, object]
) -> None:
    """In other words, too: what is named is all that the profile has; less is asked than done."""
    async with daemon(hub, HUB) as running:
        begun = await pulled(running, **first)
        assert await pulled(running, **second) == begun
        await cancel(running, begun)


async def test_a_pull_from_elsewhere_is_joined_only_by_its_like(hub: HubServer) -> None:
    """Neither who names nothing nor who names another revision gets its bytes."""
    hub.add(REPOSITORY, FILE, DATA, revision="next")
    async with daemon(hub, HUB) as running:
        begun = await pulled(running, revision="next")
        for other in ({}, {"revision": "main"}, {"source": "hub"}):
            found = await fails(running.store.PullModel(wish(**other)))
            assert found.reason == "OPERATION_CONFLICT"
        assert await pulled(running, revision="next", source="hub") == begun
        await cancel(running, begun)


async def test_a_repeated_call_gets_the_operation_that_it_joined(hub: HubServer) -> None:
    """Also after that has ended, and also while a pull runs that it would contradict."""
    async with daemon(hub, HUB) as running:
        begun = await pulled(running, request_id="first")
        assert await pulled(running, request_id="second") == begun
        await cancel(running, begun)
        for same in ("first", "second"):
            assert await pulled(running, request_id=same) == begun
        hub.fault(Stall(500))
        other = await pulled(running, request_id="third", revision="main", force=True)
        assert other != begun
        assert await pulled(running, request_id="second", source="local") == begun
        await cancel(running, other)


async def test_what_a_daemon_goes_on_with_is_joined_as_before(hub: HubServer) -> None:
    """It knows what the last one was asked for: force is joined without, and not the reverse."""
    async with daemon(hub, HUB) as running:
        library = running.app._services.store._library
        journal = OperationJournal(running.paths.socket.parent / "journal")
        for first in (True, False):
            work = Operations(journal=journal)
            upkeep = Upkeep(store=library.store, cleaning=cast("Cleaning", None), quota_bytes=0)
            pulling = Pulling(
                library=library,
                operations=work,
                upkeep=upkeep,
                suits=running.app._services.store._pulling._suits,
                decisions=running.app.manager.decisions,
                clock=running.app.manager.time,
            )
            work.resume()
            if first:
                await pulling.begin(wish(source="hub"))
            try:
                [begun] = work.list()
                assert (begun.kind, begun.done) == (Kind.PULL, False)
                for less in ({}, {"source": "hub"}, {"revision": "main"}):
                    assert (await pulling.begin(wish(**less))).id == begun.id
                for more in ({"force": True}, {"revision": "next"}):
                    with pytest.raises(OperationConflictError, match="pulled already"):
                        await pulling.begin(wish(**more))
            finally:
                # Nothing has run yet: the next round finds it where this one ends.
                await work.close()


def of_several() -> Profile:
    """A checkpoint and, beside it, a file: both of the hub."""
    several = checkpoint_profile()
    one = Variant(
        id="q4", quantization="Q4_0", file_name=FILE, size_bytes=len(DATA), sources=(HUB,)
    )
    return several.model_copy(update={"variants": (*several.variants, one)})


async def test_the_source_that_a_variant_names_is_one_that_a_pull_takes() -> None:
    """A repository is `hub` as a file is; no pull is refused for what the daemon said itself."""
    async with serving(
        catalog=lambda _: [of_several()], default_model="tiny", offline=True
    ) as running:
        request = model_service_pb2.GetModelRequest(name="models/tiny")
        shown = (await running.models.GetModel(request)).model
        assert {each.id: each.source for each in shown.variants} == {"bf16": "hub", "q4": "hub"}
        begun = await pulled(running, variant="bf16", source=shown.variants[0].source)
        watch = running.operations.WatchOperation(operations.WatchOperationRequest(name=begun))
        last = [answer.operation async for answer in watch][-1]
        assert last.state == operation_pb2.Operation.STATE_FAILED
        # Nobody is there to be asked, but that is where it asks.
        assert last.error.reason == "HUB_UNREACHABLE"
        assert last.source == "hub"
