from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from gemd.cli.failures import Exit
from gemd.cli.logs import in_words
from tests.support.daemon_process import Home, home, serving
from tests.support.gemctl import Gemctl, Inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def user() -> Iterator[Home]:
    """A user without a daemon."""
    with home() as made:
        yield made


def gemctl(user: Home, **extra: str) -> Inside:
    """The command line of this user, which starts no daemon."""
    return Inside(user.environ(GEMD_AUTOSTART="0", **extra))


def log_file(user: Home) -> Path:
    """Where a daemon that gemctl has started logs."""
    return user.path / "state" / "gemd" / "gemd.log"


def event(number: int, level: str = "info") -> str:
    """A line of a log."""
    return json.dumps({"event": f"event.{number}", "level": level, "time": "2026-01-02T03:04:05Z"})


def test_the_log_of_a_daemon_that_gemctl_started(user: Home) -> None:
    """In words, or the lines as they are; the latest ones, and of a level if asked for."""
    with serving(user, "--autostarted"):
        shown = gemctl(user)("logs")
        assert shown.returncode == 0, shown.stderr
        assert " info    daemon.serving " in shown.stdout
        assert f"socket={user.socket}" in shown.stdout
        assert not shown.stderr
        lines = gemctl(user)("logs", "--json", "--lines", "1").stdout.splitlines()
        assert [json.loads(line)["level"] for line in lines] == ["info"]
        assert gemctl(user)("logs", "--level", "error").stdout == ""


def test_the_log_that_is_left_is_shown_after_the_daemons_end(user: Home) -> None:
    """With the file before it, where that is needed, and a word about where it is from."""
    file = log_file(user)
    file.parent.mkdir(parents=True)
    file.with_name("gemd.log.1").write_text("".join(f"{event(n)}\n" for n in range(3)))
    unfinished = event(9)[:20]
    file.write_text(f"{event(3)}\n{event(4, 'warning')}\nSegmentation fault\n{unfinished}")
    shown = gemctl(user)("logs", "-n", "4")
    assert [line.split()[3:4] or line for line in shown.stdout.splitlines()[:3]] == [
        ["event.2"],
        ["event.3"],
        ["event.4"],
    ]
    assert shown.stdout.splitlines()[3:] == ["Segmentation fault"]
    assert f"not running; this is what it left in {file}" in shown.stderr
    severe = gemctl(user)("logs", "--level", "warning", "--json").stdout.splitlines()
    assert severe == [event(4, "warning"), "Segmentation fault"]
    assert gemctl(user)("logs", "-n", "0").stdout == ""


def test_nobody_has_logged_anything(user: Home) -> None:
    """It says where it has looked."""
    shown = gemctl(user, PATH="/nowhere")("logs")
    assert shown.returncode == Exit.NOT_FOUND
    assert str(log_file(user)) in shown.stderr


def test_a_daemon_that_was_started_by_hand_logs_elsewhere(user: Home) -> None:
    """An old file of another one is not passed off as its log."""
    log_file(user).parent.mkdir(parents=True, mode=0o700)
    log_file(user).write_text(f"{event(1)}\n")
    log_file(user).parent.chmod(0o700)
    with serving(user, INVOCATION_ID="", XPC_SERVICE_NAME="0") as process:
        shown = gemctl(user)("logs")
        assert shown.returncode == Exit.PRECONDITION
        assert f"pid {process.pid}" in shown.stderr
        assert shown.stdout == ""


def test_the_log_of_the_service_is_in_the_journal(user: Home) -> None:
    """`journalctl` shows it; of a level, all of it is looked through."""
    programs = user.path / "programs"
    programs.mkdir()
    journal = programs / "journalctl"
    journal.write_text(f"#!/bin/sh\necho \"$@\" > {user.path}/asked\necho '{event(7)}'\n")
    journal.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    with serving(user, INVOCATION_ID="1"):
        shown = gemctl(user, PATH=path)("logs", "-n", "5")
        assert "event.7" in shown.stdout
        assert "--lines=5" in (user.path / "asked").read_text()
        assert gemctl(user, PATH=path)("logs", "-n", "5", "--level", "error").stdout == ""
        assert "--lines=5" not in (user.path / "asked").read_text()


def test_following_goes_on_until_it_is_interrupted(user: Home) -> None:
    """Also into the file that the daemon begins when this one is full."""
    file = log_file(user)
    file.parent.mkdir(parents=True)
    file.write_text(f"{event(1)}\n")
    process = Gemctl(user.environ(GEMD_AUTOSTART="0")).start("logs", "-f")
    try:
        assert process.stdout is not None
        assert "event.1" in process.stdout.readline()
        with file.open("a") as log:
            log.write(f"{event(2)}\n")
        assert "event.2" in process.stdout.readline()
        file.rename(file.with_name("gemd.log.1"))
        file.write_text(f"{event(3)}\n")
        assert "event.3" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == Exit.INTERRUPTED
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "event, words",
    [
        ({"event": "x", "level": "info", "b": 1, "a": None}, "info    x a=null b=1"),
        ({"event": "x", "level": "error", "why": "two words"}, 'error   x why="two words"'),
        ({"event": "x", "logger": "gemd", "empty": "", "q": 'a"b'}, '-       x empty="" q="a\\"b"'),
    ],
)
def test_an_event_in_words(event: dict[str, Any], words: str) -> None:
    """What it says comes before its figures, which are in the order of their names."""
    moment = "2026-01-02T03:04:05.5+00:00"
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1767323045))
    assert in_words({**event, "time": moment}) == f"{local} {words}"
    assert in_words({**event, "time": "now"}) == f"now {words}"


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac's service logs into the same file")
def test_a_service_that_is_stopped_has_a_log(user: Home) -> None:
    """It is known by its file; its manager is asked for the log alone."""
    unit = user.path / "config" / "systemd" / "user" / "gemd.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    programs = user.path / "programs"
    programs.mkdir()
    journal = programs / "journalctl"
    journal.write_text(f"#!/bin/sh\necho '{event(7)}'\n")
    journal.chmod(0o755)
    shown = gemctl(user, PATH=str(programs))("logs")
    assert "event.7" in shown.stdout
    assert "its service has logged" in shown.stderr
