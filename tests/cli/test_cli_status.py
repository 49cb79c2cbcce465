from __future__ import annotations

import json
import signal
import socket as socketlib
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from tests.support.daemon_says import model, operation

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside


def test_status_says_how_a_worker_computes(inside: Inside, daemon: FakeDaemon) -> None:
    """Where its engine had a choice, with the reason; nothing is said of the others."""
    daemon.script.models = {
        "m": model("m", state="READY", compute="triton", compute_reason="2.1 ms against 40 ms"),
        "n": model("n", state="READY"),
    }
    done = inside("status")
    lines = [line for line in done.stdout.splitlines() if "computes" in line]
    assert lines == ["m computes with triton: 2.1 ms against 40 ms"]
    shown = json.loads(inside("status", "--json").stdout)["models"]
    assert [(one["compute"], one["compute_reason"]) for one in shown] == [
        ("triton", "2.1 ms against 40 ms"),
        ("", ""),
    ]


def test_status_shows_the_whole_state(inside: Inside, daemon: FakeDaemon) -> None:
    """Daemon, requests, devices, models, operations, and what a user should know."""
    daemon.script.models = {"m": model("m", state="READY", pinned=True, active_requests=1)}
    daemon.script.models["m"].memory.add(device="devices/cpu", booked_bytes=2**30)
    daemon.script.pull = [operation("RUNNING", current=512, total=1024)]
    done = inside("status")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("gemd 0.1.0  serving  pid ")
    assert "up 1h 6m" in lines[0]
    assert lines[1:] == [
        "requests: 1 running, 2 waiting",
        "",
        "DEVICE  CAPACITY    BUDGET  MARGIN     OURS  RESERVED   OTHERS      FREE",
        "cpu     64.0 GiB  32.0 GiB     0 B  200 MiB       0 B  8.0 GiB  55.0 GiB",
        "        [#...........................?ooo]  Ryzen 9",
        "        # ours  + reserved  . free  : margin  ? unknown  o others",
        "",
        "MODEL       STATE  QUANTIZATION   MEMORY  REQUESTS  WAITING",
        "m (pinned)  ready  Q4_1          1.0 GiB         1        0",
        "",
        "OPERATION  KIND  MODEL         STATE     DONE    TOTAL",
        "7          pull  smollm2-135m  running  512 B  1.0 KiB",
        "",
        "warning: SensorBlind (devices/cpu): the use of others cannot be told",
        "  try: gemctl devices",
    ]


def test_status_as_json_is_the_message(inside: Inside, daemon: FakeDaemon) -> None:
    """One document with proto field names, every 64-bit integer a number, all depths."""
    shown = json.loads(inside("status", "--json").stdout)
    assert shown["sequence"] == 12345678901234
    assert shown["info"]["state"] == "STATE_SERVING"
    assert shown["info"]["uptime"] == "4000s"
    memory = shown["devices"][0]["memory"]
    assert memory["capacity_bytes"] == 64 * 2**30
    assert memory["ours_bytes"] == 200 * 2**20
    assert "unknown_bytes" not in memory
    assert shown["conditions"][0]["severity"] == "SEVERITY_WARNING"
    assert shown["running_requests"] == 1


def test_status_says_that_the_machine_runs_on_battery(inside: Inside, daemon: FakeDaemon) -> None:
    """Mains and the unknown are not worth a line."""
    for known, shown in ((None, False), (False, False), (True, True)):
        daemon.script.on_battery = known
        assert ("power: on battery\n" in inside("status").stdout) is shown


def test_devices_and_info(inside: Inside, daemon: FakeDaemon) -> None:
    """Each as text and as a document."""
    assert inside("devices").stdout.splitlines()[2].startswith("        Ryzen 9, 16 cores")
    (device,) = json.loads(inside("devices", "--json").stdout)["devices"]
    assert (device["id"], device["cores"]) == ("cpu", 16)
    assert "API v1, started by manual" in inside("info").stdout
    assert json.loads(inside("info", "--json").stdout)["version"] == "0.1.0"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["info"],
        ["unload", "m"],
        ["ops", "list"],
        ["why"],
        ["events"],
        ["list"],
        ["run", "Hi"],
    ],
)
def test_without_a_daemon_the_exit_code_is_three(inside: Inside, arguments: list[str]) -> None:
    """What looks never starts a daemon, and what may not start one says so."""
    done = inside(*arguments)
    assert (done.returncode, done.stdout) == (Exit.UNREACHABLE, "")
    assert done.stderr.startswith("error: gemd is not running (nobody answers at /")
    # Nothing that GEMD_AUTOSTART=0 forbids as well.
    assert done.stderr.endswith("  try: gemd\n")


