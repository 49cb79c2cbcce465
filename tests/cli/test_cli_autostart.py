from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from gemd.cli import autostart
from gemd.cli.failures import CommandError, Exit
from gemd.cli.output import Output
from gemd.client import Client
from tests.support.fake_daemon import FakeDaemon
from tests.support.gemctl import Gemctl

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

FAKE = [sys.executable, "-P", "-m", "tests.support.fake_daemon", "--autostarted"]


class Starter:
    """Starts stand-ins for the daemon."""

    def __init__(self, home: Path, socket: Path, environ: dict[str, str]) -> None:
        self.socket = socket
        self.lock = home / "gemd.lock"
        self.log_file = home / "state" / "gemd.log"
        self.environ = environ
        self.messages = io.StringIO()

    def __call__(self, *more: str, **environ: str) -> None:
        """Make sure that one runs."""
        autostart.ensure_running(
            self.socket,
            command=[*FAKE, "--socket", str(self.socket), *more],
            lock=self.lock,
            log_file=self.log_file,
            environ={**self.environ, **environ},
            output=Output(io.StringIO(), self.messages, {}),
        )


@pytest.fixture
def starter(
    home: Path, socket: Path, gemctl: Gemctl, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Starter]:
    """Starts a scripted daemon in place of the real one, and ends it after the test."""
    spawned = []
    spawn = autostart._spawn

    def recorded(*arguments: Any) -> subprocess.Popen[bytes]:
        spawned.append(spawn(*arguments))
        return spawned[-1]

    monkeypatch.setattr(autostart, "_spawn", recorded)
    yield Starter(home, socket, {**gemctl.environ, "GEMD_AUTOSTART": "1"})
    for process in spawned:
        process.terminate()
        process.wait(20)


def test_a_running_daemon_is_used(starter: Starter, daemon: FakeDaemon) -> None:
    """Nothing is started and nothing is said."""
    starter("--fail", "1", "never started")
    assert starter.messages.getvalue() == ""
    assert not starter.log_file.exists()


def test_a_daemon_is_started_where_none_runs(starter: Starter) -> None:
    """It answers when the function returns, in a session of its own, away from our directory."""
    starter()
    assert starter.messages.getvalue().startswith("starting gemd")
    with Client(starter.socket) as client:
        pid = client.info().pid
    assert pid != os.getpid()
    assert os.getsid(pid) == pid
    assert psutil.Process(pid).cwd() == "/"
    starter("--fail", "1", "never started")
    with Client(starter.socket) as client:
        assert client.info().pid == pid


@pytest.mark.parametrize("word", ["0", "false", "No"])
def test_starting_can_be_forbidden(starter: Starter, word: str) -> None:
    """GEMD_AUTOSTART=0 makes it exit code 3 with advice, and no process."""
    with pytest.raises(CommandError) as caught:
        starter(GEMD_AUTOSTART=word)
    assert caught.value.code == Exit.UNREACHABLE
    assert "GEMD_AUTOSTART" in caught.value.why
    assert caught.value.advice[0] == "gemd"
    assert not starter.log_file.exists()


def test_a_daemon_that_ends_early_is_reported_at_once(starter: Starter) -> None:
    """With its exit code, what it wrote since its start, and where its log is."""
    starter.log_file.parent.mkdir()
    starter.log_file.write_text("of an earlier run\n")
    with pytest.raises(CommandError) as caught:
        starter("--fail", "1", "no room\nfor a socket")
    error = caught.value
    assert error.code == Exit.UNREACHABLE
    assert error.message == "gemd was started but ended at once with exit code 1"
    assert error.why.split() == ["no", "room", "for", "a", "socket"]
    assert str(starter.log_file) in error.advice[0]


def test_a_daemon_with_wrong_settings_names_them(starter: Starter) -> None:
    """Exit code 78 becomes that of a precondition.

    `gemctl config show` reads the same settings and would fail alike: it is no advice.
    """
    with pytest.raises(CommandError) as caught:
        starter("--fail", "78", "GEMD_PARALLEL sets parallel to 'many'")
    assert caught.value.code == Exit.PRECONDITION
    assert "parallel to 'many'" in caught.value.why
    assert caught.value.advice == (f"tail {starter.log_file}",)


