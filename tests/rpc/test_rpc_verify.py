"""VerifyModel and the check of what was quantized: a real daemon, quantizer and verifier."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest

from gemd.engine.builds.tiny_model import tiny_model
from gemd.errors import ContentMismatchError, OperationConflictError
from gemd.rpc.verifying import Verifying
from gemd.store import Checked, OperationJournal, Operations
from gemd.v1 import model_pb2, operation_pb2
from gemd.v1 import model_service_pb2 as models
from gemd.v1 import operation_service_pb2 as operations
from gemd.v1 import store_service_pb2 as service
from tests.support.app import MODEL, Running, serving
from tests.support.dequantized import write_f16

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from gemd.store import Store

FULL = service.VerifyModelRequest.DEPTH_FULL
ROUNDING = timedelta(milliseconds=1)
"""Of a moment on its way through floats."""
NAME = "tiny-f16"
FILES = ["sizes", "sha256", "container", "tensor-census", "scales", "sampled-error"]


@pytest.fixture(scope="module", name="weights")
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer, which answers with the successor of the most frequent token."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "tiny-Q4_0.gguf").write_bytes(tiny_model())
    return write_f16(folder / "tiny-Q4_0.gguf", folder / "tiny-F16.gguf")


async def ended(daemon: Running, begun: operation_pb2.Operation) -> operation_pb2.Operation:
    """The last snapshot."""
    last = begun
    watch = daemon.operations.WatchOperation(operations.WatchOperationRequest(name=begun.name))
    async for answer in watch:
        last = answer.operation
    return last


async def verified(
    daemon: Running, model: str = NAME, **fields: object
) -> operation_pb2.VerifyResult:
    """What a verification found."""
    request = service.VerifyModelRequest(model=model, **fields)  # type: ignore[arg-type]
    last = await ended(daemon, (await daemon.store.VerifyModel(request)).operation)
    assert last.state == operation_pb2.Operation.STATE_SUCCEEDED, last
    return last.verify


@dataclass(frozen=True)
class Quantized:
    """A store in which the weights have been quantized, and how that ended."""

    folder: Path
    ended: operation_pb2.Operation


@pytest.fixture(scope="module", name="quantized")
def _quantized(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """Made once; a test has a copy of it."""
    folder = tmp_path_factory.mktemp("quantized") / "store"
    kept: list[Store] = []

    async def make() -> operation_pb2.Operation:
        async with serving(store=lambda root: _opened(root, kept)) as daemon:
            request = service.QuantizeModelRequest(model=str(weights), quantization="Q4_0")
            last = await ended(daemon, (await daemon.store.QuantizeModel(request)).operation)
            shutil.copytree(kept[0].root, folder)
            return last

    return Quantized(folder, asyncio.run(make()))


def _opened(root: Path, kept: list[Store]) -> Store:
    from gemd.store import Store  # noqa: PLC0415 - the name is a type elsewhere

    kept.append(Store(root))
    return kept[-1]


@contextlib.asynccontextmanager
async def with_made(quantized: Quantized) -> AsyncIterator[tuple[Running, Store]]:
    """A daemon whose store has the quantized weights, and that store."""
    kept: list[Store] = []

    def opened(root: Path) -> Store:
        shutil.copytree(quantized.folder, root)
        return _opened(root, kept)

    async with serving(store=opened) as daemon:
        yield daemon, kept[0]


@contextlib.contextmanager
def changed(path: Path) -> Iterator[None]:
    """Another content of the same size and a later time, for as long as the block lasts."""
    kept, stat = path.read_bytes(), path.stat()
    path.write_bytes(kept[:-4] + b"abcd")
    try:
        yield
    finally:
        path.write_bytes(kept)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def flip(path: Path) -> None:
    """Damage a byte, or mend it, without a trace in the file's times: as a bad disk does."""
    data, stat = bytearray(path.read_bytes()), path.stat()
    data[-1000] ^= 0x55
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cut_of(path: Path) -> Path:
    """The beginning of a file."""
    cut = path.with_name("cut.gguf")
    cut.write_bytes(path.read_bytes()[:100_000])
    return cut


