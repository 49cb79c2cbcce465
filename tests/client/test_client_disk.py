"""What lies on disk, through the clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from gemd.client import AsyncClient, Client, GemdClientError, RetryPolicy
from gemd.v1 import model_pb2, operation_pb2
from tests.support.daemon_says import abort, model, operation
from tests.support.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = RetryPolicy(attempts=3, first_delay=0.001, longest_delay=0.05)


@pytest.fixture
def daemon(socket: Path) -> Iterator[FakeDaemon]:
    """A daemon with a variant that was used, and an answer to a clean-up."""
    with FakeDaemon(socket) as running:
        found = model("tiny", size_bytes=1000)
        found.variants[0].last_used_time.FromSeconds(1_700_000_000)
        found.variants[0].path = "/store/blobs/tiny.gguf"
        found.variants[0].rejection = "a tensor differs"
        running.script.models = {"tiny": found}
        running.script.disk = model_pb2.DiskUse(
            owned_bytes=1000, shared_bytes=50, quota_bytes=5000, free_bytes=7
        )
        running.script.prunes = [
            operation("SUCCEEDED", kind=operation_pb2.Operation.KIND_PRUNE) for _ in range(2)
        ]
        yield running


def test_variants_and_what_all_take_are_plain_values(daemon: FakeDaemon, socket: Path) -> None:
    """Times are seconds since 1970; what never was is None."""
    with Client(socket) as client:
        [variant] = client.model("tiny").variants
        disk = client.disk_use()
    assert (variant.id, variant.disk_bytes, variant.exclusive_bytes) == ("q4_1", 1000, 1000)
    assert variant.last_used == 1_700_000_000
    assert (variant.path, variant.rejection) == ("/store/blobs/tiny.gguf", "a tensor differs")
    assert (disk.owned_bytes, disk.shared_bytes, disk.quota_bytes, disk.free_bytes) == (
        1000,
        50,
        5000,
        7,
    )
    daemon.script.models["tiny"].variants[0].ClearField("last_used_time")
    with Client(socket) as client:
        assert client.model("tiny").variants[0].last_used is None


def test_a_prune_says_what_is_wished_and_nothing_else(daemon: FakeDaemon, socket: Path) -> None:
    """A limit of no bytes is one; no limit is none."""
    with Client(socket) as client:
        assert client.prune(unused_for=60.0, keep_bytes=0).kind == "PRUNE"
        client.prune(dry_run=True)
    wished, plain = daemon.asked("PruneStore")
    assert (wished.dry_run, wished.unused_for.ToSeconds(), wished.keep_bytes) == (False, 60, 0)
    assert wished.HasField("keep_bytes")
    assert (plain.dry_run, plain.HasField("unused_for"), plain.HasField("keep_bytes")) == (
        True,
        False,
        False,
    )


async def test_the_async_client_does_the_same(daemon: FakeDaemon, socket: Path) -> None:
    """And neither makes a prune twice, though the daemon was not available."""
    async with AsyncClient(socket, retry=QUICK) as client:
        assert (await client.disk_use()).quota_bytes == 5000
        assert (await client.prune(keep_bytes=5)).kind == "PRUNE"
        daemon.script.failures = [
            lambda context: abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "bye")
        ]
        with pytest.raises(GemdClientError, match="bye"):
            await client.prune()
    assert [request.keep_bytes for request in daemon.asked("PruneStore")] == [5, 0]
