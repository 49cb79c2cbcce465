from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import ParseDict

import gemd
from gemd.cli.failures import Exit
from gemd.client import Client
from gemd.doctor.checks import CHECKS
from gemd.v1 import daemon_service_pb2 as service
from tests.support import daemon_process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

OFFLINE = {"GEMD_OFFLINE": "true"}


@pytest.fixture(autouse=True)
def _private(home: Path) -> None:
    """The socket's directory is the home itself, and has to be private."""
    home.chmod(0o700)


def rows(done: Any) -> dict[str, Any]:
    """The rows of a JSON document, by check."""
    return {each["check"]: each for each in json.loads(done.stdout)["diagnoses"]}


def test_a_new_home_needs_no_daemon(gemctl: Gemctl, home: Path) -> None:
    """Every check has its row in 80 columns, nothing failed, and nothing was made or started."""
    done = gemctl("doctor", **OFFLINE, GEMD_AUTOSTART="1")
    assert done.returncode == Exit.OK, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["CHECK", "RESULT", "DETAIL"]
    names = [line.split()[0] for line in lines[1:] if not line.startswith(" ")]
    assert names == [check.name for check in CHECKS]
    assert all(len(line) <= 80 for line in lines if "/" not in line)
    assert done.stderr.startswith(f"{len(CHECKS)} checks: ")
    assert done.stderr.endswith(" skipped\n")
    assert done.stderr.count("\n") == 1
    assert list(home.iterdir()) == []


def test_what_failed_has_its_fix_below_and_ends_with_six(inside: Inside, home: Path) -> None:
    """Literally, one command a line."""
    (home / ".local/state").mkdir(parents=True)
    state = home / ".local/state/gemd"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    done = inside("doctor", "directories", "limits")
    assert done.returncode == Exit.PRECONDITION
    assert "    try: chmod 700 " + str(state) in done.stdout.splitlines()
    assert "directories  failed   state" in done.stdout
    assert done.stderr.startswith("2 checks: ")
    state.chmod(0o700)
    assert inside("doctor", "directories").returncode == Exit.OK


def test_json_is_the_response_of_the_api(inside: Inside) -> None:
    """Field for field, so that a program reads both alike."""
    done = inside("doctor", "socket", "daemon", "--json", **OFFLINE)
    parsed = ParseDict(json.loads(done.stdout), service.DiagnoseResponse())
    assert [each.check for each in parsed.diagnoses] == ["socket", "daemon"]
    assert parsed.diagnoses[0].result == service.Diagnosis.RESULT_OK
    assert parsed.diagnoses[1].result == service.Diagnosis.RESULT_WARNING
    assert list(parsed.diagnoses[1].fixes) == ["gemd"]


def test_wrong_settings_are_a_row(inside: Inside, home: Path) -> None:
    """What needs them is skipped; no command line that names a file wrongly breaks it either."""
    file = home / ".config/gemd/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("log_levl = 'debug'", encoding="utf-8")
    done = inside("doctor", "--json", **OFFLINE)
    assert done.returncode == Exit.PRECONDITION
    found = rows(done)
    assert [name for name, row in found.items() if row["result"] == "RESULT_FAILED"] == ["settings"]
    assert "the nearest one is log_level" in found["settings"]["detail"]
    assert found["memory"]["result"] == "RESULT_SKIPPED"
    relative = rows(inside("doctor", "--json", "settings", "daemon", GEMD_CONFIG="here.toml"))
    assert relative["settings"]["fixes"] == ['export GEMD_CONFIG="$PWD/here.toml"']


def test_an_unknown_check_is_a_usage_error(inside: Inside) -> None:
    """With the nearest one."""
    done = inside("doctor", "gpu_driver")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert done.stderr.splitlines() == [
        "error: there is no check 'gpu_driver'",
        "  why: the nearest one is gpu-driver",
        "  try: gemctl doctor gpu-driver",
    ]


