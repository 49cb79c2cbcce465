from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import grpc
import pytest

from gemd.client import (
    AsyncClient,
    Client,
    Device,
    ResourceNotFoundError,
    RetryPolicy,
    ShuttingDownError,
    YieldedMemory,
)
from gemd.v1 import daemon_service_pb2, device_pb2
from tests.support.daemon_says import YEAR_SECONDS, abort, cpu, yielded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon

QUICK = RetryPolicy(attempts=3, first_delay=0.001, longest_delay=0.05)


@pytest.fixture
def client(daemon: FakeDaemon, socket: Path) -> Iterator[Client]:
    """A client with short retries."""
    with Client(socket, retry=QUICK, random=lambda: 0.5) as connected:
        yield connected


@pytest.fixture
async def aio(daemon: FakeDaemon, socket: Path) -> AsyncIterator[AsyncClient]:
    """The same for asyncio."""
    async with AsyncClient(socket, retry=QUICK, random=lambda: 0.5) as connected:
        yield connected


def gone(context: grpc.ServicerContext) -> NoReturn:
    """A failure for `Script.failures`."""
    abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "it went away")


def test_what_was_given_back_is_a_plain_value(daemon: FakeDaemon, client: Client) -> None:
    """One for each device; names without prefixes, times in seconds, the message beside."""
    bare = daemon_service_pb2.YieldedMemory(device="devices/gpu1")
    daemon.script.yielded = [yielded(keep_off_until=YEAR_SECONDS), bare]
    first, second = client.give_back()
    assert (first.device, first.released_bytes, first.confirmed) == ("cpu", 2**32, True)
    assert (first.duration, first.models) == (0.38, ("m", "n"))
    assert first.kept_bytes == 2**30
    assert [(one.code, one.message) for one in first.kept_reasons] == [("PINNED", "p is pinned")]
    assert first.keep_off_until == YEAR_SECONDS
    assert (second.device, second.confirmed, second.models) == ("gpu1", False, ())
    assert (second.keep_off_until, second.raw) == (None, bare)


def test_what_is_not_named_stays_unset(daemon: FakeDaemon, client: Client) -> None:
    """Size and time have a presence: 0 is not the same as none."""
    client.give_back()
    client.give_back("gpu0", size=0, keep_off=1.5, force=True)
    client.resume("gpu0")
    plain, full, resumed = daemon.asked("Yield")
    assert plain == daemon_service_pb2.YieldRequest()
    assert (full.device, full.HasField("size_bytes"), full.size_bytes) == ("gpu0", True, 0)
    assert (full.keep_off.ToMilliseconds(), full.force, full.resume) == (1500, True, False)
    assert resumed == daemon_service_pb2.YieldRequest(device="gpu0", resume=True)


def test_a_size_is_not_asked_for_twice(daemon: FakeDaemon, client: Client) -> None:
    """The first attempt may have had its effect; everything there is can be given only once."""
    daemon.script.failures = [gone]
    with pytest.raises(ShuttingDownError):
        client.give_back(size=2**30)
    daemon.script.failures = [gone]
    client.give_back()
    daemon.script.failures = [gone]
    client.resume()
    assert len(daemon.asked("Yield")) == 5


async def test_the_async_client_gives_back_too(daemon: FakeDaemon, aio: AsyncClient) -> None:
    """The same values and the same errors."""
    daemon.script.yielded = [yielded()]
    assert await aio.give_back("cpu", size=5, keep_off=60, force=True) == (
        YieldedMemory.of(yielded()),
    )
    await aio.resume()
    asked, resumed = daemon.asked("Yield")
    assert (asked.size_bytes, asked.keep_off.seconds, asked.force) == (5, 60, True)
    assert resumed.resume

    def unknown(context: grpc.ServicerContext) -> NoReturn:
        abort(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "no gpu7")

    daemon.script.failures = [unknown]
    with pytest.raises(ResourceNotFoundError):
        await aio.give_back("gpu7")


def test_a_device_tells_all_of_its_memory() -> None:
    """What no sensor tells is None, and not 0."""
    blank = Device.of(cpu())
    assert (blank.unknown_bytes, blank.keep_off_until) == (None, None)
    assert (blank.margin_bytes, blank.simulated, blank.stale) == (0, False, False)
    full = device_pb2.Device(
        id="gpu0",
        simulated=True,
        memory=device_pb2.DeviceMemory(margin_bytes=1, unknown_bytes=0, stale=True),
    )
    full.keep_off_until.FromSeconds(YEAR_SECONDS)
    device = Device.of(full)
    assert (device.margin_bytes, device.unknown_bytes, device.stale) == (1, 0, True)
    assert (device.simulated, device.keep_off_until) == (True, YEAR_SECONDS)


def test_the_status_tells_of_the_battery(daemon: FakeDaemon, client: Client) -> None:
    """Unknown is neither yes nor no."""
    assert client.status().on_battery is None
    daemon.script.on_battery = False
    assert client.status().on_battery is False
