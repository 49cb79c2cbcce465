"""Which daemon a command starts: the service that is installed, or one of its own."""

from __future__ import annotations

import fcntl
import io
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.failures import Exit
from gemd.cli.output import Output
from gemd.cli.service import files, preferred
from gemd.cli.service.job import Job
from gemd.cli.service.preferred import service_socket, start_service
from gemd.cli.service.render import (
    LABEL,
    UNIT,
    read_agent,
    read_unit,
    render_agent,
    render_unit,
)
from gemd.cli.session import Session
from gemd.client import Client
from gemd.paths import data_dir
from tests.support.gemctl import Gemctl
from tests.support.service_home import ServiceHome, service_home
from tests.support.service_managers import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNIT_TEMPLATE = (data_dir("service") / UNIT).read_text(encoding="utf-8")
AGENT_TEMPLATE = (data_dir("service") / f"{LABEL}.plist").read_bytes()
linux = pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has launchd")


@pytest.fixture
def user(home: Path, gemctl: Gemctl) -> Iterator[ServiceHome]:
    """A user without a service."""
    with service_home(home, gemctl.environ) as made:
        yield made


@pytest.fixture
def installed(user: ServiceHome) -> ServiceHome:
    """One with a service that does not run."""
    done = user.gemctl("service", "install", "--no-start")
    assert done.returncode == 0, done.stderr
    return user


def session(user: ServiceHome, **environ: str) -> tuple[Session, io.StringIO]:
    """A command of that user, and what it says on standard error."""
    said = io.StringIO()
    variables = {**user.gemctl.environ, **environ}
    return Session(Output(io.StringIO(), said, {}), variables), said


def started_by(socket: Path) -> str:
    """Who started the daemon that answers."""
    with Client(socket) as client:
        return client.info().started_by


@linux
def test_a_command_starts_the_service_that_is_installed(
    installed: ServiceHome, socket: Path
) -> None:
    """Also after `gemctl stop` and `gemctl service stop`, and it says so."""
    for stopping in (("stop",), ("service", "stop")):
        done = installed.gemctl("list")
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("starting gemd's service (`gemctl service stop` ends it)\n")
        assert started_by(socket) == "SERVICE"
        again = installed.gemctl("list")
        assert "starting" not in again.stderr
        assert installed.gemctl(*stopping).returncode == 0
        assert installed.desk.running == 0


@linux
def test_without_a_service_nobody_is_asked(user: ServiceHome) -> None:
    """A question costs a process, and a machine without a manager has nobody to answer it."""
    command, said = session(user)
    assert not start_service(command)
    assert (user.desk.calls, said.getvalue()) == ([], "")


@linux
def test_a_unit_of_somebody_else_is_not_started(user: ServiceHome, socket: Path) -> None:
    """It has no seal: even one that looks like ours and has our socket."""
    user.unit.parent.mkdir(parents=True)
    job = Job((sys.executable, "-m", "gemd"), {"GEMD_SOCKET": str(socket)})
    user.unit.write_text(render_unit(UNIT_TEMPLATE, job), encoding="utf-8")
    command, said = session(user)
    assert not start_service(command)
    assert (user.desk.calls, said.getvalue()) == ([], "")


@linux
def test_another_socket_is_not_the_services(installed: ServiceHome, home: Path) -> None:
    """Named by a variable or on the command line: a command with it gets a daemon of its own."""
    calls = installed.desk.calls
    other, said = session(installed, GEMD_SOCKET=str(home / "other.sock"))
    assert not start_service(other)
    flagged, _ = session(installed)
    flagged.flags["socket"] = str(home / "other.sock")
    assert not start_service(flagged)
    assert (installed.desk.calls, said.getvalue()) == (calls, "")


