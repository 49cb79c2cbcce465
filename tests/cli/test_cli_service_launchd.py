"""`gemctl service` on a Mac, with a stand-in for `launchctl`: no Mac is here."""

from __future__ import annotations

import json
import os
import plistlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import mock

import psutil
import pytest

from gemd.cli.failures import CommandError, Exit
from gemd.cli.service.launchd import Launchd
from tests.support.gemctl import Inside
from tests.support.service_desks import at_hand
from tests.support.service_managers import Desk

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl

LABEL = "io.gemd.daemon"
TARGET = f"gui/{os.getuid()}/{LABEL}"


@dataclass(frozen=True)
class OnAMac:
    """`gemctl` that takes this machine for a Mac."""

    inside: Inside

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        with mock.patch("sys.platform", "darwin"):
            return self.inside(*arguments, **environ)


@pytest.fixture
def user(home: Path) -> Path:
    """The home of a Mac."""
    made = home / "a b&c"
    made.mkdir(mode=0o700)
    (made / "Library" / "Logs").mkdir(parents=True)
    return made


@pytest.fixture
def desk(home: Path) -> Iterator[Desk]:
    """The stand-in of this home."""
    made = Desk(home / "desk")
    made.install("launchctl")
    with at_hand(made):
        yield made
    made.kill()


@pytest.fixture
def gemctl_on_mac(gemctl: Gemctl, desk: Desk, user: Path) -> OnAMac:
    """`gemctl` of that home."""
    return OnAMac(Inside({**gemctl.environ, "HOME": str(user), "PATH": desk.path}))


def tree(folder: Path) -> list[str]:
    """All that is in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def agent(user: Path) -> Path:
    """Where it belongs."""
    return user / "Library" / "LaunchAgents" / f"{LABEL}.plist"


def test_an_agent_is_installed_and_uninstalled(
    gemctl_on_mac: OnAMac, desk: Desk, user: Path
) -> None:
    """Its folders too; the second installation changes nothing."""
    before = tree(user)
    done = gemctl_on_mac("service", "install", "--no-start", HF_HOME="/hub")
    assert done.returncode == 0, done.stderr
    assert f"wrote {agent(user)}\n" in done.stderr
    written = plistlib.loads(agent(user).read_bytes())
    assert written["ProgramArguments"][1:] == ["-P", "-m", "gemd", "--agent"]
    assert written["EnvironmentVariables"]["HF_HOME"] == "/hub"
    assert written["StandardErrorPath"] == str(user / "Library" / "Logs" / "gemd" / "gemd.log")
    assert desk.changes == []
    again = gemctl_on_mac("service", "install", "--no-start", HF_HOME="/hub")
    assert f"{agent(user)} is up to date\n" in again.stderr
    done = gemctl_on_mac("service", "uninstall")
    assert done.returncode == 0, done.stderr
    assert tree(user) == before


def test_an_agent_from_start_to_end(
    gemctl_on_mac: OnAMac, desk: Desk, user: Path, socket: Path
) -> None:
    """The real daemon, from its property list; a new list takes the place of the old one."""
    done = gemctl_on_mac("service", "install")
    assert done.returncode == 0, done.stderr
    assert f"answers at {socket}\n" in done.stderr
    first = desk.running
    state = json.loads(gemctl_on_mac("service", "status", "--json").stdout)
    assert (state["kind"], state["state"]) == ("launchd agent", "RUNNING")
    assert state["detail"] == "running"
    assert (state["daemon_pid"], state["daemon_started_by"]) == (first, "SERVICE")
    done = gemctl_on_mac("service", "install", GEMD_THREADS="1")
    assert "ended the daemon that was started by the old file\n" in done.stderr
    second = desk.running
    assert second not in {0, first}
    assert psutil.Process(second).environ()["GEMD_THREADS"] == "1"
    assert gemctl_on_mac("service", "stop").stderr == "the service has ended\n"
    assert desk.running == 0
    assert gemctl_on_mac("service", "status").returncode == Exit.UNREACHABLE
    assert gemctl_on_mac("service", "start").returncode == 0
    third = desk.running
    assert gemctl_on_mac("service", "restart").returncode == 0
    assert desk.running not in {0, third}
    assert gemctl_on_mac("service", "uninstall").returncode == 0
    assert desk.running == 0
    assert [call.split()[0] for call in desk.changes] == [
        "bootstrap",
        "bootout",
        "bootstrap",
        "kill",
        "kickstart",
        "kill",
        "kickstart",
        "bootout",
    ]
    assert not agent(user).exists()


def test_a_mac_without_a_session_says_so(gemctl_on_mac: OnAMac, desk: Desk, user: Path) -> None:
    """As over ssh; nothing is written."""
    desk.remember(headless=125)
    before = tree(user)
    done = gemctl_on_mac("service", "install")
    assert done.returncode == Exit.PRECONDITION
    assert "log in on the Mac itself" in done.stderr
    assert tree(user) == before


def test_the_logs_are_the_daemons_file(gemctl_on_mac: OnAMac, user: Path) -> None:
    """Its last lines."""
    log = user / "Library" / "Logs" / "gemd" / "gemd.log"
    log.parent.mkdir()
    log.write_text("a\nb\nc\n", encoding="utf-8")
    assert gemctl_on_mac("service", "logs", "-n", "2").stdout == "b\nc\n"


def test_a_daemon_by_hand_keeps_its_socket(
    gemctl_on_mac: OnAMac, daemon: FakeDaemon, desk: Desk
) -> None:
    """The agent would be started again every ten seconds."""
    done = gemctl_on_mac("service", "install")
    assert done.returncode == Exit.PRECONDITION
    assert "two cannot have one socket" in done.stderr
    assert desk.changes == []


def test_what_launchd_refuses_is_told(desk: Desk, user: Path) -> None:
    """With its code; and an end that does not come is waited for only so long."""
    waits: list[float] = []
    manager = Launchd(
        {"PATH": desk.path, "HOME": str(user)},
        user,
        log_file=user / "log",
        uid=os.getuid(),
        sleep=waits.append,
    )
    desk.remember(loaded="/somewhere")
    script = desk.folder / "bin" / "launchctl"
    script.write_text(
        '#!/bin/sh\n[ "$1" = print ] && printf "state = running\\npid = 7\\n" && exit 0\n'
        '[ "$1" = kill ] && exit 0\necho "5: Input/output error" >&2\nexit 5\n',
        encoding="utf-8",
    )
    with pytest.raises(CommandError) as caught:
        manager.start()
    assert caught.value.message == f"`launchctl kickstart {TARGET}` ended with 5"
    assert caught.value.why == "5: Input/output error"
    with pytest.raises(CommandError, match="still runs after 35 s"):
        manager.stop()
    assert 34 < sum(waits) < 37
