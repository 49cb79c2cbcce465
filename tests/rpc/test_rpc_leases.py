from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import duration_pb2

from gemd.residency.leases import MOST_ACTIVE
from gemd.residency.states import State
from gemd.residency.wishes import Wish
from gemd.v1 import (
    daemon_service_pb2,
    event_pb2,
    lease_pb2,
    lease_service_pb2,
    model_service_pb2,
)
from tests.support.app import MODEL, Running, fails, profile, serving, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from gemd.catalog import Profile

OTHER = "local/other"


def two(file: Path) -> list[Profile]:
    """Two models of one file."""
    return [profile(file), profile(file, name=OTHER)]


@pytest.fixture
async def running() -> AsyncGenerator[Running]:
    """A daemon with two scripted models."""
    async with serving(catalog=two) as daemon:
        yield daemon


def create(running: Running, model: str = MODEL, *, ttl: float | None = None, **fields: Any) -> Any:
    """Ask for a lease."""
    request = lease_service_pb2.CreateLeaseRequest(model=model, **fields)
    if ttl is not None:
        request.ttl.FromNanoseconds(round(ttl * 1e9))
    return running.leases.CreateLease(request)


async def created(running: Running, model: str = MODEL, **fields: Any) -> lease_pb2.Lease:
    """A lease that is granted."""
    lease: lease_pb2.Lease = (await create(running, model, **fields)).lease
    return lease


def renew(running: Running, name: str, *, ttl: int | None = None) -> Any:
    """Ask for more time."""
    request = lease_service_pb2.RenewLeaseRequest(name=name)
    if ttl is not None:
        request.ttl.FromSeconds(ttl)
    return running.leases.RenewLease(request)


def release(running: Running, name: str) -> Any:
    """Give a lease back."""
    return running.leases.ReleaseLease(lease_service_pb2.ReleaseLeaseRequest(name=name))


async def listed(running: Running, **fields: Any) -> list[str]:
    """Names of active leases."""
    request = lease_service_pb2.ListLeasesRequest(**fields)
    return [lease.name for lease in (await running.leases.ListLeases(request)).leases]


async def lease_count(running: Running, model: str = MODEL) -> int:
    """What the model itself says."""
    found = await running.models.GetModel(model_service_pb2.GetModelRequest(name=model))
    return found.model.lease_count


async def test_a_lease_is_a_complete_resource(running: Running) -> None:
    """Under the model's own name, with its holder and its times on the wall."""
    before = time.time()
    made = await created(running, f"models/{MODEL}", client="editor/1", ttl=90.5)
    after = time.time()
    assert made.name.startswith("leases/")
    assert (made.model, made.client) == (f"models/{MODEL}", "editor/1")
    assert made.ttl == duration_pb2.Duration(seconds=90, nanos=500_000_000)
    assert made.state == lease_pb2.Lease.STATE_ACTIVE
    assert before - 0.01 <= made.create_time.ToNanoseconds() / 1e9 <= after + 0.01
    # Both times are of one moment, so that their distance is exact.
    lasts = made.expire_time.ToNanoseconds() - made.create_time.ToNanoseconds()
    assert lasts / 1e9 == pytest.approx(90.5, abs=0.01)
    assert (await created(running)).ttl.seconds == 600


async def test_leases_are_created_renewed_released_and_listed(running: Running) -> None:
    """The status, the list and the model's count say the same at every step."""

    async def holds(*names: str) -> None:
        status = (await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())).status
        assert [lease.name for lease in status.leases] == [*names]
        assert await listed(running) == [*names]
        assert await lease_count(running) == len(names)
        assert await lease_count(running, OTHER) == 0

    await holds()
    first, second = await created(running), await created(running)
    await holds(first.name, second.name)
    renewed = (await renew(running, first.name, ttl=3600)).lease
    assert (renewed.name, renewed.ttl.seconds) == (first.name, 3600)
    assert renewed.expire_time.seconds > first.expire_time.seconds + 2900
    # Again without a time: as long as before.
    assert (await renew(running, first.name)).lease.ttl.seconds == 3600
    await holds(first.name, second.name)
    await release(running, first.name)
    await holds(second.name)
    await release(running, first.name)
    await holds(second.name)


async def test_a_repeated_request_gets_the_same_lease(running: Running) -> None:
    """While it is active; another request under the same id is a mistake."""
    first = await created(running, request_id="7d1f")
    assert (await created(running, request_id="7d1f")).name == first.name
    found = await fails(create(running, OTHER, request_id="7d1f"))
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("request_id",))
    await release(running, first.name)
    assert (await created(running, request_id="7d1f")).name != first.name
    assert len(await listed(running)) == 1


async def test_what_has_ended_is_not_found(running: Running) -> None:
    """Nor is what never was; the advice is a command."""
    ended = await created(running)
    await release(running, ended.name)
    for name in (ended.name, "leases/nobody"):
        found = await fails(renew(running, name))
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert found.metadata["lease"] == name.removeprefix("leases/")
        assert "gemctl lease" in found.metadata["try"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model"),
    ({"ttl": 0}, "ttl"),
    ({"ttl": -1}, "ttl"),
    ({"ttl": 0.9}, "ttl"),
    ({"ttl": 86401}, "ttl"),
    ({"client": "x" * 129}, "client"),
    ({"client": "a\nb"}, "client"),
    ({"request_id": "x" * 129}, "request_id"),
]