@linux
@pytest.mark.parametrize(
    "script",
    [
        "echo 'Failed to connect to bus: No medium found' >&2; exit 1",
        "echo 'Running in chroot, ignoring command' >&2",
        "exec sleep 100",
        "echo ActiveState=inactive",
        "printf 'ActiveState=inactive\\nFragmentPath=/usr/lib/systemd/user/gemd.service\\n'",
        "printf 'ActiveState=inactive\\nFragmentPath=\\n'",
    ],
)
def test_a_manager_that_does_not_know_the_unit_is_left_alone(
    installed: ServiceHome, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None, as in a container; one that hangs; and one of another user, as after `sudo`."""
    monkeypatch.setattr(preferred, "ASKING_S", 0.3)
    installed.say_no(f'echo "$@" >> {installed.desk.folder}/asked\n{script}')
    command, said = session(installed)
    begin = time.monotonic()
    assert not start_service(command)
    assert time.monotonic() - begin < 30
    assert said.getvalue() == ""
    asked = (installed.desk.folder / "asked").read_text(encoding="utf-8").splitlines()
    assert [line.split()[1] for line in asked] == ["show"]


@linux
def test_without_systemctl_nothing_is_said(installed: ServiceHome) -> None:
    """As in a container that has the home of its host."""
    command, said = session(installed, PATH=str(installed.path))
    assert not start_service(command)
    assert said.getvalue() == ""


@linux
def test_where_the_service_fails_the_command_still_gets_a_daemon(
    installed: ServiceHome, socket: Path
) -> None:
    """It is told why, and where to look."""
    installed.edit('"-m" "gemd"', '"-c" "raise SystemExit(3)"')
    # In a process of its own, which leaves its daemon running when it ends.
    done = Gemctl(installed.gemctl.environ)("list")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[1:3] == [
        "`systemctl --user start gemd.service` ended with 1: Job for gemd.service failed.",
        "gemctl service logs",
    ]
    assert lines[3].startswith("starting gemd (it ends by itself when idle")
    assert started_by(socket) == "AUTOSTART"


@linux
def test_a_service_that_runs_elsewhere_is_told_of_and_not_waited_for(
    installed: ServiceHome, home: Path, socket: Path
) -> None:
    """A drop-in has given it another socket, which its file does not say."""
    elsewhere = home / "elsewhere.sock"
    text = installed.unit.read_text(encoding="utf-8")
    installed.edit(str(socket), str(elsewhere))
    assert installed.gemctl("service", "start", GEMD_SOCKET=str(elsewhere)).returncode == 0
    installed.unit.write_text(text, encoding="utf-8")
    before = installed.desk.changes
    command, said = session(installed)
    assert not start_service(command, sleep=lambda _: pytest.fail("it waits"))
    assert said.getvalue() == f"gemd's service runs, but nobody answers at {socket}\n"
    assert installed.desk.changes == before


@linux
def test_one_that_starts_elsewhere_is_given_up_soon(
    installed: ServiceHome, home: Path, socket: Path
) -> None:
    """Its manager says that it serves, so that nobody waits for half a minute."""
    drop_in = str(home / "elsewhere.sock")
    installed.desk.remember(drop_in={"GEMD_SOCKET": drop_in})
    waits: list[float] = []
    now = iter(range(1000))
    command, said = session(installed)
    assert not start_service(command, clock=lambda: float(next(now)) / 10, sleep=waits.append)
    assert f"the service has started, but nobody answers at {socket}\n" in said.getvalue()
    assert len(waits) < 20


@linux
def test_forbidden_is_forbidden(installed: ServiceHome) -> None:
    """GEMD_AUTOSTART=0 speaks of every daemon."""
    before = installed.desk.calls
    done = installed.gemctl("list", GEMD_AUTOSTART="0")
    assert done.returncode == Exit.UNREACHABLE
    assert installed.desk.calls == before


@linux
def test_a_daemon_that_is_ending_is_waited_for(installed: ServiceHome, socket: Path) -> None:
    """The service's own would fail where the lock is held, and be started again and again."""
    events: list[str] = []
    with socket.with_name(f"{socket.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def sleep(_: float) -> None:
            events.append("waited")
            assert not [call for call in installed.desk.changes if call.startswith("start")]
            fcntl.flock(lock, fcntl.LOCK_UN)

        command, said = session(installed)
        assert start_service(command, sleep=sleep), said.getvalue()
    assert events == ["waited"]
    assert started_by(socket) == "SERVICE"


@linux
def test_a_setting_decides_where_the_service_listens(user: ServiceHome, home: Path) -> None:
    """In the order of the daemon: its command line, its variables, its settings file."""
    config = user.path / ".config" / "gemd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'socket = "{home}/of-the-file"\n', encoding="utf-8")
    file = home / UNIT
    command, _ = session(user)
    for job, name in [
        (Job(("/python",)), "of-the-file"),
        (Job(("/python",), {"GEMD_CONFIG": "/nowhere", "GEMD_SOCKET": f"{home}/v"}), "v"),
        (Job(("/python", "--socket", f"{home}/f"), {"GEMD_SOCKET": f"{home}/v"}), "f"),
    ]:
        file.write_text(files.seal(render_unit(UNIT_TEMPLATE, job), folders=0), encoding="utf-8")
        assert service_socket(command, file) == home / name
    config.write_text('socket = "relative"\n', encoding="utf-8")
    sealed = files.seal(render_unit(UNIT_TEMPLATE, Job(("/python",))), folders=0)
    file.write_text(sealed, encoding="utf-8")
    assert service_socket(command, file) is None


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
names = st.text(st.characters(codec="ascii", categories=["Lu"]), min_size=1)


@given(st.lists(words, min_size=1), st.dictionaries(names, words))
def test_a_unit_is_read_back_as_it_was_written(command: list[str], environ: dict[str, str]) -> None:
    """Whatever the words hold, and sealed or not; a shell in between is part of the command."""
    unit = render_unit(UNIT_TEMPLATE, Job(tuple(command), environ))
    read = read_unit(unit)
    assert read is not None
    assert (read.command[-len(command) :], read.environ) == (tuple(command), environ)


printable = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), min_size=1)