def test_colours_and_progress_are_for_terminals(inside: Inside, home: Path) -> None:
    """A failed row is red; what waits is said and taken away again."""
    (home / "gemd.sock").write_text("in the way", encoding="utf-8")
    code, seen = inside.on_terminal("doctor", "socket")
    assert code == Exit.PRECONDITION
    assert "\rmaking 1 check" in seen.replace("\x1b[K", "")
    assert "\x1b[31msocket  failed " in seen
    code, seen = inside.on_terminal("doctor", "socket", NO_COLOR="1")
    assert "\x1b[31m" not in seen


def test_what_a_running_daemon_reports_is_in_its_row(inside: Inside, daemon: FakeDaemon) -> None:
    """Its conditions as warnings with their advice, and its version if it is another one."""
    done = inside("doctor", "daemon", "--json")
    row = rows(done)["daemon"]
    assert done.returncode == Exit.OK
    assert row["result"] == "RESULT_WARNING"
    assert "the use of others cannot be told" in row["detail"]
    assert f"gemd {gemd.__version__}, pid {os.getpid()}, serving, up 1 h" in row["detail"]
    assert row["fixes"] == ["gemctl devices"]
    assert daemon.asked("GetStatus")


def test_a_model_on_a_gpu_is_not_taken_for_another_program(
    inside: Inside, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Where processes are not told by their number, its device comes from the daemon."""
    machine = tmp_path / "machine.toml"
    machine.write_text('[[gpu]]\nname = "Card"\ncapacity = "24GiB"\n')
    model = daemon.script.models["smollm2-135m"]
    model.pid = os.getpid()
    del model.memory[:]
    model.memory.add(device="devices/cpu", booked_bytes=5)
    model.memory.add(device="devices/gpu0", booked_bytes=7)
    row = rows(inside("doctor", "gpu-memory", "--json", GEMD_DEVICES_FILE=str(machine)))
    assert ", models " in row["gpu-memory"]["detail"]


def test_clients_of_threads_ask_the_daemon(daemon: FakeDaemon, socket: Path) -> None:
    """The names and the thoroughness go along; an unknown result is no error."""
    daemon.script.diagnoses = [
        service.Diagnosis(check="cpu", result=service.Diagnosis.RESULT_FAILED, fixes=["a", "b"]),
        service.Diagnosis(check="new", detail="d"),
    ]
    with Client(socket) as client:
        found = client.diagnose(["cpu"], thorough=True)
    assert daemon.asked("Diagnose") == [service.DiagnoseRequest(checks=["cpu"], thorough=True)]
    assert [(each.check, each.result, each.fixes) for each in found] == [
        ("cpu", "FAILED", ("a", "b")),
        ("new", "UNSPECIFIED", ()),
    ]


def test_a_real_daemon_that_runs_stops_and_dies(inside: Inside) -> None:
    """It is described while it serves, failed while it hangs, and stale when it was killed."""
    with daemon_process.home() as user, daemon_process.serving(user, **OFFLINE) as process:
        environ = user.environ(**OFFLINE, GEMD_SOCKET=str(user.socket), GEMD_AUTOSTART="1")

        def look() -> dict[str, Any]:
            return rows(inside("doctor", "daemon", "socket", "--json", **environ))

        found = look()
        assert {row["result"] for row in found.values()} == {"RESULT_OK"}, found
        assert f"pid {process.pid}, serving" in found["daemon"]["detail"]
        assert f"served by process {process.pid}" in found["socket"]["detail"]
        with Client(user.socket) as client:
            told = {each.check: each for each in client.diagnose(["socket", "daemon"])}
        assert {each.result for each in told.values()} == {"OK"}
        process.send_signal(signal.SIGSTOP)
        try:
            found = look()
        finally:
            process.send_signal(signal.SIGCONT)
        assert found["daemon"]["result"] == "RESULT_FAILED"
        assert f"kill -9 {process.pid}" in found["daemon"]["fixes"]
        process.kill()
        process.wait()
        found = look()
        assert found["daemon"]["result"] == "RESULT_SKIPPED"
        assert found["socket"]["result"] == "RESULT_WARNING"
        assert found["socket"]["fixes"] == [f"rm {user.socket}"]
