from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from gemd.v1 import daemon_service_pb2, daemon_service_pb2_grpc, status_pb2
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import generation_service_pb2_grpc as stubs
from tests.support.app import connect
from tests.support.daemon_process import Home, home, serving
from tests.support.workers import wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def user() -> Iterator[Home]:
    """A user without a daemon."""
    with home() as made:
        yield made


async def answer(user: Home, text: str = "it answers") -> str:
    """What the default model says."""
    async with connect(user.socket) as channel:
        call = stubs.GenerationServiceStub(channel).Generate(service.GenerateRequest(text=text))
        return "".join([event.delta.text async for event in call])


async def test_a_daemon_from_start_to_end(user: Home) -> None:
    """Private socket, silent standard output, small when idle; SIGTERM ends it in order."""
    with serving(user) as process:
        assert user.socket.stat().st_mode & 0o777 == 0o600
        assert user.socket.parent.stat().st_mode & 0o777 == 0o700
        assert str(user.socket) in user.log()
        assert await answer(user) == "it answers"
        idle = psutil.Process(process.pid)
        assert idle.memory_info().rss < 80 * 2**20
        worker = idle.children()[0].pid
        process.terminate()
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
        wait_until_gone(worker, seconds=1)
        assert not user.socket.exists()
    assert '"outcome": "OK"' in user.log()
    assert "it answers" not in user.log()


async def test_a_second_daemon_is_refused(user: Home) -> None:
    """It names the first one's pid and socket, exits with 1, and leaves the socket alone.

    Without the lock file, which a cleaner of old files took, the first one still serves and
    goes on.
    """
    with serving(user) as first:
        inode = user.socket.stat().st_ino
        second = user.start()
        assert second.wait(20) == 1
        assert second.stdout is not None
        second.stdout.close()
        assert f"process {first.pid}" in user.log()
        assert str(user.socket) in user.log()
        before = user.log()
        user.socket.with_name("gemd.sock.lock").unlink()
        third = user.start()
        assert third.wait(20) == 1
        assert third.stdout is not None
        third.stdout.close()
        assert f"serves {user.socket}" in user.log().removeprefix(before)
        assert user.socket.stat().st_ino == inode
        assert await answer(user) == "it answers"


async def test_an_autostarted_daemon_ends_when_idle(user: Home) -> None:
    """By itself and in order; its client can see when. Looking at it is no use."""
    with serving(user, "--autostarted", GEMD_IDLE_EXIT="1s") as process:
        async with connect(user.socket) as channel:
            daemon = daemon_service_pb2_grpc.DaemonServiceStub(channel)
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError):  # noqa: PT012 - asked until it is gone
                while time.monotonic() < began + 20:
                    answered = await daemon.GetInfo(daemon_service_pb2.GetInfoRequest())
                    assert answered.info.HasField("idle_exit_time")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        await asyncio.to_thread(process.wait, 0.05)
        assert process.wait(10) == 0
    assert not user.socket.exists()


STUCK = """
import sys, threading
from gemd import daemon
from gemd.hardware.sampler import Sampler
from gemd.hardware.sensors import MachineSensor
Sampler.__init__.__kwdefaults__["blind_after_s"] = 0.3
first = MachineSensor.read
def read(sensor, workers, looks=[]):
    looks.append(1)
    if len(looks) > 1:
        print("stuck", file=sys.stderr, flush=True)
        threading.Event().wait()
    return first(sensor, workers)
MachineSensor.read = read
MachineSensor.may_hang = True
daemon.main()
"""
"""A daemon whose second look at the devices never comes back, as in a driver that hangs."""


async def test_a_thread_that_hangs_does_not_hold_up_the_end(user: Home) -> None:
    """Its thread is waited for by nobody: status says that it is blind, and the end is in order."""
    process = with_a_piped_log(user, "-c", STUCK)
    try:
        assert process.stderr is not None
        read_until("daemon.serving", process)
        async with connect(user.socket) as channel:
            daemon = daemon_service_pb2_grpc.DaemonServiceStub(channel)
            answered = await daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
            await asyncio.to_thread(read_until, "stuck", process)
            async with asyncio.timeout(20):
                while not answered.status.devices[-1].memory.stale:
                    answered = await daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
            assert [each.type for each in answered.status.conditions] == ["SensorBlind"]
            process.terminate()
            assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        end(process)


