from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

import grpc
import pytest

from gemd.cli import autostart
from gemd.cli.failures import Exit
from gemd.v1 import daemon_service_pb2
from tests.support.daemon_says import YEAR_SECONDS, abort, yielded

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside


def test_it_says_what_was_given_back(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """How much, how soon, who went, who stayed and why, and until when nothing is loaded."""
    daemon.script.yielded = [yielded(keep_off_until=YEAR_SECONDS)]
    done = gemctl("yield", TZ="UTC0")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "cpu: 4.0 GiB given back in 380 ms, seen free by the sensor",
        "  from: m, n",
        "  kept: 1.0 GiB",
        "    p is pinned",
        "  nothing is loaded until 1971-01-01 00:00:00",
        "  to end that: gemctl yield cpu --resume",
    ]
    assert done.stderr == "gemctl yield --force   (takes pinned models too)\n"
    assert daemon.asked("Yield") == [daemon_service_pb2.YieldRequest()]


@pytest.mark.parametrize(
    "models,kept,confirmed,says",
    [
        (["models/m"], 0, False, "cpu: 1.0 GiB given back in 0 ms; no sensor can confirm it"),
        ([], 0, True, "cpu: no model holds memory"),
        ([], 2**30, True, "cpu: nothing was given back"),
    ],
)
def test_it_claims_no_more_than_is_known(
    models: list[str], kept: int, says: str, *, confirmed: bool, inside: Inside, daemon: FakeDaemon
) -> None:
    """An unconfirmed release, nothing that was there, and nothing that could go are told apart."""
    daemon.script.yielded = [
        daemon_service_pb2.YieldedMemory(
            device="devices/cpu",
            released_bytes=2**30 if models else 0,
            confirmed=confirmed,
            models=models,
            kept_bytes=kept,
        )
    ]
    assert inside("yield", "cpu").stdout.splitlines()[0] == says


def test_it_says_how_to_keep_what_was_given(inside: Inside, daemon: FakeDaemon) -> None:
    """The next request would load again; where gemd keeps off, that is not said."""
    hint = "gemctl yield cpu --keep-off 2h   (else the next request loads again)\n"
    daemon.script.yielded = [yielded()]
    assert hint in inside("yield", "cpu").stderr
    daemon.script.yielded = [yielded(keep_off_until=YEAR_SECONDS)]
    assert hint not in inside("yield", "cpu").stderr


def test_it_leads_to_main_memory_where_the_gpus_hold_nothing(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """They are what is meant unless a device is named."""
    hint = "gemctl yield cpu   (gives back main memory)\n"
    gpu = daemon_service_pb2.YieldedMemory(device="devices/gpu0")
    daemon.script.yielded = [gpu]
    assert inside("yield").stderr == hint
    assert inside("yield", "gpu0").stderr == ""
    gpu.models.append("models/m")
    assert hint not in inside("yield").stderr
    daemon.script.yielded = [daemon_service_pb2.YieldedMemory(device="devices/cpu")]
    assert inside("yield").stderr == ""


def test_it_asks_for_what_was_named(inside: Inside, daemon: FakeDaemon) -> None:
    """Sizes and times with their units."""
    done = inside("yield", "gpu0", "--size", "1.5GiB", "--keep-off", "2h", "--force")
    assert done.returncode == 0
    (asked,) = daemon.asked("Yield")
    assert (asked.device, asked.size_bytes) == ("gpu0", 3 * 2**29)
    assert (asked.keep_off.seconds, asked.force, asked.resume) == (7200, True, False)


def test_models_may_be_loaded_again(inside: Inside, daemon: FakeDaemon) -> None:
    """Said for each device that is meant."""
    daemon.script.yielded = [
        daemon_service_pb2.YieldedMemory(device=f"devices/gpu{number}") for number in range(2)
    ]
    done = inside("yield", "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "gpu0: models may be loaded again\ngpu1: models may be loaded again\n"
    assert daemon.asked("Yield") == [daemon_service_pb2.YieldRequest(resume=True)]


def test_as_json_it_is_the_message(inside: Inside, daemon: FakeDaemon) -> None:
    """One document, sizes as numbers, and nothing beside it."""
    daemon.script.yielded = [yielded(keep_off_until=YEAR_SECONDS)]
    done = inside("yield", "--json")
    (shown,) = json.loads(done.stdout)["yielded"]
    assert (shown["device"], shown["released_bytes"], shown["confirmed"]) == (
        "devices/cpu",
        2**32,
        True,
    )
    assert (shown["duration"], shown["models"]) == ("0.380s", ["models/m", "models/n"])
    assert shown["kept_reasons"][0]["code"] == "PINNED"
    assert shown["keep_off_until"] == "1971-01-01T00:00:00Z"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["--resume", "--force"], "--resume gives nothing back"),
        (["--resume", "--size", "1GiB"], "--resume gives nothing back"),
        (["--resume", "--keep-off", "2h"], "--resume gives nothing back"),
        (["--size", "4"], "'4' has to be a number and a unit, such as 4GiB"),
        (["--size", "0B"], "'0B' is nothing at all"),
        (["--keep-off", "2"], "'2' has to be a number and a unit"),
        ([""], "the device's name is empty"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    inside: Inside, daemon: FakeDaemon, arguments: list[str], says: str
) -> None:
    """Found before the daemon is asked for anything."""
    done = inside("yield", *arguments)
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert says in done.stderr
    assert daemon.requests == []


def test_without_a_daemon_nothing_is_warm(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """None is started for it, and that is no failure; what cannot be noted is not promised."""
    monkeypatch.setattr(autostart, "ensure_running", None)
    said = "gemd is not running, so that no model holds memory\n"
    for arguments in (["yield"], ["yield", "--resume"], ["yield", "gpu0", "--force"]):
        done = inside(*arguments, GEMD_AUTOSTART="1")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", said)
    done = inside("yield", "--keep-off", "2h", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"yielded": []})
    assert done.stderr == f"{said}--keep-off is not noted: a daemon that starts later may load\n"
    assert list(home.iterdir()) == []


def test_an_unknown_device_is_exit_code_four(inside: Inside, daemon: FakeDaemon) -> None:
    """The daemon's own words."""

    def unknown(context: grpc.ServicerContext) -> NoReturn:
        abort(
            context,
            grpc.StatusCode.NOT_FOUND,
            "NOT_FOUND",
            "there is no device 'gpu7'",
            why="this machine has cpu",
            advice=["gemctl devices"],
        )

    daemon.script.failures = [unknown]
    done = inside("yield", "gpu7")
    assert (done.returncode, done.stdout) == (Exit.NOT_FOUND, "")
    assert done.stderr.splitlines() == [
        "error: there is no device 'gpu7'",
        "  why: this machine has cpu",
        "  try: gemctl devices",
    ]