def test_a_daemons_own_advice_becomes_ours(starter: Starter) -> None:
    """What it wrote after `try:` is no part of the reason."""
    with pytest.raises(CommandError) as caught:
        starter("--fail", "78", "gemd: /x is in the way\ntry: rm /x\n     gemd --socket PATH")
    assert caught.value.why == "/x is in the way"
    assert caught.value.advice == ("rm /x", "gemd --socket PATH")


def test_a_log_that_cannot_be_written_is_named(starter: Starter, home: Path) -> None:
    """No daemon is started whose last words would be lost."""
    (home / "state").write_text("no directory")
    with pytest.raises(CommandError) as caught:
        starter()
    error = caught.value
    assert error.code == Exit.PRECONDITION
    assert str(starter.log_file) in error.message
    assert "state" in error.why
    assert error.advice[0] == f"ls -ld {home / 'state'}"


def test_the_log_is_private(starter: Starter) -> None:
    """Whatever the umask: at the level debug it holds prompts."""
    before = os.umask(0)
    try:
        starter()
    finally:
        os.umask(before)
    assert starter.log_file.stat().st_mode & 0o777 == 0o600


def test_last_words_are_found_in_a_log_that_was_put_aside(tmp_path: Path) -> None:
    """The file is shorter then than it was at the start."""
    log_file = tmp_path / "gemd.log"
    log_file.write_text("last words\n")
    assert autostart._tail(log_file, 10_000_000) == ["last words"]


def test_last_words_that_are_gone_hide_nothing(tmp_path: Path) -> None:
    """The log was put aside just now: what failed is told without them."""
    assert autostart._tail(tmp_path / "gemd.log", 0) == []


def test_a_lock_that_cannot_be_read_is_held_by_nobody(tmp_path: Path) -> None:
    """It may be somebody else's, as after a `sudo`; the daemon that is started says so."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in ("nothing", "folder", "file/in"):
        assert not autostart.is_held(tmp_path / path)


def test_a_word_that_is_neither_yes_nor_no_is_refused(starter: Starter) -> None:
    """A misspelt GEMD_AUTOSTART=0 must not start a daemon."""
    with pytest.raises(CommandError) as caught:
        starter(GEMD_AUTOSTART="nope")
    assert caught.value.code == Exit.PRECONDITION
    assert caught.value.advice == ("unset GEMD_AUTOSTART",)
    assert not starter.log_file.exists()


def test_a_winner_that_was_ending_is_followed_by_another(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our daemon lost to one that then ended without ever answering: a second is started."""
    with starter.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        loser = [*FAKE, "--fail", "1", "another gemd runs already"]
        commands = [loser, [*FAKE, "--socket", str(starter.socket)]]
        spawn = autostart._spawn
        processes: list[subprocess.Popen[bytes]] = []

        def spawn_next(_: object, *rest: Any) -> subprocess.Popen[bytes]:
            processes.append(spawn(commands.pop(0), *rest))
            return processes[-1]

        def sleep(_: float) -> None:
            time.sleep(0.01)
            if processes[0].poll() is not None and len(processes) == 1:
                looked.append(None)
            if len(looked) > 1:
                fcntl.flock(lock, fcntl.LOCK_UN)

        looked: list[None] = []
        monkeypatch.setattr(autostart, "_spawn", spawn_next)
        autostart.ensure_running(
            starter.socket,
            command=[],
            lock=starter.lock,
            log_file=starter.log_file,
            environ=starter.environ,
            output=Output(io.StringIO(), starter.messages, {}),
            sleep=sleep,
        )
    assert commands == []
    with Client(starter.socket) as client:
        assert client.info().pid == processes[1].pid