def names(result: operation_pb2.VerifyResult | operation_pb2.QuantizeResult) -> list[str]:
    """Of the checks, in their order."""
    return [each.check for each in result.checks]


async def test_what_is_made_is_checked_and_what_is_damaged_is_not_served(
    quantized: Quantized,
) -> None:
    """A damaged variant is rejected with the reason until it is whole again."""
    made = quantized.ended
    async with with_made(quantized) as (daemon, store):
        assert made.state == operation_pb2.Operation.STATE_SUCCEEDED, made
        last = ["no-alloc-load", "kl-divergence", "top-1", "perplexity", "smoke", "size-ratio"]
        assert names(made.quantize) == [*FILES, *last]
        assert all(each.passed for each in made.quantize.checks)

        found = await verified(daemon)
        assert found.passed
        assert names(found) == [*FILES, "no-alloc-load"]
        entry = store.entry(NAME, "q4_0-local")
        assert entry is not None
        # Those that only a deeper look makes are kept.
        assert {each.check for each in entry.manifest.checks} == {*FILES, *last}

        flip(entry.path)
        found = await verified(daemon)
        assert not found.passed
        assert names(found) == ["sizes", "sha256"]
        assert "damaged: " in found.checks[-1].detail
        shown = await daemon.models.GetModel(models.GetModelRequest(name=f"models/{NAME}"))
        assert shown.model.variants[0].rejection.startswith("sha256: ")
        assert shown.model.state != model_pb2.Model.STATE_ON_DISK
        profile = daemon.app._services.store._library.resolve(NAME)
        with pytest.raises(ContentMismatchError, match="verification found it bad"):
            store.locate(profile)

        flip(entry.path)
        assert (await verified(daemon)).passed
        assert store.locate(profile).path == entry.path


async def test_a_verification_that_passes_is_when_it_was_last_verified(
    quantized: Quantized,
) -> None:
    """Later than when it was made; one that finds other bytes is none."""
    async with with_made(quantized) as (daemon, store):
        entry = store.entry(NAME, "q4_0-local")
        assert entry is not None
        made = entry.manifest.created
        # A copy has other inodes: its stamps are renewed by whoever looks for it.
        store.locate(daemon.app._services.store._library.resolve(NAME))

        async def when() -> datetime:
            shown = await daemon.models.GetModel(models.GetModelRequest(name=f"models/{NAME}"))
            return shown.model.variants[0].verify_time.ToDatetime(tzinfo=UTC)

        assert abs(await when() - made) < ROUNDING
        flip(entry.path)
        assert not (await verified(daemon)).passed
        assert abs(await when() - made) < ROUNDING
        flip(entry.path)
        before = datetime.now(UTC)
        assert (await verified(daemon)).passed
        assert before - ROUNDING <= (passed := await when()) <= datetime.now(UTC)
        flip(entry.path)
        assert not (await verified(daemon)).passed
        assert await when() == passed


async def test_who_goes_on_with_damaged_weights_is_said_now_and_not_written_down(
    quantized: Quantized,
) -> None:
    """Under whichever names it is loaded; what it is rejected for is true after that, too."""
    async with with_made(quantized) as (daemon, store):
        entry = store.entry(NAME, "q4_0-local")
        assert entry is not None
        both = (NAME, f"{NAME}:q4_0-local")
        for name in both:
            async for _loading in daemon.models.LoadModel(models.LoadModelRequest(model=name)):
                pass
        flip(entry.path)
        found = await verified(daemon)
        for name in both:
            assert f"{name} is loaded with it" in found.checks[-1].detail
        again = store.entry(NAME, "q4_0-local")
        assert again is not None
        assert again.manifest.rejection.startswith("sha256: ")
        assert "loaded" not in again.manifest.rejection


