from __future__ import annotations

import fcntl
import os
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import gemd
from gemd.doctor import Condition, DaemonReport, NoAnswerError, Result
from gemd.doctor.daemon import DaemonFacts, check_daemon, examine_daemon
from gemd.doctor.sockets import examine_socket
from gemd.rpc.socket import Lock, take_lock
from tests.support.app import short_directory
from tests.support.doctoring import made, surroundings, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.doctor import Surroundings


@pytest.fixture
def home() -> Iterator[Path]:
    """A home whose path leaves room for a socket's name, with the socket's directory."""
    with short_directory() as path:
        (path / "run" / "gemd").mkdir(parents=True)
        (path / "run" / "gemd").chmod(0o700)
        yield path


@pytest.fixture
def around(home: Path) -> Surroundings:
    """Its surroundings."""
    return surroundings(home)


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """Somebody accepts connections there; the socket stays, as after a kill."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """This process holds the daemon's lock."""
    taken = take_lock(path)
    assert isinstance(taken, Lock)
    try:
        yield
    finally:
        taken.release()


def test_a_place_that_is_free_is_fine(around: Surroundings) -> None:
    """Nothing is made to find out."""
    found = made(examine_socket, around)
    assert found.result is Result.OK
    assert found.detail.endswith("(from XDG_RUNTIME_DIR), no daemon listens")
    assert list(around.paths.runtime_dir.iterdir()) == []


def test_a_daemon_that_listens_is_named(around: Surroundings) -> None:
    """By the process that holds the lock; looking takes neither lock nor socket away."""
    with locked(around.paths.lock), listening(around.paths.socket):
        found = made(examine_socket, around)
        assert (found.result, found.fixes) == (Result.OK, ())
        assert found.detail.endswith(f"served by process {os.getpid()}")
        around.paths.socket.chmod(0o666)
        found = made(examine_socket, around)
        assert (found.result, found.fixes[0][:9]) == (Result.WARNING, "chmod 600")


def test_a_stale_socket_is_a_warning(around: Surroundings) -> None:
    """The next daemon removes it; until then the command does."""
    with listening(around.paths.socket):
        pass
    write(around.paths.lock, "12345\n")
    found = made(examine_socket, around)
    assert (found.result, found.fixes) == (Result.WARNING, (f"rm {around.paths.socket}",))
    assert "left over from a daemon that has ended (connection refused)" in found.detail
    assert around.paths.socket.exists()


@pytest.mark.parametrize("stale", [True, False])
def test_a_daemon_that_holds_the_lock_and_does_not_listen_fails(
    around: Surroundings, *, stale: bool
) -> None:
    """It hangs, or its socket was removed; who it is, is said."""
    if stale:
        with listening(around.paths.socket):
            pass
    with locked(around.paths.lock):
        found = made(examine_socket, around)
    assert (found.result, found.fixes) == (Result.FAILED, (f"kill {os.getpid()}",))
    assert f"process {os.getpid()} (" in found.detail
    assert ("connection refused" if stale else "its socket is gone") in found.detail


def test_a_lock_without_a_pid_is_still_a_lock(around: Surroundings) -> None:
    """Whoever holds it can be found."""
    with write(around.paths.lock, "no number").open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        found = made(examine_socket, around)
    assert found.result is Result.FAILED
    assert found.detail.startswith("another process holds")
    assert found.fixes == (f"fuser {around.paths.lock}",)


def test_a_lock_whose_pid_is_a_strangers_names_nobody(around: Surroundings) -> None:
    """A daemon in a container writes its own number, which here is a process not to be killed."""
    with (
        subprocess.Popen(["sleep", "60"]) as stranger,
        write(around.paths.lock, f"{stranger.pid}\n").open("rb") as handle,
    ):
        fcntl.flock(handle, fcntl.LOCK_EX)
        found = made(examine_socket, around)
        stranger.kill()
    assert found.detail.startswith("another process holds")
    assert found.fixes == (f"fuser {around.paths.lock}",)


def test_a_lock_that_was_removed_is_a_warning(around: Surroundings) -> None:
    """A second daemon could not tell that there is a first one."""
    with listening(around.paths.socket):
        found = made(examine_socket, around)
    assert found.result is Result.WARNING
    assert "the lock file was removed" in found.detail


def test_what_is_in_the_way_fails(around: Surroundings) -> None:
    """A file where the socket should be, and a link where the lock should be."""
    path = write(around.paths.socket)
    found = made(examine_socket, around)
    assert (found.result, found.fixes[0]) == (Result.FAILED, f"mv {path} {path}.old")
    path.unlink()
    around.paths.lock.symlink_to(path)
    found = made(examine_socket, around)
    assert found.result is Result.FAILED
    assert "cannot be used: Too many levels of symbolic links" in found.detail


def test_a_directory_that_is_not_private_fails(around: Surroundings) -> None:
    """So does a path that no socket can have."""
    around.paths.runtime_dir.chmod(0o755)
    found = made(examine_socket, around)
    assert (found.result, found.fixes) == (
        Result.FAILED,
        (f"chmod 700 {around.paths.runtime_dir}",),
    )
    long = surroundings(around.home, environ={"GEMD_SOCKET": f"{around.home}/{'x' * 120}/s"})
    found = made(examine_socket, long)
    assert found.result is Result.FAILED
    assert "a Unix socket's path may have 107 bytes here" in found.detail


REPORT = DaemonReport(
    version=gemd.__version__, pid=7, state="SERVING", uptime_s=7300, started_by="SERVICE"
)


def test_a_daemon_that_answers_is_described(home: Path) -> None:
    """Its age, its models, and what it reports: what matters as warnings with their advice."""
    report = DaemonReport(
        version="0.0.1",
        pid=7,
        state="SERVING",
        uptime_s=7300,
        started_by="SERVICE",
        workers={8: "gpu0", 9: "cpu"},
        conditions=(
            Condition("INFO", "m has a smaller context"),
            Condition("ERROR", "m crashed 3 times", ("gemctl load m",)),
        ),
    )
    found = made(examine_daemon, surroundings(home, report=lambda: report))
    assert found.result is Result.WARNING
    assert f"it is gemd 0.0.1, and this is {gemd.__version__}" in found.detail
    assert "m crashed 3 times" in found.detail
    assert found.detail.endswith(
        "gemd 0.0.1, pid 7, serving, up 2 h, started by service, 2 models in memory; "
        "m has a smaller context"
    )
    assert found.fixes == ("gemctl stop", "gemctl load m")
    assert check_daemon(DaemonFacts(gemd.__version__, REPORT)).result is Result.OK


def test_no_daemon_is_no_failure(home: Path) -> None:
    """Unless gemctl may not start one either."""
    assert made(examine_daemon, surroundings(home)).result is Result.SKIPPED
    found = made(examine_daemon, surroundings(home, environ={"GEMD_AUTOSTART": "0"}))
    assert (found.result, found.fixes) == (Result.WARNING, ("gemd",))


def test_a_daemon_that_does_not_answer_fails(around: Surroundings) -> None:
    """With the process that holds its lock, which can be killed."""

    def silent() -> None:
        raise NoAnswerError("the deadline of 5 s passed")

    with locked(around.paths.lock):
        found = made(examine_daemon, surroundings(around.home, report=silent))
    assert found.result is Result.FAILED
    assert found.detail.endswith("the deadline of 5 s passed")
    assert found.fixes == ("gemctl stop", f"kill -9 {os.getpid()}")
