"""PruneStore, the quota and the last use of variants, on a daemon with scripted models."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import duration_pb2

from gemd.catalog import HubSource, PackageSource, Profile, Variant
from gemd.catalog.sources import PackagePart
from gemd.store import Deleted, Kind, Pruned, Store, Transport
from gemd.store.layout import Layout
from gemd.store.usage import Usage
from gemd.v1 import (
    daemon_service_pb2,
    event_pb2,
    model_pb2,
    model_service_pb2,
    operation_pb2,
    operation_service_pb2,
    store_service_pb2,
)
from tests.support.app import MODEL, Running, fails, serving, until
from tests.support.app import profile as found_profile
from tests.support.hub_server import HubServer
from tests.support.stocks import DAY, blob, left
from tests.support.stores import QUICK, content, environ
from tests.support.unquantized import DENSE, write_model

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 1000
DATA = {name: content(SIZE, seed) for seed, name in enumerate(("old", "used", "new", "coming"))}
REASON = operation_pb2.PruneResult.Item.Reason


def _of_packages(name: str) -> Profile:
    """A model of the scripted engine out of a package that nobody asks for."""
    part = PackagePart(
        package="tiny",
        version="1.0",
        wheel="tiny-1.0-py3-none-any.whl",
        wheel_sha256="0" * 64,
        wheel_size_bytes=SIZE,
        member="tiny.gguf",
        member_sha256="0" * 64,
        member_size_bytes=SIZE,
    )
    return _profile(name, PackageSource(parts=(part,)))


def _profile(name: str, source: HubSource | PackageSource, **changes: Any) -> Profile:
    variant = Variant(
        id="q4",
        quantization="Q4_0",
        engine="scripted",
        file_name="tiny.gguf",
        size_bytes=len(DATA[name]),
        sha256=hashlib.sha256(DATA[name]).hexdigest(),
        sources=(source,),
    )
    values: dict[str, Any] = {
        "id": name,
        "display_name": name,
        "family": "scripted",
        "context_tokens": 4096,
        "variants": (variant,),
    }
    return Profile(**(values | changes))


def _stocked(
    *more: Profile, ages: dict[str, float] | None = None
) -> Callable[[Path], list[Profile]]:
    """A catalogue with `old`, `used` and `new`, which are on disk, pulled so long ago."""
    pulled = {"old": 60 * DAY, "used": 90 * DAY, "new": DAY} if ages is None else ages

    def prepare(file: Path) -> list[Profile]:
        store = Store(file.parent / "store")
        for name, age_s in pulled.items():
            blob(store, name, DATA[name], age_s=age_s, now=time.time())
        return [found_profile(file), *map(_of_packages, ("old", "used", "new")), *more]

    return prepare


def _root(running: Running) -> Path:
    [source] = running.profile.variants[0].sources
    return Path(source.origin).parent / "store"


async def _ended(running: Running, operation: operation_pb2.Operation) -> operation_pb2.Operation:
    watch = running.operations.WatchOperation(
        operation_service_pb2.WatchOperationRequest(name=operation.name)
    )
    return [answer.operation async for answer in watch][-1]


async def _pruned(running: Running, **fields: Any) -> operation_pb2.PruneResult:
    request = store_service_pb2.PruneStoreRequest(**fields)
    last = await _ended(running, (await running.store.PruneStore(request)).operation)
    assert last.state == operation_pb2.Operation.STATE_SUCCEEDED, last
    assert last.model == ""
    return last.prune


async def _models(running: Running) -> dict[str, model_pb2.Model]:
    listed = await running.models.ListModels(model_service_pb2.ListModelsRequest())
    return {one.id: one for one in listed.models}


async def _load(running: Running, name: str) -> None:
    async for _ in running.models.LoadModel(model_service_pb2.LoadModelRequest(model=name)):
        pass


def _gone(result: operation_pb2.PruneResult) -> list[tuple[int, str]]:
    return [(each.reason, each.model or Path(each.path).suffix) for each in result.items]


async def test_a_dry_run_says_what_the_next_run_does() -> None:
    """Leftovers and what was not used for long; then it is gone, and only that."""
    async with serving(catalog=_stocked()) as running:
        root = _root(running)
        part = left(Layout(root).part("a" * 64), b"x" * 10, now=time.time())
        Usage(root).touch("used", "q4")
        wish: dict[str, Any] = {"unused_for": _days(30)}
        said = await _pruned(running, dry_run=True, **wish)
        assert said.dry_run
        assert _gone(said) == [
            (REASON.REASON_UNFINISHED, ".part"),
            (REASON.REASON_UNUSED, "models/old"),
        ]
        assert part.exists()
        done = await _pruned(running, **wish)
        assert not done.dry_run
        assert (done.items, done.freed_bytes, done.kept_bytes) == (said.items, 1010, 2000)
        assert not part.exists()
        states = {name: one.state for name, one in (await _models(running)).items()}
        assert states["old"] == model_pb2.Model.STATE_ABSENT
        assert states["used"] == states["new"] == model_pb2.Model.STATE_ON_DISK
        assert (await _pruned(running, **wish)).items == []


async def test_loaded_and_pinned_models_stay() -> None:
    """Whatever the limit; a limit of nothing takes the others."""
    async with serving(catalog=_stocked()) as running:
        await _load(running, "old")
        await running.models.PinModel(model_service_pb2.PinModelRequest(model="used", pinned=True))
        done = await _pruned(running, keep_bytes=0)
        assert _gone(done) == [(REASON.REASON_OVER_LIMIT, "models/new")]
        assert done.kept_bytes == 2000
        assert (await _models(running))["old"].state == model_pb2.Model.STATE_READY


async def test_what_an_operation_works_on_stays() -> None:
    """Until it has ended."""
    async with serving(catalog=_stocked()) as running:
        ended = asyncio.Event()

        async def work(_: object) -> Deleted:
            await ended.wait()
            return Deleted(0, 0)

        operations = running.app._operations
        operations.start(Kind.VERIFY, "old", work)
        done = await _pruned(running, keep_bytes=0)
        assert [each.model for each in done.items] == ["models/used", "models/new"]
        ended.set()
        await until(lambda: operations.running_on("old") is None)
        assert [each.model for each in (await _pruned(running, keep_bytes=0)).items] == [
            "models/old"
        ]


async def test_the_last_use_is_that_of_the_last_load_and_its_end() -> None:
    """A restart of the daemon does not forget it; what was never loaded has none."""
    async with serving(catalog=_stocked()) as running:
        begun = time.time()
        assert not (await _models(running))["old"].variants[0].HasField("last_used_time")
        await _load(running, "old")
        usage = Usage(_root(running))
        await until(lambda: (usage.last("old", "q4") or 0.0) >= begun - 0.01)
        loaded = usage.last("old", "q4") or 0.0
        await running.models.UnloadModel(model_service_pb2.UnloadModelRequest(model="old"))
        await until(lambda: (usage.last("old", "q4") or 0.0) > loaded)
        [variant] = (await _models(running))["old"].variants
        assert variant.last_used_time.ToSeconds() >= int(begun)
        assert Path(variant.path).is_relative_to(_root(running))
        assert (variant.disk_bytes, variant.exclusive_bytes) == (SIZE, SIZE)


async def test_list_models_says_what_all_take() -> None:
    """Unfinished files are gemd's own too; a file that is named by its path is somebody else's."""
    async with serving(catalog=_stocked(), store_quota="10000B") as running:
        left(Layout(_root(running)).part("a" * 64), b"x" * 10, now=time.time())
        listed = await running.models.ListModels(model_service_pb2.ListModelsRequest(page_size=1))
        assert listed.disk.owned_bytes == 3 * SIZE + 10
        assert listed.disk.shared_bytes == len(b"GGUFtest")
        assert listed.disk.quota_bytes == 10_000
        assert listed.disk.free_bytes > 0


async def test_a_smaller_quota_is_kept_from_the_start() -> None:
    """As an operation that everybody can see; the longest unused go, and no more."""
    async with serving(catalog=_stocked(), store_quota=f"{SIZE}B") as running:
        watch: Any = running.daemon.WatchEvents(_operations_wanted())
        async for answer in watch:
            operation = answer.event.operation
            if operation.state == operation_pb2.Operation.STATE_SUCCEEDED:
                break
        assert operation.kind == operation_pb2.Operation.KIND_PRUNE
        assert [each.model for each in operation.prune.items] == ["models/used", "models/old"]
        assert (await _models(running))["new"].state == model_pb2.Model.STATE_ON_DISK


async def test_the_quota_is_kept_when_something_else_brings_a_variant() -> None:
    """Such as a quantization: an operation of its own removes what is too much."""
    stores: list[Store] = []

    def make(root: Path) -> Store:
        stores.append(Store(root))
        return stores[0]

    async with serving(catalog=_stocked(), store=make, store_quota=f"{3 * SIZE}B") as running:
        await asyncio.to_thread(blob, stores[0], "made", DATA["coming"], now=time.time())
        operations = running.app._operations
        await until(lambda: any(each.done for each in operations.list()))
        [pruned] = operations.list()
        assert isinstance(pruned.result, Pruned)
        assert [each.model for each in pruned.result.items] == ["used"]
        assert stores[0].entry("made", "q4")


@pytest.fixture
def hub() -> Any:
    """A hub that has the model `coming`."""
    with HubServer() as server:
        server.add("someone/coming", "tiny.gguf", DATA["coming"])
        yield server


def _reaching(hub: HubServer) -> Callable[[Path], Store]:
    def make(root: Path) -> Store:
        env = environ(root.parent, HF_HUB_CACHE=str(root.parent / "hub"))
        return Store(root, transport=Transport(hub_endpoint=hub.url, retries=QUICK, environ=env))

    return make


COMING = _profile("coming", HubSource(repository="someone/coming", file="tiny.gguf"))


async def _pull(running: Running) -> tuple[list[str], operation_pb2.Operation]:
    """Its messages, and its last snapshot."""
    request = store_service_pb2.PullModelRequest(model="coming")
    return await _followed(running, (await running.store.PullModel(request)).operation.name)


async def _followed(running: Running, name: str) -> tuple[list[str], operation_pb2.Operation]:
    """The messages of an operation, and its last snapshot."""
    watch = running.operations.WatchOperation(
        operation_service_pb2.WatchOperationRequest(name=name)
    )
    seen = [answer.operation async for answer in watch]
    return [each.message for each in seen], seen[-1]


async def test_a_pull_makes_the_longest_unused_give_way(hub: HubServer) -> None:
    """It is said in its progress; what is loaded stays though it is the oldest."""
    async with serving(
        catalog=_stocked(COMING), store=_reaching(hub), store_quota=f"{3 * SIZE}B"
    ) as running:
        await _load(running, "used")
        messages, last = await _pull(running)
        assert last.state == operation_pb2.Operation.STATE_SUCCEEDED, last
        assert (
            last.message == "removed old q4 (1000 B): the quota for models is 2.9 KiB (store_quota)"
        )
        assert any(each.startswith("old q4 (1000 B) will be removed for it") for each in messages)
        models = await _models(running)
        assert [
            name for name, one in models.items() if one.state == model_pb2.Model.STATE_ABSENT
        ] == ["old"]


async def test_a_pull_that_cannot_fit_is_refused_before_it_begins(hub: HubServer) -> None:
    """With the numbers, and without a request to the hub; nobody gives way in vain."""
    async with serving(
        catalog=_stocked(COMING, ages={"used": 90 * DAY, "new": DAY}),
        store=_reaching(hub),
        store_quota=f"{3 * SIZE - 1}B",
    ) as running:
        for name in ("new", "used"):
            await _load(running, name)
        _, last = await _pull(running)
        assert (last.state, last.error.reason) == (
            operation_pb2.Operation.STATE_FAILED,
            "DISK_FULL",
        )
        told = {"needed_bytes": "1000", "staying_bytes": "2000", "quota_bytes": "2999"}
        assert told.items() <= dict(last.error.metadata).items()
        assert "gemctl list --variants" in last.error.advice
        assert "export GEMD_STORE_QUOTA=1GiB" in last.error.advice
        assert hub.requests == []
        await running.models.UnloadModel(model_service_pb2.UnloadModelRequest(model="used"))
        _, last = await _pull(running)
        assert last.state == operation_pb2.Operation.STATE_SUCCEEDED, last
        assert (await _models(running))["used"].state == model_pb2.Model.STATE_ABSENT


async def test_times_and_sizes_of_a_prune_are_checked() -> None:
    """A negative time is refused by its field's name."""
    async with serving() as running:
        found = await fails(
            running.store.PruneStore(store_service_pb2.PruneStoreRequest(unused_for=_days(-1)))
        )
        assert (found.reason, found.metadata["field"]) == ("INVALID_REQUEST", "unused_for")
        assert (await _models(running))[MODEL].state == model_pb2.Model.STATE_ON_DISK


def _days(count: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=int(count * DAY))


def _operations_wanted() -> daemon_service_pb2.WatchEventsRequest:
    return daemon_service_pb2.WatchEventsRequest(
        types=[event_pb2.Event.TYPE_OPERATION], since_sequence=0
    )


async def test_a_quantization_that_cannot_fit_is_refused_before_it_begins(tmp_path: Path) -> None:
    """Its result counts like a file that is fetched; nothing is written for it."""
    weights = write_model(tmp_path / "own-BF16.gguf", DENSE)
    async with serving(store_quota="1MB") as running:
        started = await running.store.QuantizeModel(
            store_service_pb2.QuantizeModelRequest(model=str(weights), quantization="Q8_0")
        )
        _, last = await _followed(running, started.operation.name)
        assert (last.state, last.error.reason) == (
            operation_pb2.Operation.STATE_FAILED,
            "DISK_FULL",
        )
        assert last.error.metadata["quota_bytes"] == "1000000"
        assert int(last.error.metadata["needed_bytes"]) > weights.stat().st_size // 2
        assert not (running.paths.store_dir / "work").exists()
