"""What `gemctl service status` says, whatever the manager and the daemon say."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.cli.failures import CommandError, Exit
from gemd.cli.service.launchd import Launchd
from gemd.cli.service.manager import Phase
from tests.support.daemon_says import abort
from tests.support.service_home import ServiceHome, service_home
from tests.support.service_managers import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl

linux = pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has launchd")


@pytest.fixture
def installed(home: Path, gemctl: Gemctl) -> Iterator[ServiceHome]:
    """A user with a service that does not run."""
    with service_home(home, gemctl.environ) as made:
        assert made.gemctl("service", "install", "--no-start").returncode == 0
        yield made


def document(user: ServiceHome) -> dict[str, Any]:
    """The status as a program reads it."""
    return dict(json.loads(user.gemctl("service", "status", "--json").stdout))


@linux
@pytest.mark.parametrize(
    "said,phase,active",
    [
        ("active", "RUNNING", True),
        ("reloading", "RUNNING", True),
        ("activating", "STARTING", True),
        ("deactivating", "STOPPING", False),
        ("inactive", "STOPPED", False),
        ("failed", "FAILED", False),
        ("maintenance", "UNKNOWN", False),
    ],
)
def test_a_state_is_one_of_a_few_words(
    installed: ServiceHome, said: str, phase: str, *, active: bool
) -> None:
    """Whatever the manager calls it; its own words stand beside."""
    installed.desk.remember(state=said)
    told = document(installed)
    assert (told["state"], told["active"], told["error"]) == (phase, active, "")
    assert told["detail"].startswith(f"{said} (")


@linux
def test_a_manager_that_cannot_be_asked_is_an_error_and_no_state(installed: ServiceHome) -> None:
    """The document keeps its shape."""
    before = document(installed)
    installed.say_no("echo 'Failed to connect to bus: No medium found' >&2; exit 1")
    told = document(installed)
    assert told.keys() == before.keys()
    assert (told["state"], told["detail"]) == ("UNKNOWN", "")
    assert told["error"] == "Failed to connect to bus: No medium found"
    shown = installed.gemctl("service", "status")
    assert shown.returncode == Exit.UNREACHABLE
    assert "\nstate              unknown: Failed to connect to bus: No medium" in shown.stdout


@linux
def test_a_daemon_that_does_not_say_who_it_is_hides_nothing(
    installed: ServiceHome, daemon: FakeDaemon, socket: Path
) -> None:
    """As one that hangs until its watchdog ends it."""

    def fail(context: grpc.ServicerContext) -> None:
        abort(context, grpc.StatusCode.INTERNAL, "UNEXPECTED", "it hangs")

    daemon.script.failures = [fail, fail]  # type: ignore[list-item] # abort never returns
    told = document(installed)
    assert (told["state"], told["answers"], told["daemon_error"]) == ("STOPPED", False, "it hangs")
    shown = installed.gemctl("service", "status")
    assert shown.returncode == Exit.UNREACHABLE
    assert shown.stdout.endswith(f"socket             {socket} does not answer: it hangs\n")


@linux
def test_a_service_that_is_stopping_is_waited_for(installed: ServiceHome) -> None:
    """It still holds the socket: that it does not run would not be true."""
    installed.desk.remember(state="deactivating")
    done = installed.gemctl("service", "stop")
    assert (done.returncode, done.stderr) == (0, "the service has ended\n")
    assert installed.desk.changes[-1] == "stop gemd.service"


@linux
def test_a_file_that_the_manager_has_not_read_is_read(installed: ServiceHome) -> None:
    """The installation that wrote it was interrupted; the next one has nothing to write."""
    before = len(installed.desk.changes)
    installed.desk.remember(stale="yes")
    done = installed.gemctl("service", "install", "--no-start")
    assert "is up to date" in done.stderr
    assert installed.desk.changes[before:] == ["daemon-reload"]


@linux
def test_a_program_that_cannot_be_run_is_no_defect_of_ours(installed: ServiceHome) -> None:
    """As a script whose interpreter is gone."""
    script = installed.desk.folder / "bin" / "systemctl"
    script.write_text("#!/nowhere/python\n", encoding="utf-8")
    assert document(installed)["error"] == "`systemctl` cannot be run"
    script.with_name("journalctl").write_text("#!/nowhere/python\n", encoding="utf-8")
    script.with_name("journalctl").chmod(0o755)
    done = installed.gemctl("service", "logs")
    assert "error: `journalctl` cannot be run\n  why: No such file" in done.stderr


@pytest.fixture
def agent(home: Path) -> tuple[Desk, Launchd]:
    """A stand-in for `launchctl` that has an agent loaded, and what talks to it."""
    desk = Desk(home / "desk")
    desk.install("launchctl")
    desk.remember(loaded="/somewhere")
    environ = {"PATH": desk.path, "HOME": str(home)}
    return desk, Launchd(environ, home, log_file=home / "Library" / "log", uid=7)


def says(desk: Desk, *lines: str) -> None:
    """Let `launchctl print` say this."""
    body = "".join(f"\\t{line}\\n" for line in lines)
    script = desk.folder / "bin" / "launchctl"
    script.write_text(f"#!/bin/sh\nprintf 'gui/7/x = {{\\n{body}}}\\n'\n", encoding="utf-8")


@pytest.mark.parametrize(
    "lines,phase,detail,pid",
    [
        (("state = running", "pid = 7"), Phase.RUNNING, "running", 7),
        (("state = spawn scheduled", "last exit code = 1"), Phase.STARTING, "spawn scheduled", 0),
        (("state = not running", "last exit code = 0"), Phase.STOPPED, "not running", 0),
        (("state = waiting", "last exit code = (never exited)"), Phase.STOPPED, "waiting", 0),
        (("state = not running", "last exit code = 78: EX_CONFIG"), Phase.FAILED, "not running", 0),
        (("pid = many",), Phase.STOPPED, "loaded", 0),
    ],
)  # fmt: skip
def test_the_state_of_an_agent_is_its_own(
    agent: tuple[Desk, Launchd], lines: tuple[str, ...], phase: Phase, detail: str, pid: int
) -> None:
    """Not that of its coalition, which launchd prints in the same words further down."""
    desk, manager = agent
    coalition = ("resource coalition = {", "\\tstate = active", "}") if len(lines) > 1 else ()
    says(desk, *lines, *coalition)
    state = manager.state()
    assert (state.phase, state.detail, state.pid) == (phase, detail, pid)


def test_an_agent_that_is_about_to_start_again_is_stopped(agent: tuple[Desk, Launchd]) -> None:
    """There is no process that could get a signal; unloading keeps it from coming back."""
    desk, manager = agent
    script = desk.folder / "bin" / "launchctl"
    script.write_text(
        f'#!/bin/sh\necho "$1" >> {desk.folder}/asked\necho "state = spawn scheduled"\n',
        encoding="utf-8",
    )
    manager.stop()
    asked = (desk.folder / "asked").read_text(encoding="utf-8").split()
    assert [each for each in asked if each != "print"] == ["bootout"]


def test_a_folder_for_the_log_that_cannot_be_made_is_named(
    agent: tuple[Desk, Launchd], home: Path
) -> None:
    """With what stands in its way."""
    (home / "Library").touch()
    desk, _ = agent
    manager = Launchd(
        {"PATH": desk.path}, home, log_file=home / "Library" / "gemd" / "gemd.log", uid=7
    )
    with pytest.raises(CommandError, match="cannot be made, where the log belongs") as caught:
        list(manager.adopt(changed=False))
    assert caught.value.advice == (f"ls -ld {home / 'Library'}",)
