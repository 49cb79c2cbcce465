from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NoReturn

import grpc
import pytest

from gemd.client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    Lease,
    ModelNotFoundError,
    ResourceNotFoundError,
    RetryPolicy,
)
from gemd.v1 import daemon_service_pb2, event_pb2, lease_pb2
from tests.support.daemon_says import abort, lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon

MODEL = "smollm2-135m"
YEAR = 86400 * 365
QUICK = RetryPolicy(attempts=3, first_delay=0.001, longest_delay=0.05)


@pytest.fixture
def client(daemon: FakeDaemon, socket: Path) -> Iterator[Client]:
    """A client with short retries."""
    with Client(socket, name="test/1", retry=QUICK, random=lambda: 0.5) as connected:
        yield connected


@pytest.fixture
async def aio(daemon: FakeDaemon, socket: Path) -> AsyncIterator[AsyncClient]:
    """The same for asyncio."""
    async with AsyncClient(socket, name="test/1", retry=QUICK, random=lambda: 0.5) as connected:
        yield connected


def gone(context: grpc.ServicerContext) -> NoReturn:
    """A failure for `Script.failures`."""
    abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "it went away")


def wrong(context: grpc.ServicerContext) -> NoReturn:
    """One that no second attempt helps against."""
    abort(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "so not")


def test_a_lease_is_a_plain_value(client: Client) -> None:
    """Model without its prefix, seconds as numbers, the proto message beside."""
    made = client.create_lease(MODEL)
    assert (made.name, made.model, made.client) == ("leases/1", MODEL, "test/1")
    assert (made.ttl, made.create_time, made.expire_time) == (600.0, YEAR, YEAR + 600)
    assert made.state == "ACTIVE"
    assert isinstance(made.raw, lease_pb2.Lease)
    with pytest.raises(ModelNotFoundError):
        client.create_lease("nobody")


def test_a_lease_asks_for_what_was_named(daemon: FakeDaemon, client: Client) -> None:
    """A time that is not named stays unset; every call has an id of its own."""
    client.create_lease(MODEL)
    client.create_lease(MODEL, ttl=1.5, load=True)
    plain, full = daemon.asked("CreateLease")
    assert (plain.HasField("ttl"), plain.load, plain.client) == (False, False, "test/1")
    assert (full.ttl.ToMilliseconds(), full.load) == (1500, True)
    assert uuid.UUID(plain.request_id) != uuid.UUID(full.request_id)


def test_a_repeated_attempt_is_recognised(daemon: FakeDaemon, client: Client) -> None:
    """The daemon can tell it from a second lease."""
    daemon.script.failures = [gone]
    client.create_lease(MODEL)
    first, second = daemon.asked("CreateLease")
    assert first.request_id == second.request_id


def test_leases_are_renewed_released_and_listed(daemon: FakeDaemon, client: Client) -> None:
    """Oldest first, from all pages; a release is silent, also the second one."""
    daemon.script.page_size = 2
    names = [client.create_lease(MODEL).name for _ in range(5)]
    assert [one.name for one in client.leases()] == names
    assert client.leases(model="other") == []
    assert client.renew_lease(names[0], ttl=60).ttl == 60
    assert client.renew_lease(names[0]).ttl == 60
    unset = daemon.asked("RenewLease")[-1]
    assert (unset.name, unset.HasField("ttl")) == (names[0], False)
    for _ in range(2):
        client.release_lease(names[0])
    assert [one.name for one in client.leases()] == names[1:]
    with pytest.raises(ResourceNotFoundError):
        client.renew_lease(names[0])


def test_a_block_holds_a_lease(daemon: FakeDaemon, client: Client) -> None:
    """It is active inside, can be renewed there, and is released at the end."""
    with client.lease(MODEL, ttl=30, load=True) as held:
        assert [one.name for one in client.leases()] == [held.name]
        assert client.renew_lease(held.name).ttl == 30
    assert client.leases() == []
    (asked,) = daemon.asked("CreateLease")
    assert (asked.ttl.seconds, asked.load) == (30, True)


def test_a_block_that_fails_gives_its_lease_back(client: Client) -> None:
    """Its own error arrives unchanged."""
    with pytest.raises(KeyError), client.lease(MODEL):
        raise KeyError
    assert client.leases() == []


def test_a_release_that_fails_is_no_failure_of_the_block(
    daemon: FakeDaemon, client: Client
) -> None:
    """The lease ends by itself; but without a lease the block does not begin."""
    with client.lease(MODEL):
        daemon.script.failures = [wrong]
    assert len(daemon.asked("ReleaseLease")) == 1
    daemon.script.failures = [wrong]
    with pytest.raises(InvalidRequestError), client.lease(MODEL):
        raise AssertionError


async def test_the_async_client_does_the_same(daemon: FakeDaemon, aio: AsyncClient) -> None:
    """Created, renewed, listed, released."""
    daemon.script.page_size = 1
    made = await aio.create_lease(MODEL, ttl=5, load=True)
    other = await aio.create_lease(MODEL)
    assert await aio.leases(model=MODEL) == [made, other]
    assert (await aio.renew_lease(made.name, ttl=7)).ttl == 7
    await aio.release_lease(made.name)
    assert await aio.leases() == [other]
    (asked, _) = daemon.asked("CreateLease")
    assert (asked.ttl.seconds, asked.load, asked.client) == (5, True, "test/1")


async def test_an_async_block_holds_a_lease(daemon: FakeDaemon, aio: AsyncClient) -> None:
    """As the other one does, whatever becomes of its end."""
    async with aio.lease(MODEL, ttl=30) as held:
        assert [one.name for one in await aio.leases()] == [held.name]
    assert await aio.leases() == []
    with pytest.raises(KeyError):
        async with aio.lease(MODEL):
            raise KeyError
    assert await aio.leases() == []
    async with aio.lease(MODEL):
        daemon.script.failures = [wrong]
    assert len(daemon.asked("ReleaseLease")) == 3


def test_leases_are_in_the_status_and_in_events(daemon: FakeDaemon, client: Client) -> None:
    """As the same values."""
    daemon.script.leases = {"leases/1": lease()}
    expected = Lease.of(lease())
    assert client.status().leases == (expected,)
    daemon.script.events = [
        daemon_service_pb2.WatchEventsResponse(event=event_pb2.Event(sequence=1, lease=lease()))
    ]
    with client.events(kinds=["lease"]) as events:
        (event,) = events
    assert (event.kind, event.payload) == ("lease", expected)