POOLED = """
import asyncio, threading
from gemd import daemon
from gemd.rpc import compose
made = compose.compose
def hanging(*arguments, **named):
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    return made(*arguments, **named)
compose.compose = hanging
daemon.LONGEST_END_S = 0.4
daemon.main()
"""
"""A daemon with a thread that the interpreter itself would wait for."""


def test_the_end_has_a_last_moment(user: Home) -> None:
    """Past it the process is gone whatever still runs, and says so."""
    process = with_a_piped_log(user, "-c", POOLED)
    try:
        read_until("daemon.serving", process)
        process.terminate()
        read_until("daemon.end_forced", process)
        assert process.wait(20) == 1
    finally:
        end(process)


def read_until(word: str, process: subprocess.Popen[str]) -> None:
    """Read its log up to a line with the word."""
    assert process.stderr is not None
    while word not in (line := process.stderr.readline()):
        assert line, f"its log ended without {word!r}"


def end(process: subprocess.Popen[str]) -> None:
    """It is certainly gone afterwards."""
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def with_a_piped_log(user: Home, *arguments: str) -> subprocess.Popen[str]:
    """A daemon whose standard error is read here."""
    return subprocess.Popen(
        [sys.executable, *(arguments or ("-m", "gemd"))],
        env=user.environ(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_a_log_that_nobody_takes_any_more_stops_no_answer(user: Home) -> None:
    """A reader of the log that goes away costs the log, not the daemon: it serves and ends."""
    process = with_a_piped_log(user)
    try:
        read_until("daemon.serving", process)
        assert process.stderr is not None
        process.stderr.close()
        assert await answer(user) == "it answers"
        assert await answer(user) == "it answers"
        process.terminate()
        assert process.wait(20) == 0
    finally:
        end(process)


@pytest.mark.parametrize(
    "variables,kind",
    [
        ({"INVOCATION_ID": "a1"}, status_pb2.DaemonInfo.STARTED_BY_SERVICE),
        ({"INVOCATION_ID": ""}, status_pb2.DaemonInfo.STARTED_BY_MANUAL),
        (
            # A shell in a terminal that is a unit.
            {"INVOCATION_ID": "a1", "SYSTEMD_EXEC_PID": "1"},
            status_pb2.DaemonInfo.STARTED_BY_MANUAL,
        ),
    ],
)
async def test_no_other_daemon_ends_when_idle(
    user: Home, variables: dict[str, str], kind: status_pb2.DaemonInfo.StartedBy.ValueType
) -> None:
    """One of a service or of a user has no end, whatever idle_exit says."""
    with serving(user, GEMD_IDLE_EXIT="1s", **variables):
        async with connect(user.socket) as channel:
            daemon = daemon_service_pb2_grpc.DaemonServiceStub(channel)
            info = (await daemon.GetInfo(daemon_service_pb2.GetInfoRequest())).info
        assert not info.HasField("idle_exit_time")
        assert info.started_by == kind


def test_a_wrong_setting_exits_with_78(user: Home) -> None:
    """EX_CONFIG, with the setting, its origin and what is allowed."""
    process = user.start(GEMD_IDLE_EXIT="soon")
    assert process.wait(20) == 78
    assert process.stdout is not None
    process.stdout.close()
    assert "GEMD_IDLE_EXIT" in user.log()
    assert "try: " in user.log()


def test_a_runtime_directory_open_to_others_exits_with_78(user: Home) -> None:
    """Nothing is bound where others could reach it."""
    user.socket.parent.mkdir(mode=0o755)
    user.socket.parent.chmod(0o755)
    process = user.start()
    assert process.wait(20) == 78
    assert process.stdout is not None
    process.stdout.close()
    assert "0755" in user.log()
    assert not user.socket.exists()