def test_the_loser_of_a_race_waits_for_the_winner(starter: Starter, socket: Path) -> None:
    """Our daemon ended because another holds the lock: that one is waited for."""
    winner_may_bind = threading.Event()
    tried = threading.Event()

    def sleep(_: float) -> None:
        if tried.is_set():
            winner_may_bind.set()
        tried.set()

    winners: list[FakeDaemon] = []

    def win() -> None:
        assert winner_may_bind.wait(20)
        winner = FakeDaemon(socket)
        winner.__enter__()
        winners.append(winner)

    thread = threading.Thread(target=win)
    with starter.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        autostart.ensure_running(
            socket,
            command=[*FAKE, "--fail", "1", "another gemd runs already"],
            lock=starter.lock,
            log_file=starter.log_file,
            environ=starter.environ,
            output=Output(io.StringIO(), starter.messages, {}),
            sleep=sleep,
        )
        thread.join(20)
    for winner in winners:
        winner.stop()


def test_a_daemon_that_never_answers_is_given_up(starter: Starter) -> None:
    """After the limit, counted by a clock that is handed in."""
    seconds = iter(range(0, 1000, 10))
    with pytest.raises(CommandError, match="did not answer") as caught:
        autostart.ensure_running(
            starter.socket,
            command=["sleep", "60"],
            lock=starter.lock,
            log_file=starter.log_file,
            environ=starter.environ,
            output=Output(io.StringIO(), starter.messages, {}),
            clock=lambda: float(next(seconds)),
            sleep=lambda _: None,
        )
    assert caught.value.code == Exit.UNREACHABLE


def real_daemons(home: Path) -> list[psutil.Process]:
    """The daemons of this home."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environ = process.info["environ"] or {}
        if "--autostarted" in (process.info["cmdline"] or []) and environ.get("HOME") == str(home):
            found.append(process)
    return found


@pytest.fixture
def real(gemctl: Gemctl, home: Path) -> Iterator[Gemctl]:
    """`gemctl` that may start the real daemon, which is gone after the test."""
    environ = {key: value for key, value in gemctl.environ.items() if key != "GEMD_SOCKET"}
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    yield Gemctl({**environ, "GEMD_AUTOSTART": "1", "XDG_RUNTIME_DIR": str(runtime)})
    for process in real_daemons(home):
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_the_real_daemon_is_started_and_stopped(real: Gemctl, home: Path) -> None:
    """`gemctl list` starts it, `status` sees it, `stop` ends it, and it can start again."""
    done = real("list")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("starting gemd")
    assert "smollm2-135m" in done.stdout
    assert done.stdout.startswith("MODEL")
    again = real("info")
    assert "started by autostart" in again.stdout
    assert again.stderr == ""
    stopped = real("stop")
    assert (stopped.returncode, stopped.stderr) == (0, "gemd has ended\n")
    assert real_daemons(home) == []
    assert real("info").returncode == Exit.UNREACHABLE
    assert real("devices").returncode == 0


def test_the_real_daemons_log_is_kept_small(real: Gemctl) -> None:
    """A full file is put aside, and each event comes once: standard error goes there too."""
    shown = json.loads(real("config", "show", "--json").stdout)
    log_file = Path(shown["files"]["log_file"]["value"])
    log_file.parent.mkdir(mode=0o700, parents=True)
    log_file.write_bytes(b"x" * 9_999_999 + b"\n")
    assert real("list").returncode == 0
    assert log_file.with_name("gemd.log.1").stat().st_size == 10_000_000
    assert log_file.read_text().count("daemon.serving") == 1


def test_two_commands_at_once_end_with_one_daemon(real: Gemctl, home: Path) -> None:
    """Both answer, and the lock has left one daemon."""
    processes = [real.start("list") for _ in range(2)]
    for process in processes:
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "smollm2-135m" in out
    assert len(real_daemons(home)) == 1


def test_a_wrong_setting_is_told_by_the_command_that_starts(real: Gemctl) -> None:
    """The daemon's exit code 78 reaches the user with the daemon's own words."""
    done = real("list", GEMD_PARALLEL="many")
    assert done.returncode == Exit.PRECONDITION
    assert "  why: GEMD_PARALLEL sets parallel to 'many'" in done.stderr
    # The daemon's own advice, in the place of ours and not within the reason.
    assert done.stderr.endswith("\n  try: unset GEMD_PARALLEL\n")
