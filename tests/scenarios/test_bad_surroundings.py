"""A daemon, as a process, where something around it is not as it should be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.client import Client, GenerationOptions
from tests.support.daemon_process import MODEL, Home, home, serving
from tests.support.desktop import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

EX_CONFIG = 78


@pytest.fixture
def user() -> Iterator[Home]:
    """A user without a daemon."""
    with home() as made:
        yield made


def refused(user: Home, *arguments: str, **environ: str) -> str:
    """What a daemon says that does not start; it must end with EX_CONFIG and leave nothing."""
    process = user.start(*arguments, **environ)
    assert process.wait(60) == EX_CONFIG, user.log()
    assert process.stdout is not None
    assert process.stdout.read() == ""
    process.stdout.close()
    said = user.log()
    assert "Traceback" not in said
    assert "try: " in said
    assert not [path for path in user.path.rglob("*.sock") if path.is_socket()]
    return said


def test_a_socket_path_that_is_too_long_exits_with_78(user: Home) -> None:
    """With its length, the limit, and a shorter one to use."""
    long = user.path / ("x" * 120) / "gemd.sock"
    said = refused(user, GEMD_SOCKET=str(long))
    assert f"{len(os.fsencode(long))} bytes" in said
    assert "107" in said or "103" in said
    assert not long.parent.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_foreign_runtime_directory_exits_with_78(user: Home) -> None:
    """Its owner is named; nothing is put into it."""
    user.socket.parent.mkdir(mode=0o700)
    os.chown(user.socket.parent, 12345, 12345)
    assert "belongs to user 12345" in refused(user)
    assert list(user.socket.parent.iterdir()) == []


def test_a_port_in_use_exits_with_78(user: Home) -> None:
    """The port is named, and whoever has it keeps it."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert str(port) in refused(user, GEMD_TCP_PORT=str(port))
        with closing(socket.create_connection(("127.0.0.1", port), timeout=10)):
            pass


@pytest.mark.skipif(
    Path(f"/run/user/{os.getuid()}").exists(), reason="that would be the user's own daemon's place"
)
def test_without_a_runtime_directory_the_socket_is_private_below_the_state(user: Home) -> None:
    """A bare container has no XDG_RUNTIME_DIR; the daemon says where it listens, and serves."""
    with serving(user, XDG_RUNTIME_DIR=""):
        (place,) = (user.path / "state" / "gemd" / "run").glob("*.sock")
        assert place.parent.stat().st_mode & 0o777 == 0o700
        assert str(place) in user.log()
        with Client(place) as client:
            assert client.generate("it answers", GenerationOptions(model=MODEL)).text() == (
                "it answers"
            )


def test_a_directory_with_an_odd_name_serves(user: Home) -> None:
    """Daemon and client mean the same path, whatever a URI would make of it."""
    place = user.path / "100%41 what? no#1" / "gemd.sock"
    with serving(user, GEMD_SOCKET=str(place)) as process, Client(place) as client:
        assert place.is_socket()
        assert client.info().pid == process.pid


CLOSED = """
import os, sys
for number in (int(number) for number in sys.argv[1].split(",")):
    os.close(number)
os.execv(sys.executable, [sys.executable, "-m", "gemd", *sys.argv[2:]])
"""
"""The daemon as `gemd 2>&-` starts it."""


@pytest.mark.parametrize("closed", ["2", "0,1,2"])
def test_a_daemon_without_standard_streams_serves(user: Home, closed: str) -> None:
    """It ends in order too, and no file of its own stands in for standard error meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", CLOSED, closed], env=user.environ())
    try:
        wait_until(lambda: process.poll() is not None or user.socket.is_socket())
        with Client(user.socket) as client:
            assert client.generate("it answers").text() == "it answers"
        if sys.platform == "linux":
            assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path(os.devnull)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_wrong_setting_exits_with_78_without_standard_error(user: Home) -> None:
    """There is nobody to explain it to, and the exit code is still the one of its cause."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED, "2"],
        env=user.environ(GEMD_PARALLEL="many"),
        check=False,
        timeout=60,
    )
    assert done.returncode == EX_CONFIG
