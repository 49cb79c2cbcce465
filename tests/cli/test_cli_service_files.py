"""The unit and the agent as files: what they say, how they are written, whose they are."""

from __future__ import annotations

import configparser
import os
import plistlib
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd import daemon
from gemd.cli.failures import CommandError
from gemd.cli.service import files
from gemd.cli.service.files import Author, Found, look, remove, write
from gemd.cli.service.job import Job, make_job
from gemd.cli.service.render import LABEL, UNIT, quoted, render_agent, render_unit
from gemd.doctor.service import _systemd
from gemd.paths import data_dir
from tests.support.service_managers import systemd_words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UNIT_TEMPLATE = (data_dir("service") / UNIT).read_text(encoding="utf-8")
AGENT_TEMPLATE = (data_dir("service") / f"{LABEL}.plist").read_bytes()
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def job(*command: str, **environ: str) -> Job:
    """A job of that command."""
    return Job(command or (sys.executable, "-P", "-m", "gemd"), environ)


def verify(unit: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What systemd says of it; all is well only if it says nothing."""
    file = folder / UNIT
    file.write_text(unit, encoding="utf-8")
    return subprocess.run(
        ["systemd-analyze", "verify", "--user", str(file)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_systemd
@pytest.mark.parametrize("name", ["plain", "a b", "50%h", "US$HOME", "a\\t'b\"c", "ü=%%$$"])
def test_systemd_has_nothing_to_say_of_the_unit(name: str, tmp_path: Path) -> None:
    """Wherever the interpreter is; and if it is gone, that is what it says."""
    folder = tmp_path / name
    folder.mkdir()
    python = folder / "python"
    python.symlink_to(sys.executable)
    unit = render_unit(UNIT_TEMPLATE, job(str(python), "-m", "gemd", HF_HOME=str(folder)))

    done = verify(unit, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    if not set(name) & set("\"'\\"):
        python.unlink()
        assert str(python) in verify(unit, tmp_path).stderr


@needs_systemd
def test_systemd_would_say_if_a_key_were_wrong(tmp_path: Path) -> None:
    """With exit code 0, so that only its silence counts."""
    unit = render_unit(UNIT_TEMPLATE, job()).replace("KillMode=", "KilMode=")
    assert "KilMode" in verify(unit, tmp_path).stderr


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_systemd_reads_a_word_as_it_was(word: str) -> None:
    """Escapes and specifiers are taken away again, and nothing else."""
    assert systemd_words(quoted(word)) == [word]


def test_control_characters_are_escaped() -> None:
    """A line break would begin a directive of its own."""
    assert quoted("a\nExecStart=b\t\x7f\x01") == '"a\\nExecStart=b\\t\\x7f\\x01"'


def test_what_is_no_text_is_refused() -> None:
    """By both; launchd refuses control characters too."""
    for path in ("/home/\udcff", "/home/a\x01"):
        with pytest.raises(CommandError, match="cannot be started with"):
            render_agent(AGENT_TEMPLATE, job(path), log_file="/l")
    with pytest.raises(CommandError) as caught:
        render_unit(UNIT_TEMPLATE, job("/home/\udcff"))
    assert "UTF-8" in caught.value.why
    assert "\\udcff" in caught.value.message


def section(unit: str) -> configparser.SectionProxy:
    """Its [Service]; of keys that come again, the last one."""
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read_string(unit)
    return parser["Service"]


def test_the_unit_is_what_the_daemon_needs() -> None:
    """Its limits are longer than the daemon's own, and nothing hides or hinders a GPU."""
    keys = section(render_unit(UNIT_TEMPLATE, job()))
    wanted = {
        "Type": "notify",
        "NotifyAccess": "main",
        "KillMode": "mixed",
        "OOMPolicy": "continue",
        "Restart": "on-failure",
        "RestartPreventExitStatus": str(daemon.EX_CONFIG),
        "NoNewPrivileges": "yes",
        "UMask": "0077",
    }
    assert {key: keys[key] for key in wanted} == wanted
    assert int(keys["TimeoutStopSec"]) > daemon.LONGEST_END_S
    assert int(keys["WatchdogSec"]) >= 10
    # Devices that vanish, code that cannot be compiled, and a directory that systemd removes
    # under a daemon that is not its own.
    forbidden = {"PrivateDevices", "MemoryDenyWriteExecute", "DeviceAllow", "RuntimeDirectory"}
    assert not forbidden & set(keys)
    assert keys["ExecStart"] == f'"{sys.executable}" "-P" "-m" "gemd"'
    assert "@" not in "".join(keys.values())


def test_nothing_of_a_command_is_a_variable() -> None:
    """Where it has a $, systemd is told so; older versions need not know."""
    assert section(render_unit(UNIT_TEMPLATE, job("/a/$b")))["ExecStart"] == ':"/a/$b"'


def test_the_doctor_reads_the_unit(tmp_path: Path) -> None:
    """And finds the program that it starts."""
    folder = tmp_path / ".config" / "systemd" / "user"
    folder.mkdir(parents=True)
    (folder / UNIT).write_text(files.seal(render_unit(UNIT_TEMPLATE, job()), folders=0))
    around = mock.Mock(environ={}, home=tmp_path, root=tmp_path)
    assert _systemd(around).program == sys.executable


@pytest.mark.parametrize("name", ["plain", "a b%h$x\"y'z&<ü>"])
def test_the_agent_comes_back_as_it_was(name: str) -> None:
    """Sealed too: every value is there, of its type."""
    python = f"/Users/{name}/python"
    content = render_agent(
        AGENT_TEMPLATE, job(python, "-m", "gemd", HF_HOME=f"/{name}"), log_file=f"/{name}/log"
    )
    assert plistlib.loads(files.seal(content, folders=2).encode()) == {
        "Label": LABEL,
        "ProgramArguments": [python, "-m", "gemd"],
        "EnvironmentVariables": {"HF_HOME": f"/{name}"},
        "WorkingDirectory": "/",
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ProcessType": "Interactive",
        "ExitTimeOut": 30,
        "Umask": 0o077,
        "StandardOutPath": f"/{name}/log",
        "StandardErrorPath": f"/{name}/log",
    }
    assert daemon.LONGEST_END_S < 30


def test_a_job_takes_what_matters_and_no_secret() -> None:
    """Settings, and where files are; what was left behind is named."""
    shell = {
        "GEMD_THREADS": "2",
        "GEMD_CONFIG": "/c.toml",
        "GEMD_AUTOSTART": "0",
        "GEMD_OFFLINE": "",
        "HF_HOME": "/hub",
        "HF_TOKEN": "secret",
        "XDG_CACHE_HOME": "/cache",
        "XDG_STATE_HOME": "relative",
        "XDG_RUNTIME_DIR": "/run/user/1",
        "https_proxy": "http://u:password@proxy",
        "HOME": "/home/u",
    }
    settings = ("GEMD_THREADS", "GEMD_OFFLINE")
    made = make_job(shell, settings=settings, flags={"socket": "/s"}, platform="linux")
    taken: Mapping[str, str] = {
        key: value for key, value in made.environ.items() if key != "PYTHONPATH"
    }
    assert taken == {
        "GEMD_CONFIG": "/c.toml",
        "GEMD_THREADS": "2",
        "HF_HOME": "/hub",
        "XDG_CACHE_HOME": "/cache",
    }
    assert made.left_out == ("HF_TOKEN", "https_proxy")
    assert made.command == (sys.executable, "-P", "-m", "gemd", "--socket", "/s")
    mac = make_job(shell, settings=settings, flags={}, platform="darwin")
    assert mac.command[-1] == "--agent"
    assert mac.environ["XDG_RUNTIME_DIR"] == "/run/user/1"


def test_the_interpreter_finds_gemd_without_the_shell(tmp_path: Path) -> None:
    """From a directory of no meaning and with no variable but the job's."""
    made = make_job({}, settings=(), flags={}, platform="linux")
    done = subprocess.run(
        [*made.command, "--version"],
        env=dict(made.environ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("gemd ")


def tree(folder: Path) -> list[str]:
    """All that is in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_written_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """With the folders that it needed, and only those: what was there before stays."""
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "b" / "c" / UNIT
    assert look(path) == Found(Author.NOBODY)
    write(path, "one\n", look(path))
    assert look(path) == Found(Author.GEMCTL, "one\n", 2)
    assert path.stat().st_mode & 0o777 == 0o644
    write(path, "two\n", look(path))
    found = look(path)
    assert found == Found(Author.GEMCTL, "two\n", 2)
    assert tree(tmp_path) == ["a", "a/b", "a/b/c", f"a/b/c/{UNIT}"]
    remove(path, found)
    assert tree(tmp_path) == ["a"]


def test_a_folder_that_others_use_stays(tmp_path: Path) -> None:
    """Something was put there since."""
    path = tmp_path / "b" / "c" / UNIT
    write(path, "one\n", look(path))
    (tmp_path / "b" / "other").touch()
    remove(path, look(path))
    assert tree(tmp_path) == ["b", "b/other"]


@pytest.mark.parametrize("kind", ["unit", "agent"])
def test_whose_a_file_is(kind: str, tmp_path: Path) -> None:
    """A changed one is told from one that gemctl wrote, and from one that it did not."""
    agent = render_agent(AGENT_TEMPLATE, job(), log_file="/l")
    body = agent if kind == "agent" else render_unit(UNIT_TEMPLATE, job())
    path = tmp_path / "file"
    write(path, body, look(path))
    assert look(path).author is Author.GEMCTL
    with path.open("a", encoding="utf-8") as file:
        file.write("\n")
    assert look(path).author is Author.EDITED
    path.write_text(body, encoding="utf-8")
    assert look(path).author is Author.OTHER
    path.unlink()
    path.symlink_to("/dev/null")
    assert look(path).author is Author.OTHER
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert look(path).author is Author.OTHER


@pytest.mark.parametrize("step", ["os.fsync", "os.fchmod", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_ever_half_written(step: str, error: BaseException, tmp_path: Path) -> None:
    """Whatever fails: the old file is whole, or there is none, and nothing lies beside it."""
    path = tmp_path / "folder" / UNIT
    stopped = CommandError if isinstance(error, OSError) else KeyboardInterrupt
    with mock.patch(step, side_effect=error), pytest.raises(stopped):
        write(path, "new\n", look(path))
    assert tree(tmp_path) == []
    write(path, "old\n", look(path))
    with mock.patch(step, side_effect=error), pytest.raises(stopped):
        write(path, "new\n", look(path))
    assert look(path) == replace(look(path), author=Author.GEMCTL, body="old\n")
    assert tree(tmp_path) == ["folder", f"folder/{UNIT}"]


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path) -> None:
    """As on some network file systems: the file is whole and in its place."""
    sync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        sync(descriptor)

    path = tmp_path / UNIT
    with mock.patch("os.fsync", side_effect=only_files):
        write(path, "one\n", look(path))
    assert look(path) == Found(Author.GEMCTL, "one\n", 0)


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    """And where to look."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / UNIT
    with pytest.raises(CommandError) as caught:
        write(path, "x", Found(Author.NOBODY))
    assert caught.value.why
    assert caught.value.advice == (f"ls -ld {tmp_path / 'file'}",)
