"""What gRPC itself refuses, in words that say what to do."""

from __future__ import annotations

import pytest

from gemd.client import AsyncClient, GemdClientError, RetryPolicy
from gemd.rpc import limits
from gemd.v1 import daemon_service_pb2
from tests.support.app import MODEL, serving
from tests.support.methods import free_port

ONCE = RetryPolicy(attempts=1)


async def test_a_call_too_many_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a command that shows who makes them."""
    monkeypatch.setattr(limits, "CALLS_BESIDE_THE_QUEUE", 0)
    async with serving(queue_limit=1) as running:
        watch = running.daemon.WatchEvents(
            daemon_service_pb2.WatchEventsRequest(initial_state=True)
        )
        await watch.read()
        async with AsyncClient(running.paths.socket, retry=ONCE) as client:
            with pytest.raises(GemdClientError, match="as many calls under way") as caught:
                await client.info()
        watch.cancel()
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert caught.value.advice == ("gemctl status",)


@pytest.mark.parametrize(
    "limit, size, said",
    [("100KiB", 200_000, "who receives it takes"), ("32MiB", 40_000_000, "this client sends")],
)
async def test_a_message_that_is_too_large_is_told_as_one(limit: str, size: int, said: str) -> None:
    """By whomever it was refused."""
    async with (
        serving(max_message_bytes=limit) as running,
        AsyncClient(running.paths.socket, retry=ONCE) as client,
    ):
        with pytest.raises(GemdClientError, match=said) as caught:
            await client.count_tokens("x" * size, model=MODEL)
        assert "larger than max" in caught.value.why
        assert (await client.count_tokens("x", model=MODEL)).count == 1


async def test_a_token_that_is_none_is_told_as_too_large() -> None:
    """As where a whole file was taken for it."""
    async with (
        serving(tcp_port=(port := free_port())),
        AsyncClient(f"127.0.0.1:{port}", token="x" * 40_000, retry=ONCE) as client,
    ):
        with pytest.raises(GemdClientError, match="metadata are larger than gemd takes"):
            await client.info()
