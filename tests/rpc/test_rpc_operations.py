"""Long work on files: started, watched, listed."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.store import Kind
from gemd.v1 import (
    generation_service_pb2,
    operation_pb2,
    operation_service_pb2,
    store_service_pb2,
)
from tests.support.app import MODEL, Running, fails, profile, serving

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile


async def test_a_pull_of_a_file_that_is_no_model_fails(running: Running, tmp_path: Path) -> None:
    """Nothing was promised about a file that is named by its path, but it has to be a GGUF."""
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF it says, and is not")
    started = await running.store.PullModel(store_service_pb2.PullModelRequest(model=str(file)))
    watch = running.operations.WatchOperation(
        operation_service_pb2.WatchOperationRequest(name=started.operation.name)
    )
    last = [answer.operation async for answer in watch][-1]
    assert last.state == operation_pb2.Operation.STATE_FAILED
    assert last.error.reason == "BAD_MODEL_FILE"
    assert last.error.advice


async def test_a_local_pull_is_an_operation() -> None:
    """PullModel answers at once; its operation is watched to its end and then listed."""

    def hashed(file: Path) -> list[Profile]:
        made = profile(file, name="pulled")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        variant = made.variants[0].model_copy(update={"sha256": digest})
        return [made.model_copy(update={"variants": (variant,)})]

    async with serving(catalog=hashed, default_model="pulled") as running:
        missing = await fails(
            running.generation.Generate(generation_service_pb2.GenerateRequest(text="x"))
        )
        assert missing.metadata["try"] == "gemctl pull pulled"
        started = await running.store.PullModel(store_service_pb2.PullModelRequest(model="pulled"))
        name = started.operation.name
        watch = running.operations.WatchOperation(
            operation_service_pb2.WatchOperationRequest(name=name)
        )
        last = [answer.operation async for answer in watch][-1]
        assert last.state == operation_pb2.Operation.STATE_SUCCEEDED, last
        assert last.pull.size_bytes == 8
        request = operation_service_pb2.ListOperationsRequest(
            kinds=[operation_pb2.Operation.KIND_PULL], model="pulled"
        )
        listed = await running.operations.ListOperations(request)
        assert [item.name for item in listed.operations] == [name]
        words = generation_service_pb2.GenerateRequest(text="now it answers")
        text = [event.delta.text async for event in running.generation.Generate(words)]
        assert "".join(text) == "now it answers"
        busy = await fails(
            running.store.DeleteModel(store_service_pb2.DeleteModelRequest(model="pulled"))
        )
        assert (busy.code, busy.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_BUSY")
        assert (busy.message, busy.metadata["active"]) == ("pulled is loaded", "0")
        deleted = await running.store.DeleteModel(
            store_service_pb2.DeleteModelRequest(model="pulled", force=True)
        )
        watch = running.operations.WatchOperation(
            operation_service_pb2.WatchOperationRequest(name=deleted.operation.name)
        )
        last = [answer.operation async for answer in watch][-1]
        assert last.state == operation_pb2.Operation.STATE_SUCCEEDED, last
        assert running.workers[0].state == "exited"


async def test_operations_that_never_were_are_not_found(running: Running) -> None:
    """Get, cancel and watch agree."""
    name = "operations/never"
    for found in (
        await fails(
            running.operations.GetOperation(operation_service_pb2.GetOperationRequest(name=name))
        ),
        await fails(
            running.operations.CancelOperation(
                operation_service_pb2.CancelOperationRequest(name=name)
            )
        ),
        await fails(
            running.operations.WatchOperation(
                operation_service_pb2.WatchOperationRequest(name=name)
            )
        ),
    ):
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_the_other_works_of_a_model(running: Running) -> None:
    """Counting, scoring and embedding go through the same hold."""
    counted = await running.generation.CountTokens(
        generation_service_pb2.CountTokensRequest(text="a b c")
    )
    assert (counted.count, counted.model) == (3, f"models/{MODEL}")
    embedded = await running.generation.Embed(
        generation_service_pb2.EmbedRequest(texts=["a b", "c"])
    )
    assert [item.tokens for item in embedded.embeddings] == [2, 1]
    scored = await running.generation.Score(
        generation_service_pb2.ScoreRequest(
            text="a",
            continuations=[
                generation_service_pb2.Continuation(text="b c"),
                generation_service_pb2.Continuation(text="d"),
            ],
        )
    )
    assert [item.token_count for item in scored.scores] == [2, 1]
    first = scored.scores[0]
    assert first.sum_logprob == pytest.approx(sum(token.logprob for token in first.tokens))


async def test_operations_are_listed_newest_first_in_pages(running: Running) -> None:
    """An operation that starts between two pages moves none of the others."""

    async def never(_: Any) -> Any:
        await asyncio.Event().wait()

    operations = running.app._operations
    names = [f"operations/{operations.start(Kind.PULL, f'm{n}', never).id}" for n in range(3)]
    request = operation_service_pb2.ListOperationsRequest(page_size=2)
    first = await running.operations.ListOperations(request)
    operations.start(Kind.PULL, "late", never)
    request.page_token = first.next_page_token
    second = await running.operations.ListOperations(request)
    shown = [item.name for item in (*first.operations, *second.operations)]
    assert shown == names[::-1]
    assert not second.next_page_token
