"""The daemon as a service manager sees it: over a NOTIFY_SOCKET of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING

import grpc
import psutil
import pytest

from gemd.v1 import daemon_service_pb2, daemon_service_pb2_grpc, status_pb2
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import generation_service_pb2_grpc as stubs
from tests.support.app import connect, until
from tests.support.daemon_process import Home, home, serving
from tests.support.notify_socket import NotifySocket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOW_TO_LISTEN = """
import os
from gemd import daemon
from gemd.rpc import app
listen = app.listen
def slow(*arguments, **named):
    with open(os.environ["GATE"]) as gate:
        gate.read()
    return listen(*arguments, **named)
app.listen = slow
daemon.main()
"""
"""A daemon that opens its socket when somebody opens a pipe."""

QUICK_TO_SAY = """
from gemd import daemon, notify
notify.STATUS_S = 0.2
daemon.main()
"""
"""A daemon that says its status again sooner than managers would like."""

BLOCKED = """
import asyncio, signal, sys, threading
from gemd import daemon, notify
run = notify.Telling.run
def block():
    print("blocked", file=sys.stderr, flush=True)
    threading.Event().wait()
async def runs(telling):
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, block)
    await run(telling)
notify.Telling.run = runs
daemon.main()
"""
"""A daemon whose event loop hangs after a SIGUSR1."""


@pytest.fixture
def user() -> Iterator[Home]:
    """A user without a daemon."""
    with home() as made:
        yield made


@pytest.fixture
def manager(user: Home) -> Iterator[NotifySocket]:
    """The service manager's end."""
    with NotifySocket.at(user.path / "notify") as listening:
        yield listening


