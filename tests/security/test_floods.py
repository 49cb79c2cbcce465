"""Who floods a listener: bounded memory, descriptors for workers, and the socket for its owner."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import resource
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest

from gemd.rpc import limits
from gemd.v1 import daemon_service_pb2, daemon_service_pb2_grpc
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import generation_service_pb2_grpc as stubs
from tests.support import attacker
from tests.support.app import MIB, Running, connect, serving, until
from tests.support.attacker import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GREETING,
    HEADERS,
    PING,
    SETTINGS,
    call_headers,
    frame,
)
from tests.support.daemon_process import Home, home
from tests.support.daemon_process import serving as daemon
from tests.support.methods import free_port

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterator

    from gemd.rpc.limits import ListenerLimits

GET_INFO = "/gemd.v1.DaemonService/GetInfo"
WATCH = "/gemd.v1.DaemonService/WatchEvents"
PING_FRAME = rb"\x00\x00\x08\x06\x00\x00\x00\x00\x00(.{8})"
"""One that asks, with what is to be sent back."""
CROWD = 10_000
USUAL_FILES = 1024
"""The soft limit of descriptors that a session or a service of systemd has."""


@pytest.fixture
def user() -> Iterator[Home]:
    """A user without a daemon."""
    with home() as made:
        yield made


async def answer(channel: grpc.aio.Channel, text: str) -> str:
    """What the scripted model says."""
    call = stubs.GenerationServiceStub(channel).Generate(service.GenerateRequest(text=text))
    return "".join([event.delta.text async for event in call])


def open_of(crowd: list[socket.socket]) -> int:
    """How many of them are not closed; the kernel holds some before the daemon sees them."""
    return sum(attacker.is_open(one) for one in crowd)


async def get_info(channel: grpc.aio.Channel, **options: Any) -> Any:
    """A short call."""
    stub = daemon_service_pb2_grpc.DaemonServiceStub(channel)
    return await stub.GetInfo(daemon_service_pb2.GetInfoRequest(), **options)


async def test_ten_thousand_connections_to_the_socket(user: Home) -> None:
    """Most are closed at once, and who was there before is answered, by a model that loads then.

    A program with a leak is among the user's own. When it ends, everybody is answered again.
    """
    with attacker.allowed_files(USUAL_FILES):
        started = daemon(user)
        process = started.__enter__()
    try:
        before = psutil.Process(process.pid).memory_info().rss
        async with connect(user.socket) as channel:
            await get_info(channel)
            with (
                attacker.allowed_files(CROWD + 500),
                attacker.crowd(str(user.socket), CROWD) as all_,
            ):
                assert len(all_) == CROWD
                inside = psutil.Process(process.pid)
                await until(lambda: inside.num_fds() < limits.LOCAL_CONNECTIONS + 100)
                assert inside.num_fds() > limits.LOCAL_CONNECTIONS - 10
                assert inside.memory_info().rss - before < 40 * MIB
                assert await answer(channel, "nobody is in the way") == "nobody is in the way"
                await until(lambda: open_of(all_) <= limits.LOCAL_CONNECTIONS)
        async with connect(user.socket) as channel:
            await get_info(channel, wait_for_ready=True, timeout=20)
    finally:
        started.__exit__(None, None, None)


async def test_ten_thousand_connections_to_the_port(user: Home) -> None:
    """Anybody on this machine can make them; the socket does not notice."""
    port = free_port()
    with attacker.allowed_files(USUAL_FILES):
        started = daemon(user, GEMD_TCP_PORT=str(port))
        process = started.__enter__()
    try:
        inside = psutil.Process(process.pid)
        before = inside.memory_info().rss
        with (
            attacker.allowed_files(CROWD + 500),
            attacker.crowd(("127.0.0.1", port), CROWD) as all_,
        ):
            await until(lambda: inside.num_fds() < limits.REMOTE_CONNECTIONS + 100)
            await until(lambda: open_of(all_) <= limits.REMOTE_CONNECTIONS)
            assert inside.memory_info().rss - before < 40 * MIB
            async with connect(user.socket) as channel:
                assert await answer(channel, "not even noticed") == "not even noticed"
    finally:
        started.__exit__(None, None, None)


async def test_a_hundred_megabytes_are_refused(user: Home) -> None:
    """Unread: the size stands before the message. A message below the limit is taken."""
    with daemon(user) as process:
        inside = psutil.Process(process.pid)
        options = (
            ("grpc.default_authority", "localhost"),
            ("grpc.max_send_message_length", -1),
        )
        async with grpc.aio.insecure_channel(f"unix:{user.socket}", options=options) as channel:
            await get_info(channel)
            before = inside.memory_info().rss
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answer(channel, "x" * 100_000_000)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in str(caught.value.details())
            assert inside.memory_info().rss - before < 40 * MIB
            assert await answer(channel, "still there") == "still there"


async def test_a_hundred_megabytes_without_the_token_are_not_even_taken(user: Home) -> None:
    """The refusal needs the headers alone; what follows them is not stored."""
    port = free_port()
    with daemon(user, GEMD_TCP_PORT=str(port), GEMD_MAX_MESSAGE_BYTES="1GiB") as process:
        inside = psutil.Process(process.pid)
        options = (("grpc.max_send_message_length", -1),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await get_info(channel)
            before = inside.memory_info().rss
            refused = await asyncio.gather(
                *(answer(channel, "x" * 100_000_000) for _ in range(2)), return_exceptions=True
            )
            assert {each.code() for each in refused if isinstance(each, grpc.aio.AioRpcError)} == {
                grpc.StatusCode.UNAUTHENTICATED
            }
            assert inside.memory_info().rss - before < 40 * MIB


async def test_a_call_too_many_is_refused_and_no_more_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is refused at once; the next one is taken when one has ended."""
    monkeypatch.setattr(limits, "CALLS_BESIDE_THE_QUEUE", 19)
    async with serving(queue_limit=1) as running:
        stub = daemon_service_pb2_grpc.DaemonServiceStub(running.channel)
        request = daemon_service_pb2.WatchEventsRequest(initial_state=True)
        watching = [stub.WatchEvents(request) for _ in range(20)]
        async with asyncio.timeout(20):
            await asyncio.gather(*(watch.read() for watch in watching))
        # Another connection: over this one, gRPC would wait for a stream to become free.
        options = (("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1))
        target = f"unix:{running.paths.socket}"
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await get_info(channel, timeout=20)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            watching.pop().cancel()
            async with asyncio.timeout(20):
                while not await is_answered(channel):
                    pass


async def is_answered(channel: grpc.aio.Channel) -> bool:
    """Whether a short call is taken now."""
    try:
        await get_info(channel)
    except grpc.aio.AioRpcError:
        return False
    return True


@pytest.mark.parametrize("size", [20_000, 1_000_000])
async def test_headers_that_are_too_large_are_refused(size: int) -> None:
    """The call fails, and neither the connection's other calls nor the daemon."""
    async with serving() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get_info(running.channel, metadata=(("x-large", "y" * size),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        large = (("x-large", "y" * 15_000),)
        for _ in range(10):
            # Up to the limit, and not only sometimes.
            assert (await get_info(running.channel, metadata=large)).info.version == "0.0.0"


UNFINISHED_HANDSHAKES = {
    "nothing": b"",
    "half of a preface": attacker.PREFACE[:10],
    "no settings": attacker.PREFACE,
}
UNFINISHED_CALLS = {
    "no call": GREETING,
    "half of the headers": GREETING + frame(HEADERS, 0, 1, call_headers(GET_INFO)),
    "half of a frame": (GREETING + frame(HEADERS, END_HEADERS, 1, call_headers(GET_INFO)))[:-20],
}


@contextlib.asynccontextmanager
async def impatient(
    patch: pytest.MonkeyPatch, **shorter: int
) -> AsyncIterator[tuple[Running, tuple[str, int]]]:
    """A daemon with less patience at its TCP port than it has; it answers others at the end."""
    told = limits.remote_limits

    def remote_limits(**given: int) -> ListenerLimits:
        made = told(**given)
        assert made.handshake_ms <= 10_000
        assert made.idle_ms <= 3_600_000
        return dataclasses.replace(made, **{"handshake_ms": 60_000, "idle_ms": 60_000} | shorter)

    patch.setattr(limits, "remote_limits", remote_limits)
    port = free_port()
    async with serving(tcp_port=port) as running:
        yield running, ("127.0.0.1", port)
        assert await running.answer("others are answered") == "others are answered"


@pytest.mark.parametrize("said", UNFINISHED_HANDSHAKES.values(), ids=UNFINISHED_HANDSHAKES.keys())
async def test_who_does_not_say_what_it_speaks_is_closed(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """After the handshake's time."""
    async with impatient(monkeypatch, handshake_ms=300) as (_, address):
        await asyncio.to_thread(_wait_until_closed, address, said)


@pytest.mark.parametrize("said", UNFINISHED_CALLS.values(), ids=UNFINISHED_CALLS.keys())
async def test_who_begins_a_call_and_says_no_more_is_closed(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """As one without a call is: after the idle time."""
    async with impatient(monkeypatch, idle_ms=300) as (_, address):
        await asyncio.to_thread(_wait_until_closed, address, said)


def _wait_until_closed(address: attacker.Address, said: bytes) -> None:
    with attacker.dial(address) as connection:
        connection.sendall(said)
        attacker.until_closed(connection)


async def test_a_header_a_second_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers that never end are no call, so that the connection counts as idle."""
    async with impatient(monkeypatch, idle_ms=300) as (_, address):
        assert await asyncio.to_thread(_drip, address) < 15


async def test_a_peer_that_has_gone_without_a_word_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a call under way, for which a connection is never idle: as a laptop that was shut."""
    shorter = {"keepalive_ms": 200, "ping_timeout_ms": 500}
    async with impatient(monkeypatch, **shorter) as (running, address):
        token = running.paths.token.read_bytes().strip()
        call = call_headers(WATCH, (b"authorization", b"Bearer " + token))
        said = GREETING + frame(SETTINGS, ACK, 0) + frame(HEADERS, END_HEADERS, 1, call)
        said += frame(DATA, END_STREAM, 1, bytes(5))
        asked = await asyncio.to_thread(_silent_after_one_ping, address, said)
        assert asked == 2


def _silent_after_one_ping(address: attacker.Address, said: bytes) -> int:
    """Answer the first ping and nothing else; how many there were until the connection ended."""
    pings = 0
    with attacker.dial(address) as connection:
        connection.sendall(said)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                for ping in re.findall(PING_FRAME, piece, re.DOTALL):
                    pings += 1
                    if pings == 1:
                        connection.sendall(frame(PING, ACK, 0, ping))
    return pings


def _drip(address: attacker.Address) -> float:
    """Send header after header of one call, slowly; seconds until the connection is closed."""
    with attacker.dial(address) as connection:
        connection.sendall(GREETING + frame(HEADERS, 0, 1, call_headers(GET_INFO)))
        began = time.monotonic()
        pause = threading.Event()
        while time.monotonic() < began + 20:
            header = frame(attacker.CONTINUATION, 0, 1, attacker.field(b"x", b"y"))
            try:
                connection.sendall(header)
            except OSError:
                break
            pause.wait(0.1)
        return time.monotonic() - began


async def test_others_are_answered_beside_headers_without_an_end(user: Home) -> None:
    """Of one connection, which sends up to a gigabyte of them: gRPC throws them away.

    What that costs, and what many connections can do with it, is in SECURITY.md and not asserted.
    """
    port = free_port()
    with daemon(user, GEMD_TCP_PORT=str(port)):
        stop = threading.Event()
        flooding = asyncio.create_task(asyncio.to_thread(_flood, ("127.0.0.1", port), stop))
        try:
            async with connect(user.socket) as channel:
                for number in range(20):
                    assert await answer(channel, f"answer {number}") == f"answer {number}"
        finally:
            stop.set()
        assert await flooding > 0


def _flood(address: attacker.Address, stop: threading.Event) -> int:
    """Headers of one call without an end, as fast as they are taken; how many bytes were."""
    block = frame(attacker.CONTINUATION, 0, 1, attacker.field(b"x", b"y" * 100) * 100)
    sent = 0
    with attacker.dial(address) as connection:
        connection.sendall(GREETING + frame(HEADERS, 0, 1, call_headers(GET_INFO)))
        while not stop.is_set() and sent < 1_000_000_000:
            try:
                connection.sendall(block)
            except OSError:
                break
            sent += len(block)
    return sent


def test_the_limits_leave_descriptors_for_workers() -> None:
    """With whatever the system allows, down to what macOS gives by default."""
    for open_files in (256, 1024, 4096, 100_000):
        given = {"open_files": open_files, "queue": 256, "message_bytes": MIB}
        both = limits.local_limits(**given).connections + limits.remote_limits(**given).connections
        assert 16 <= both <= open_files - min(limits.FILES_OF_OURS, open_files * 3 // 4)
    enough = {"open_files": limits.OPEN_FILES, "queue": 256, "message_bytes": MIB}
    assert limits.local_limits(**enough).connections == limits.LOCAL_CONNECTIONS
    assert limits.remote_limits(**enough).connections == limits.REMOTE_CONNECTIONS
    for queue in (1, 256, 100_000):
        assert limits.local_limits(open_files=4096, queue=queue, message_bytes=MIB).calls > queue


def test_the_limit_of_descriptors_is_raised_and_never_lowered() -> None:
    """Up to the hard one; who has more keeps it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with attacker.allowed_files(USUAL_FILES):
            raised = limits.allow_open_files()
            assert raised == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            assert raised == min(limits.OPEN_FILES, before[1] if before[1] > 0 else raised)
            assert limits.allow_open_files(100) == raised
    finally:
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