@pytest.mark.parametrize("fields,field", WRONG)
async def test_a_lease_checks_its_fields(
    running: Running, fields: dict[str, Any], field: str
) -> None:
    """What cannot be used is named, and nothing is created."""
    found = await fails(create(running, **fields))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert found.fields == (field,)
    assert await listed(running) == []


async def test_a_renewal_checks_its_fields(running: Running) -> None:
    """As its creation does; the lease stays as it is."""
    made = await created(running)
    for name, ttl, field in ((made.name, 0, "ttl"), ("", 60, "name"), ("x" * 200, 60, "name")):
        found = await fails(renew(running, name, ttl=ttl))
        assert (found.reason, found.fields) == ("INVALID_REQUEST", (field,))
    assert (await fails(release(running, ""))).fields == ("name",)
    assert await listed(running) == [made.name]


async def test_an_unknown_model_has_no_leases(running: Running) -> None:
    """It can neither be leased nor asked for."""
    for call in (
        create(running, "nobody"),
        running.leases.ListLeases(lease_service_pb2.ListLeasesRequest(model="nobody")),
    ):
        found = await fails(call)
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


async def test_leases_are_listed_oldest_first_in_pages(running: Running) -> None:
    """One that ends or is renewed between two pages moves none of the others."""
    names = [(await created(running)).name for _ in range(5)]
    other = await created(running, OTHER)
    assert await listed(running) == [*names, other.name]
    assert await listed(running, model=f"models/{OTHER}") == [other.name]
    request = lease_service_pb2.ListLeasesRequest(page_size=2, model=MODEL)
    pages: list[list[str]] = []
    while not pages or request.page_token:
        answer = await running.leases.ListLeases(request)
        pages.append([lease.name for lease in answer.leases])
        request.page_token = answer.next_page_token
        if len(pages) == 1:
            await release(running, names[0])
            await renew(running, names[1])
    assert pages == [names[:2], names[2:4], names[4:]]
    request.page_token = "x"
    assert (await fails(running.leases.ListLeases(request))).fields == ("page_token",)


async def test_leases_are_bounded(running: Running) -> None:
    """One more is refused with the time at which the next one ends."""
    for _ in range(MOST_ACTIVE):
        running.app.leases.create(MODEL, ttl_s=60, client="", load=False, request_id="")
    found = await fails(create(running))
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert found.metadata["limit"] == str(MOST_ACTIVE)
    assert found.retry_s is not None
    assert 0 < found.retry_s <= 60


async def test_watchers_hear_of_every_change(running: Running) -> None:
    """Created, renewed, released, expired: each time the lease after the change."""
    watch: Any = running.daemon.WatchEvents(
        daemon_service_pb2.WatchEventsRequest(
            initial_state=True, types=[event_pb2.Event.TYPE_LEASE]
        )
    )
    assert (await watch.read()).event.HasField("snapshot")
    brief = await created(running, OTHER, ttl=1)
    made = await created(running)
    await renew(running, made.name, ttl=60)
    await release(running, made.name)
    told = [(await watch.read()).event.lease for _ in range(5)]
    watch.cancel()
    assert [(lease.name, lease_pb2.Lease.State.Name(lease.state)) for lease in told] == [
        (brief.name, "STATE_ACTIVE"),
        (made.name, "STATE_ACTIVE"),
        (made.name, "STATE_ACTIVE"),
        (made.name, "STATE_RELEASED"),
        (brief.name, "STATE_EXPIRED"),
    ]
    assert told[2].ttl.seconds == 60
    assert await listed(running) == []


async def test_residency_is_told_what_leases_wish(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, after every change, under one name."""
    told: list[tuple[str, Mapping[str, Wish]]] = []
    monkeypatch.setattr(running.app.manager, "wish", lambda *said: told.append(said), raising=False)
    made = await created(running)
    await created(running, OTHER, load=True)
    await release(running, made.name)
    leased, warm = Wish(leased=True), Wish(leased=True, warm=True)
    assert told == [
        ("leases", {MODEL: leased}),
        ("leases", {MODEL: leased, OTHER: warm}),
        ("leases", {OTHER: warm}),
    ]


async def test_a_lease_makes_its_model_warm(running: Running) -> None:
    """In the background: the answer comes at once, and a worker without anybody's asking."""
    await created(running, OTHER)
    await created(running, load=True)
    manager = running.app.manager
    await until(lambda: manager.residence(MODEL).state is State.READY)
    assert manager.residence(OTHER).state is State.COLD


async def test_a_leased_model_is_not_unloaded_for_being_idle() -> None:
    """It is as soon as the lease has ended."""
    async with serving(keep_warm="100ms") as running:
        made = await created(running)
        await running.answer("a")
        manager = running.app.manager
        await until(lambda: not manager.residence(MODEL).active)
        assert manager.residence(MODEL).idle_unload is None
        await release(running, made.name)
        await until(lambda: manager.residence(MODEL).state is State.COLD)


async def test_a_lease_keeps_the_daemon(running: Running) -> None:
    """One that a client started would otherwise end in the middle of a long lease."""
    assert not running.app._is_bound()
    made = await created(running)
    assert running.app._is_bound()
    await release(running, made.name)
    assert not running.app._is_bound()


async def test_a_daemon_that_ends_takes_no_leases(running: Running) -> None:
    """It says so, instead of a promise that ends with it."""
    made = await created(running)
    await running.app.drain(0)
    found = await fails(create(running))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    await release(running, made.name)
