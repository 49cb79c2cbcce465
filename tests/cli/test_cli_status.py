from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from tests.support.daemon_says import model, operation

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside


def test_status_shows_the_whole_state(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Daemon, requests, devices, models, operations, and what a user should know."""
    daemon.script.models = {"m": model("m", state="READY", pinned=True, active_requests=1)}
    daemon.script.models["m"].memory.add(device="devices/cpu", booked_bytes=2**30)
    daemon.script.pull = [operation("RUNNING", current=512, total=1024)]
    done = gemctl("status")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("gemd 0.1.0  serving  pid ")
    assert "up 1h 6m" in lines[0]
    assert lines[1:] == [
        "requests: 1 running, 2 waiting",
        "",
        "DEVICE  NAME     CAPACITY    BUDGET     OURS   OTHERS      FREE",
        "cpu     Ryzen 9  64.0 GiB  32.0 GiB  200 MiB  8.0 GiB  55.0 GiB",
        "",
        "MODEL       STATE  QUANTIZATION   MEMORY  REQUESTS  WAITING",
        "m (pinned)  ready  Q4_1          1.0 GiB         1        0",
        "",
        "OPERATION     KIND  MODEL         STATE     DONE    TOTAL",
        "operations/7  pull  smollm2-135m  running  512 B  1.0 KiB",
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


def test_devices_and_info(inside: Inside, daemon: FakeDaemon) -> None:
    """Each as text and as a document."""
    assert inside("devices").stdout.splitlines()[1].startswith("cpu     Ryzen 9  64.0 GiB")
    (device,) = json.loads(inside("devices", "--json").stdout)["devices"]
    assert (device["id"], device["cores"]) == ("cpu", 16)
    assert "API v1, started by manual" in inside("info").stdout
    assert json.loads(inside("info", "--json").stdout)["version"] == "0.1.0"


@pytest.mark.parametrize(
    "arguments", [["status"], ["info"], ["unload", "m"], ["ops", "list"], ["list"], ["run", "Hi"]]
)
def test_without_a_daemon_the_exit_code_is_three(inside: Inside, arguments: list[str]) -> None:
    """What looks never starts a daemon, and what may not start one says so."""
    done = inside(*arguments)
    assert (done.returncode, done.stdout) == (Exit.UNREACHABLE, "")
    assert done.stderr.startswith("error: gemd is not running (nobody answers at /")
    assert "  try: gemd\n" in done.stderr


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