async def test_a_shallow_look_clears_no_deep_fault(quantized: Quantized) -> None:
    """What failed against the source counts until it passes against the source."""
    async with with_made(quantized) as (daemon, store):
        entry = store.entry(NAME, "q4_0-local")
        assert entry is not None
        bad = Checked(check="kl-divergence", passed=False, detail="mean 9.0 nats")
        checks = tuple(bad if each.check == bad.check else each for each in entry.manifest.checks)
        update = {"checks": checks, "rejection": "kl-divergence: mean 9.0 nats"}
        store.record(entry.manifest.model_copy(update=update))

        found = await verified(daemon)
        assert not found.passed
        assert names(found) == [*FILES, "no-alloc-load", "kl-divergence"]
        assert "earlier verification" in found.checks[-1].detail
        entry = store.entry(NAME, "q4_0-local")
        assert entry is not None
        assert entry.manifest.rejection == "kl-divergence: mean 9.0 nats"

        assert (await verified(daemon, depth=FULL, variant="q4_0-local")).passed
        entry = store.entry(NAME, "q4_0-local")
        assert entry is not None
        assert entry.manifest.rejection == ""


async def test_a_source_that_has_changed_is_not_compared_with(
    weights: Path, quantized: Quantized
) -> None:
    """A good variant would look like a bad one."""
    async with with_made(quantized) as (daemon, _):
        assert "sampled-error" in names(await verified(daemon))
        with changed(weights):
            found = await verified(daemon)
        assert found.passed
        assert names(found) == [each for each in FILES if each != "sampled-error"] + [
            "no-alloc-load"
        ]


async def test_a_file_of_the_users_is_checked_where_it_is(weights: Path) -> None:
    """Nobody has said what its hash is; damage in its header is found all the same."""
    async with serving() as daemon:
        found = await verified(daemon, str(weights))
        assert found.passed
        assert names(found) == ["sizes", "container", "scales", "no-alloc-load"]
        found = await verified(daemon, str(cut_of(weights)))
        assert names(found) == ["sizes", "container"]
        assert not found.passed


async def test_a_deeper_look_joins_no_shallow_one(weights: Path, tmp_path: Path) -> None:
    """Whatever else is verified meanwhile, and also of one that the last daemon has left."""
    own = str(weights)
    async with serving() as daemon:
        library = daemon.app._services.store._library
        journal = OperationJournal(tmp_path)
        for again in (False, True):
            work = Operations(journal=journal)
            verifying = Verifying(library=library, manager=daemon.app.manager, operations=work)
            work.resume()
            if not again:
                verifying.begin(service.VerifyModelRequest(model=own))
                verifying.begin(service.VerifyModelRequest(model=MODEL))
            running = work.list()
            try:
                assert len(running) == 2
                with pytest.raises(OperationConflictError, match="less deeply"):
                    verifying.begin(service.VerifyModelRequest(model=own, depth=FULL))
                joined = verifying.begin(service.VerifyModelRequest(model=own))
                assert joined.id in {each.id for each in running}
            finally:
                # Nothing has run yet: the next round finds both where this one ends.
                await work.close()


async def test_what_cannot_be_verified_is_told() -> None:
    """Unknown models and depths, and an engine whose files can be anything."""
    async with serving() as daemon:
        for model, depth, code in (
            ("nobody", FULL, grpc.StatusCode.NOT_FOUND),
            (MODEL, 77, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            request = service.VerifyModelRequest(model=model, depth=depth)  # type: ignore[arg-type]
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await daemon.store.VerifyModel(request)
            assert error.value.code() == code
        begun = await daemon.store.VerifyModel(service.VerifyModelRequest(model=MODEL))
        last = await ended(daemon, begun.operation)
        assert last.error.reason == "UNSUPPORTED_INPUT"
