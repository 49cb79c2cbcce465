"""`gemctl service` on Linux, with a stand-in for `systemctl`: no user manager is here."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

from gemd.cli.failures import Exit
from tests.support.gemctl import Inside
from tests.support.service_desks import at_hand
from tests.support.service_managers import Desk, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl

LINUX = pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has launchd")
pytestmark = LINUX


@pytest.fixture
def user(home: Path) -> Path:
    """A home whose name has all that systemd treats in a way of its own."""
    made = home / "a b%h$x\"q'y"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def desk(home: Path, user: Path) -> Iterator[Desk]:
    """The stand-in of this home."""
    made = Desk(home / "desk")
    made.install("systemctl")
    made.remember(unit=str(user / ".config" / "systemd" / "user" / "gemd.service"))
    yield made
    made.kill()


@pytest.fixture
def inside(asking: Inside, desk: Desk) -> Iterator[Inside]:
    """`gemctl` of that home, which has the stand-in at hand."""
    with at_hand(desk):
        yield asking


@pytest.fixture
def asking(gemctl: Gemctl, desk: Desk, user: Path) -> Inside:
    """`gemctl` of that home, which may start a daemon."""
    environ = {key: value for key, value in gemctl.environ.items() if key != "GEMD_AUTOSTART"}
    return Inside({**environ, "HOME": str(user), "PATH": desk.path})


def tree(folder: Path) -> list[str]:
    """All that is in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def unit(user: Path) -> Path:
    """Where it belongs."""
    return user / ".config" / "systemd" / "user" / "gemd.service"