def test_a_command_that_starts_a_daemon_is_advised_where_it_may(inside: Inside) -> None:
    """Looking starts none; what starts one is the first advice."""
    done = inside("status", GEMD_AUTOSTART="1")
    assert done.returncode == Exit.UNREACHABLE
    assert done.stderr.endswith("  try: gemctl run 'Hello'\n       gemd\n")


def test_what_lies_in_the_sockets_place_is_said(inside: Inside, socket: Path) -> None:
    """A file, the socket of a dead daemon, and a path through a file are told apart."""
    socket.write_text("notes")
    assert f"  why: {socket} is no socket\n" in inside("status").stderr
    below = inside("status", GEMD_SOCKET=f"{socket}/gemd.sock")
    assert f"  why: {socket}/gemd.sock: Not a directory\n" in below.stderr
    socket.unlink()
    with socketlib.socket(socketlib.AF_UNIX) as dead:
        dead.bind(str(socket))
    why = "  why: the socket is left over from a daemon that has ended\n"
    assert why in inside("status").stderr


def test_a_mistake_in_the_file_does_not_hide_a_daemon(
    inside: Inside, daemon: FakeDaemon, home: Path
) -> None:
    """Where the socket is named, the settings are not needed to stop what runs there."""
    file = home / ".config" / "gemd" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("parallel = 'many'\n")
    assert inside("info").returncode == 0
    assert inside("info", GEMD_SOCKET="").returncode == Exit.PRECONDITION


def test_a_watch_goes_on_until_it_is_interrupted(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """One JSON document per line, each a new look; Ctrl-C is exit code 130."""
    process = gemctl.start("status", "--watch", "--interval", "0.01", "--json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["running_requests"] == 1
    daemon.script.models["m"] = model("m", state="READY")
    while len(json.loads(process.stdout.readline())["models"]) == 1:
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (Exit.INTERRUPTED, "\n")


def test_a_watch_ends_with_its_daemon(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """In a pipe it does not wait for another one: exit code 3, and a reason."""
    process = gemctl.start("status", "--watch", "--interval", "0.01")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("gemd 0.1.0")
    daemon.stop()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == Exit.UNREACHABLE
    assert errors.startswith("error: gemd ")


def test_a_socket_path_that_no_daemon_can_have_is_named(inside: Inside) -> None:
    """«Nobody answers» would be true, and no help."""
    done = inside("status", GEMD_SOCKET="/" + "x" * 200)
    assert done.returncode == Exit.PRECONDITION
    assert "107" in done.stderr


def test_the_socket_can_be_named(inside: Inside, daemon: FakeDaemon, socket: Path) -> None:
    """`--socket` is stronger than GEMD_SOCKET, and the file is read if there is one."""
    assert inside("--socket", str(socket), "info", GEMD_SOCKET="/nowhere").returncode == 0
    assert inside("info", GEMD_SOCKET="/nowhere").returncode == Exit.UNREACHABLE


def test_a_socket_from_the_file_is_found(inside: Inside, daemon: FakeDaemon, home: Path) -> None:
    """The settings file decides where no flag and no variable does."""
    file = home / ".config" / "gemd" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'socket = "{home}/gemd.sock"\n')
    assert inside("info", GEMD_SOCKET="").returncode == 0
    done = inside("info", GEMD_SOCKET="relative.sock")
    assert done.returncode == Exit.PRECONDITION
    assert "has to be an absolute path" in done.stderr


def test_stop_without_a_daemon_is_fine(inside: Inside) -> None:
    """There is nothing to do, and that is said."""
    done = inside("stop")
    assert (done.returncode, done.stderr) == (0, "gemd is not running\n")


@pytest.mark.parametrize(
    "cut,said", [(0, ""), (1, "; 1 answer was cut short"), (2, "; 2 answers were cut short")]
)
def test_stop_says_how_many_answers_it_cut_short(
    cut: int, said: str, inside: Inside, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sentence that is one."""
    daemon.script.drained.cancelled_requests = cut
    monkeypatch.setattr("gemd.cli.daemon._alive", lambda _: False)
    assert inside("stop", "--now").stderr == f"gemd has ended{said}\n"
    assert daemon.asked("Drain")[0].HasField("timeout")
