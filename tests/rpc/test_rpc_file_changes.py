"""Whoever mirrors the models hears of their files too."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from gemd.rpc.file_changes import FileChanges, FilesChanged
from gemd.store import Kind, Operation
from gemd.store.operation import State
from gemd.store.results import Pruned, PrunedItem
from gemd.v1 import daemon_service_pb2, event_pb2, model_pb2, store_service_pb2
from tests.support.app import profile, serving

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile

IN_TIME_S = 10.0


def operation(kind: Kind, state: State, **fields: Any) -> Operation:
    """One snapshot of work on a model."""
    usual: dict[str, Any] = {"id": "7", "model": "m", "variant": "", "created": 0.0, "updated": 0.0}
    return Operation(kind=kind, state=state, **(usual | fields))


def test_a_model_changes_when_work_on_it_begins_and_when_it_ends() -> None:
    """And not with every megabyte; however it ends, and each operation by itself."""
    changes = FileChanges()
    running = operation(Kind.PULL, State.RUNNING)
    assert changes.of(running) == (FilesChanged("m"),)
    assert changes.of(running) == ()
    assert changes.of(operation(Kind.PULL, State.RUNNING, id="8", model="n")) == (
        FilesChanged("n"),
    )
    assert changes.of(operation(Kind.PULL, State.FAILED)) == (FilesChanged("m"),)
    assert changes.of(running) == (FilesChanged("m"),)


def test_a_clean_up_changes_the_models_that_it_took_from() -> None:
    """Each once; what belongs to no model, and a dry run, change none."""
    items = (
        PrunedItem("unused", 1, "m", "a"),
        PrunedItem("unused", 1, "m", "b"),
        PrunedItem("unused", 1, path="/leftover"),
        PrunedItem("unused", 1, "n", "a"),
    )
    changes = FileChanges()
    assert changes.of(operation(Kind.PRUNE, State.RUNNING, model="")) == ()
    for dry, changed in ((True, ()), (False, (FilesChanged("m"), FilesChanged("n")))):
        result = Pruned(dry, items, 0)
        ended = operation(Kind.PRUNE, State.SUCCEEDED, model="", result=result)
        assert changes.of(ended) == changed


async def test_a_pull_and_a_removal_are_changes_of_the_model() -> None:
    """A mirror that knows only events has it on disk, and then no more."""

    def hashed(file: Path) -> list[Profile]:
        made = profile(file, name="pulled")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        variant = made.variants[0].model_copy(update={"sha256": digest})
        return [made.model_copy(update={"variants": (variant,)})]

    async with serving(catalog=hashed, default_model="pulled") as running:
        wanted = daemon_service_pb2.WatchEventsRequest(
            types=[event_pb2.Event.TYPE_SNAPSHOT, event_pb2.Event.TYPE_MODEL], initial_state=True
        )
        watch: Any = running.daemon.WatchEvents(wanted)

        async def until_it_is(state: model_pb2.Model.State.ValueType) -> None:
            seen = (await watch.read()).event.model
            while (seen.id, seen.state) != ("pulled", state):
                seen = (await watch.read()).event.model

        assert (await watch.read()).event.HasField("snapshot")
        async with asyncio.timeout(IN_TIME_S):
            await running.store.PullModel(store_service_pb2.PullModelRequest(model="pulled"))
            await until_it_is(model_pb2.Model.STATE_ON_DISK)
            await running.store.DeleteModel(store_service_pb2.DeleteModelRequest(model="pulled"))
            await until_it_is(model_pb2.Model.STATE_ABSENT)
        watch.cancel()