@contextlib.contextmanager
def started(
    user: Home, manager: NotifySocket, *arguments: str, **extra: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon of that manager, certainly gone afterwards."""
    with (user.path / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *(arguments or ("-m", "gemd"))],
            env=user.environ(NOTIFY_SOCKET=manager.address, INVOCATION_ID="a1", **extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def opened_for(process: subprocess.Popen[bytes], gate: Path) -> IO[str]:
    """A pipe for writing, once that process reads it; it has failed if it ended instead."""
    give_up = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < give_up:
        try:
            return os.fdopen(os.open(gate, os.O_WRONLY | os.O_NONBLOCK), "w", encoding="utf-8")
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"nobody reads the gate; exit code {process.poll()}")


async def info(user: Home) -> status_pb2.DaemonInfo:
    """Who the daemon says it is."""
    async with connect(user.socket) as channel:
        stub = daemon_service_pb2_grpc.DaemonServiceStub(channel)
        request = daemon_service_pb2.GetInfoRequest()
        answered = await stub.GetInfo(request, timeout=20)
    return answered.info


def on_stderr(user: Home) -> str:
    """What went there and not into a file of the daemon's."""
    return (user.path / "log").read_text(encoding="utf-8")


async def test_ready_is_said_when_a_call_succeeds_and_not_before(
    user: Home, manager: NotifySocket
) -> None:
    """While the socket is not open yet, calls fail and nothing is said."""
    gate = user.path / "gate"
    os.mkfifo(gate)
    with started(user, manager, "-c", SLOW_TO_LISTEN, GATE=str(gate)) as process:
        with await asyncio.to_thread(opened_for, process, gate) as opened:
            # It reads the gate: all before the listening has been done.
            with pytest.raises(grpc.aio.AioRpcError):
                await info(user)
            assert manager.next(seconds=0.01) is None
            opened.write("go")
        first = await asyncio.to_thread(manager.next)
        assert first is not None
        assert first[0] == "READY=1"
        assert first[1].startswith("STATUS=no model is warm; cpu ")
        assert len(first) == 2
        told = await info(user)
        assert told.pid == process.pid
        assert told.started_by == status_pb2.DaemonInfo.STARTED_BY_SERVICE


async def test_the_status_names_warm_models_and_the_end_is_told(
    user: Home, manager: NotifySocket
) -> None:
    """After an answer; SIGTERM then is STOPPING at once, and the process is gone in time."""
    with started(user, manager, "-c", QUICK_TO_SAY) as process:
        await asyncio.to_thread(manager.until, "READY=1")
        async with connect(user.socket) as channel:
            call = stubs.GenerationServiceStub(channel).Generate(
                service.GenerateRequest(text="it answers")
            )
            assert "".join([event.delta.text async for event in call]) == "it answers"
        changed = await asyncio.to_thread(manager.until, "STATUS=1 warm: scripted; cpu ")
        assert len(changed) == 1
        (worker,) = psutil.Process(process.pid).children()
        assert not {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"} & worker.environ().keys()
        asked = time.monotonic()
        process.terminate()
        ending = await asyncio.to_thread(manager.next)
        assert ending is not None
        assert ending[0] == "STOPPING=1"
        assert await asyncio.to_thread(process.wait, 20) == 0
        assert time.monotonic() - asked < 20
    assert not any("WATCHDOG=1" in lines for lines in manager.heard)


async def test_a_loop_that_hangs_falls_silent(user: Home, manager: NotifySocket) -> None:
    """Signs of life come again and again; after the hang comes none, and SIGABRT says where."""
    half_s = 0.05
    watchdog = {"WATCHDOG_USEC": str(int(half_s * 2e6))}
    with started(user, manager, "-c", BLOCKED, **watchdog) as process:
        assert "WATCHDOG=1" in await asyncio.to_thread(manager.until, "READY=1")
        for _ in range(5):
            await asyncio.to_thread(manager.until, "WATCHDOG=1")
        process.send_signal(signal.SIGUSR1)
        await until(lambda: "blocked" in user.log(), seconds=60)
        while manager.next(seconds=0.001):
            # What was said before it hung.
            pass
        assert await asyncio.to_thread(manager.next, seconds=10 * half_s) is None
        process.send_signal(signal.SIGABRT)
        assert await asyncio.to_thread(process.wait, 20) == -signal.SIGABRT
    assert "in block" in user.log()


async def test_the_watchdog_of_another_process_is_not_fed(
    user: Home, manager: NotifySocket
) -> None:
    """It is READY all the same; no sign of life comes in ten times its half."""
    with started(user, manager, WATCHDOG_USEC="20000", WATCHDOG_PID="1"):
        assert "WATCHDOG=1" not in await asyncio.to_thread(manager.until, "READY=1")
        assert await asyncio.to_thread(manager.next, seconds=0.1) is None


def test_a_wrong_setting_is_the_status_of_a_unit_that_failed(
    user: Home, manager: NotifySocket
) -> None:
    """The manager shows it, and does not start it again: exit code 78."""
    with started(user, manager, GEMD_IDLE_EXIT="soon") as process:
        said = manager.next()
        assert said is not None
        assert said[0].startswith("STATUS=GEMD_IDLE_EXIT sets idle_exit to 'soon'")
        assert process.wait(20) == 78


async def test_an_autostarted_daemon_says_nothing_for_the_unit_of_its_terminal(
    user: Home, manager: NotifySocket
) -> None:
    """Its client may be in a unit, whose variables it inherits."""
    with started(user, manager, "-m", "gemd", "--autostarted", WATCHDOG_USEC="20000") as process:
        user.wait_until_serving(process)
        assert manager.next(seconds=0.1) is None


async def test_an_agent_of_launchd_keeps_its_log_and_has_no_idle_end(user: Home) -> None:
    """Nobody else would keep it small; a client can see where it is."""
    with serving(user, "--agent", GEMD_IDLE_EXIT="1s"):
        told = await info(user)
        assert told.started_by == status_pb2.DaemonInfo.STARTED_BY_SERVICE
        assert not told.HasField("idle_exit_time")
        assert told.log_path == str(user.path / "state" / "gemd" / "gemd.log")
        assert '"daemon.serving"' in user.log()
        assert on_stderr(user) == ""


def test_launchd_does_not_restart_an_agent_with_a_wrong_setting(user: Home) -> None:
    """It restarts whatever fails, for ever: what only a person can mend ends with 0."""
    process = user.start("--agent", GEMD_IDLE_EXIT="soon")
    assert process.wait(20) == 0
    assert process.stdout is not None
    process.stdout.close()
    assert "GEMD_IDLE_EXIT" in user.log()