def test_installed_and_uninstalled_leaves_nothing(inside: Inside, desk: Desk, user: Path) -> None:
    """Unit and link are there, and then no file and no folder more than before."""
    (user / ".config").mkdir()
    before = tree(user)
    done = inside("service", "install", "--no-start", HF_HOME=f"{user}/hub", HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    assert f"wrote {unit(user)}\n" in done.stderr
    assert "with these variables of this shell: GEMD_SOCKET, HF_HOME\n" in done.stderr
    assert "without these, which are set here: HF_TOKEN" in done.stderr
    assert "undo: gemctl service uninstall\n" in done.stderr
    assert "loginctl enable-linger" in done.stderr
    assert "secret" not in unit(user).read_text(encoding="utf-8")
    assert (unit(user).parent / "default.target.wants" / "gemd.service").is_symlink()
    assert desk.changes == ["daemon-reload", "enable gemd.service"]
    done = inside("service", "uninstall")
    assert done.returncode == 0, done.stderr
    assert f"removed {unit(user)}\n" in done.stderr
    assert tree(user) == before
    done = inside("service", "uninstall")
    assert (done.returncode, "gemd is no service here" in done.stderr) == (0, True)
    assert tree(user) == before


def test_the_second_installation_changes_nothing(inside: Inside, desk: Desk, user: Path) -> None:
    """It says so; other variables are a change, and what was made is still known."""
    inside("service", "install", "--no-start")
    first = unit(user).stat()
    calls = len(desk.changes)
    done = inside("service", "install", "--no-start")
    assert (done.returncode, f"{unit(user)} is up to date\n" in done.stderr) == (0, True)
    assert (unit(user).stat().st_ino, unit(user).stat().st_mtime_ns) == (
        first.st_ino,
        first.st_mtime_ns,
    )
    assert len(desk.changes) == calls
    done = inside("service", "install", "--no-start", GEMD_THREADS="2")
    assert f"wrote {unit(user)}\n" in done.stderr
    assert desk.changes[calls:] == ["daemon-reload"]
    inside("service", "uninstall")
    assert tree(user) == []


@pytest.mark.parametrize("command", ["install", "uninstall"])
@pytest.mark.parametrize("content", ["edited", "foreign"])
def test_what_is_not_gemctls_is_left_alone(
    command: str, content: str, inside: Inside, desk: Desk, user: Path
) -> None:
    """A file that was changed by hand, or that somebody else wrote; unless it is forced."""
    inside("service", "install", "--no-start")
    text = unit(user).read_text(encoding="utf-8") + "# mine\n"
    unit(user).write_text(text if content == "edited" else "[Service]\n", encoding="utf-8")
    calls, before = len(desk.changes), unit(user).read_bytes()
    done = inside("service", command)
    assert done.returncode == Exit.PRECONDITION
    assert f"gemctl service {command} --force" in done.stderr
    assert ("changed by hand" in done.stderr) == (content == "edited")
    assert unit(user).read_bytes() == before
    assert len(desk.changes) == calls
    options = ("--no-start", "--force") if command == "install" else ("--force",)
    assert inside("service", command, *options).returncode == 0
    assert unit(user).exists() == (command == "install")


def test_what_the_user_put_beside_it_stays(inside: Inside, user: Path) -> None:
    """And is named."""
    inside("service", "install", "--no-start")
    beside = unit(user).with_name("gemd.service.d")
    beside.mkdir()
    (beside / "override.conf").touch()
    done = inside("service", "uninstall")
    assert f"yours, and still there: {beside}\n" in done.stderr
    assert (beside / "override.conf").exists()


def test_the_unit_goes_where_the_manager_looks(inside: Inside, desk: Desk, user: Path) -> None:
    """Its own XDG_CONFIG_HOME decides, and not that of the shell, which the daemon gets."""
    elsewhere = user / "elsewhere"
    done = inside("service", "install", "--no-start", XDG_CONFIG_HOME=str(elsewhere))
    assert done.returncode == 0, done.stderr
    assert not elsewhere.exists()
    assert "XDG_CONFIG_HOME" in unit(user).read_text(encoding="utf-8")
    assert inside("service", "uninstall", XDG_CONFIG_HOME=str(elsewhere)).returncode == 0
    assert tree(user) == []


def without_a_bus(desk: Desk) -> None:
    """What the real one does in a container."""
    script = "#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n"
    (desk.folder / "bin" / "systemctl").write_text(script, encoding="utf-8")


def test_without_systemd_or_a_manager_it_says_what_to_do(
    inside: Inside, desk: Desk, user: Path
) -> None:
    """And nothing is written."""
    bare = user / "bin"
    bare.mkdir()
    done = inside("service", "install", PATH=str(bare))
    assert done.returncode == Exit.PRECONDITION
    assert "there is no systemctl on the PATH" in done.stderr
    assert "gemctl run 'Hello'" in done.stderr
    without_a_bus(desk)
    for command in ("install", "start", "restart"):
        done = inside("service", command)
        assert done.returncode == Exit.PRECONDITION
        assert "why: Failed to connect to bus: No medium found" in done.stderr
        assert "export XDG_RUNTIME_DIR=/run/user/$(id -u)" in done.stderr
    chroot = "#!/bin/sh\necho \"Running in chroot, ignoring command '$2'\" >&2\n"
    (desk.folder / "bin" / "systemctl").write_text(chroot, encoding="utf-8")
    done = inside("service", "install")
    assert (done.returncode, "Running in chroot" in done.stderr) == (Exit.PRECONDITION, True)
    assert tree(user) == ["bin"]


def test_it_can_be_uninstalled_without_a_manager(inside: Inside, desk: Desk, user: Path) -> None:
    """As after a reinstallation of the system: the link goes too."""
    inside("service", "install", "--no-start")
    without_a_bus(desk)
    done = inside("service", "uninstall")
    assert done.returncode == 0, done.stderr
    assert "its manager could not be asked: Failed to connect to bus" in done.stderr
    assert "disabled gemd.service" in done.stderr
    assert tree(user) == []


def test_a_wrong_setting_is_found_before_anything_is_written(inside: Inside, user: Path) -> None:
    """The service would not start."""
    done = inside("service", "install", GEMD_IDLE_EXIT="soon")
    assert done.returncode == Exit.PRECONDITION
    assert "GEMD_IDLE_EXIT" in done.stderr
    assert tree(user) == []


@pytest.mark.parametrize("command", ["start", "stop", "restart"])
def test_what_is_not_installed_cannot_be_started(command: str, inside: Inside) -> None:
    """It says how to install it."""
    done = inside("service", command)
    assert done.returncode == Exit.NOT_FOUND
    assert "gemctl service install" in done.stderr


def test_the_status_of_what_is_not_there(inside: Inside, socket: Path, user: Path) -> None:
    """Exit code 4; the document has all its fields."""
    done = inside("service", "status")
    assert done.returncode == Exit.NOT_FOUND
    assert done.stdout.splitlines()[0] == "systemd user unit  not installed"
    done = inside("service", "status", "--json")
    assert done.returncode == Exit.NOT_FOUND
    assert json.loads(done.stdout) == {
        "kind": "systemd user unit",
        "file": str(unit(user)),
        "installed": False,
        "changed_by_hand": False,
        "state": "STOPPED",
        "detail": "inactive (dead)",
        "error": "",
        "active": False,
        "enabled": False,
        "pid": 0,
        "restarts": 0,
        "says": "",
        "socket": str(socket),
        "answers": False,
        "daemon_error": "",
        "daemon_pid": 0,
        "daemon_started_by": "",
    }


def test_a_daemon_that_was_started_by_hand_is_not_ended(
    inside: Inside, daemon: FakeDaemon, desk: Desk
) -> None:
    """Somebody may be looking at it: start says so, status and stop tell of it."""
    assert inside("service", "install", "--no-start").returncode == 0
    done = inside("service", "start")
    assert done.returncode == Exit.PRECONDITION
    assert "started by hand or by another service" in done.stderr
    assert "gemctl stop && gemctl service start" in done.stderr
    assert not [call for call in desk.changes if call.startswith("start")]
    shown = inside("service", "status")
    assert shown.returncode == Exit.UNREACHABLE
    assert re.search(r"^socket .* answers, pid \d+, started by manual$", shown.stdout, re.MULTILINE)
    done = inside("service", "stop")
    assert "the service does not run\n" in done.stderr
    assert "another gemd answers" in done.stderr


def test_a_service_from_start_to_end(
    asking: Inside, gemctl: Gemctl, desk: Desk, user: Path, socket: Path
) -> None:
    """The real daemon, from its unit: it takes the place of one that gemctl started.

    Its command line, its variables and its words come through the unit as they were.
    """
    started = replace(gemctl, environ=asking.environ)("list")
    assert started.returncode == 0, started.stderr
    done = asking("service", "install", HF_HOME=f"{user}/hub")
    assert done.returncode == 0, done.stderr + "".join(desk.calls)
    assert "a gemd that gemctl had started" in done.stderr
    assert "gemd has ended\n" in done.stderr
    assert f"the service has started and answers at {socket}\n" in done.stderr
    process = psutil.Process(desk.running)
    assert process.cmdline()[1:] == ["-P", "-m", "gemd"]
    assert process.environ()["HF_HOME"] == f"{user}/hub"
    state = json.loads(asking("service", "status", "--json").stdout)
    assert state["says"].startswith("no model is warm; cpu ")
    assert state["daemon_started_by"] == "SERVICE"
    assert state["pid"] == state["daemon_pid"] == process.pid
    shown = asking("service", "status")
    assert shown.returncode == 0
    assert f"active (running), pid {process.pid}, starts at login\n" in shown.stdout
    assert asking("service", "start").stderr == "the service runs\n"
    done = asking("service", "restart")
    assert (done.returncode, done.stderr) == (0, "the service has started anew\n")
    assert desk.running not in {0, process.pid}
    done = asking("service", "stop")
    assert (done.returncode, done.stderr) == (0, "the service has ended\n")
    assert asking("service", "status").returncode == Exit.UNREACHABLE
    assert desk.running == 0
    assert asking("service", "uninstall").returncode == 0
    assert not unit(user).exists()


def test_a_service_that_fails_says_why(inside: Inside, desk: Desk, user: Path) -> None:
    """In the daemon's own words."""
    inside("service", "install", "--no-start")
    settings = user / ".config" / "gemd" / "config.toml"
    settings.parent.mkdir()
    settings.write_text('idle_exit = "soon"\n', encoding="utf-8")
    done = inside("service", "start")
    assert done.returncode == Exit.PRECONDITION
    assert "`systemctl --user start gemd.service` ended with 1" in done.stderr
    assert f"why: {settings} sets idle_exit to 'soon'" in done.stderr
    assert "gemctl service logs" in done.stderr


def test_the_logs_are_the_journals(inside: Inside, desk: Desk) -> None:
    """Line by line; what fails says so."""
    journal = desk.folder / "bin" / "journalctl"
    journal.write_text('#!/bin/sh\necho "$@"\nprintf "a\\nb"\n', encoding="utf-8")
    journal.chmod(0o755)
    done = inside("service", "logs", "-n", "7")
    assert done.stdout == "--user --unit=gemd.service --lines=7 --output=cat\na\nb\n"
    journal.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    done = inside("service", "logs")
    assert (done.returncode, "`journalctl` ended with 3" in done.stderr) == (Exit.FAILURE, True)


def test_following_the_logs_ends_with_ctrl_c(gemctl: Gemctl, inside: Inside, desk: Desk) -> None:
    """And so does what follows them."""
    journal = desk.folder / "bin" / "journalctl"
    journal.write_text("#!/bin/sh\necho $$ $5\nexec sleep 1000\n", encoding="utf-8")
    journal.chmod(0o755)
    process = replace(gemctl, environ=inside.environ).start("service", "logs", "-f")
    assert process.stdout is not None
    pid, option = process.stdout.readline().split()
    assert option == "--follow"
    os.kill(process.pid, signal.SIGINT)
    try:
        assert process.wait(30) == Exit.INTERRUPTED
        wait(lambda: not psutil.pid_exists(int(pid)))
    finally:
        process.kill()
        process.communicate()


def test_installing_is_understood_by_the_real_systemd(inside: Inside, user: Path) -> None:
    """What lies there in the end, seal and all, is verified in silence."""
    assert inside("service", "install", "--no-start").returncode == 0
    try:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", str(unit(user))],
            env={"PATH": os.environ["PATH"], "HOME": str(user), "XDG_RUNTIME_DIR": str(user)},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not installed")
    assert (done.returncode, done.stderr) == (0, "")