@given(st.lists(printable, min_size=1), st.dictionaries(names, printable))
def test_an_agent_is_read_back_as_it_was_written(
    command: list[str], environ: dict[str, str]
) -> None:
    """The same of a property list."""
    job = Job(tuple(command), environ)
    assert read_agent(render_agent(AGENT_TEMPLATE, job, log_file="/l")) == job


@pytest.mark.parametrize(
    "text",
    ["", "<plist>", "<plist><array/></plist>", "<plist><dict/></plist>", "<plist><date>x</date>"],
)
def test_a_damaged_agent_has_no_job(text: str) -> None:
    """And a unit without a command has none."""
    assert read_agent(text) is None
    assert read_agent(render_agent(AGENT_TEMPLATE, Job(()), log_file="/l")) is None
    assert read_unit('[Service]\nEnvironment="A=1"\nExecStart=/bin/true\n') is None


@pytest.fixture
def mac(
    home: Path, gemctl: Gemctl, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Desk, Session, io.StringIO]]:
    """A Mac with an agent that does not run; a command there, and what it says."""
    monkeypatch.setattr("sys.platform", "darwin")
    user = home / "user"
    (user / "Library" / "Logs" / "gemd").mkdir(parents=True)
    agent = user / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    agent.parent.mkdir()
    desk = Desk(home / "desk")
    desk.install("launchctl")
    environ = {**gemctl.environ, "HOME": str(user), "PATH": desk.path}
    names = ("GEMD_SOCKET", "PYTHONPATH")
    job = Job(
        (sys.executable, "-P", "-m", "gemd", "--agent"), {name: environ[name] for name in names}
    )
    log_file = str(user / "Library" / "Logs" / "gemd" / "gemd.log")
    sealed = files.seal(render_agent(AGENT_TEMPLATE, job, log_file=log_file), folders=0)
    agent.write_text(sealed, encoding="utf-8")
    said = io.StringIO()
    yield desk, Session(Output(io.StringIO(), said, {}), environ), said
    desk.kill()


def test_an_agent_is_started_and_waited_for(
    mac: tuple[Desk, Session, io.StringIO], socket: Path
) -> None:
    """Its manager does not know whether it serves; the socket does."""
    desk, command, said = mac
    assert start_service(command), said.getvalue()
    assert [call.split()[0] for call in desk.changes] == ["bootstrap"]
    assert started_by(socket) == "SERVICE"


def test_an_agent_that_ends_is_not_waited_for(
    mac: tuple[Desk, Session, io.StringIO], home: Path
) -> None:
    """As one with a wrong setting does, with exit code 0."""
    _, command, said = mac
    script = home / "desk" / "bin" / "launchctl"
    script.write_text(
        '#!/bin/sh\n[ "$1" != print ] || printf "state = not running\\nlast exit code = 0\\n"\n',
        encoding="utf-8",
    )
    waits: list[float] = []
    now = iter(range(1000))
    assert not start_service(command, clock=lambda: float(next(now)), sleep=waits.append)
    assert "the service was started, but has ended: not running\n" in said.getvalue()
    assert len(waits) <= 3
