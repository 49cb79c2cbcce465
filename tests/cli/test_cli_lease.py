from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gemd.cli import autostart
from gemd.cli.failures import Exit
from tests.support.daemon_says import lease, model

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

MODEL = "smollm2-135m"


def test_a_lease_is_taken(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Its name is the data, for `--renew` and `--release`; the rest is said beside."""
    done = gemctl("lease", MODEL, TZ="UTC0")
    assert (done.returncode, done.stdout) == (0, "leases/1\n")
    assert done.stderr.splitlines() == [
        f"{MODEL} has a lease until 1971-01-01 00:10:00",
        f"{MODEL} is not warm yet; it is loaded when memory is free",
        "gemctl status",
    ]
    daemon.script.models[MODEL] = model(MODEL, state="READY")
    assert len(gemctl("lease", MODEL).stderr.splitlines()) == 1
    asked, _ = daemon.asked("CreateLease")
    assert (asked.model, asked.load, asked.HasField("ttl")) == (MODEL, True, False)
    assert asked.client.startswith("gemctl/")


def test_a_lease_asks_for_what_was_named(inside: Inside, daemon: FakeDaemon) -> None:
    """A time with its unit, and whether the model is loaded."""
    assert inside("lease", MODEL, "--ttl", "1.5h", "--no-load").returncode == 0
    (asked,) = daemon.asked("CreateLease")
    assert (asked.ttl.seconds, asked.load) == (5400, False)


def test_a_model_that_is_not_on_disk_is_said_to_be_missing(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """Its lease waits for it; with --no-load nobody expects it to be warm."""
    daemon.script.models["big"] = model("big", state="ABSENT")
    done = inside("lease", "big")
    assert (done.returncode, done.stdout) == (0, "leases/1\n")
    assert done.stderr.splitlines()[1:] == ["big is not on disk yet", "gemctl pull big"]
    assert len(inside("lease", "big", "--no-load").stderr.splitlines()) == 1


def test_a_lease_is_renewed_and_released(inside: Inside, daemon: FakeDaemon) -> None:
    """By its name or its bare id; a second release is no failure, a late renewal is one."""
    daemon.script.leases = {"leases/1": lease(), "leases/2": lease("leases/2")}
    done = inside("lease", "--renew", "1", "--ttl", "1h", TZ="UTC0")
    assert (done.returncode, done.stdout) == (0, "leases/1\n")
    assert "has a lease until " in done.stderr
    assert inside("lease", "--renew", "leases/1").returncode == 0
    first, second = daemon.asked("RenewLease")
    assert (first.name, first.ttl.seconds) == ("leases/1", 3600)
    assert (second.name, second.HasField("ttl")) == ("leases/1", False)
    for identity in ("leases/1", "1"):
        done = inside("lease", "--release", identity)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "leases/1 is not active any more\n"
    assert list(daemon.script.leases) == ["leases/2"]
    late = inside("lease", "--renew", "1")
    assert (late.returncode, late.stdout) == (Exit.NOT_FOUND, "")


def test_leases_are_a_table(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Who holds which, and until when; a model names only its own."""
    daemon.script.leases = {
        "leases/1": lease(client=""),
        "leases/22": lease("leases/22", model="models/m", ttl=90),
    }
    daemon.script.models["m"] = model("m")
    first = "leases/1   smollm2-135m  -         10m  1971-01-01 00:10:00"
    second = "leases/22  m             editor/1  90s  1971-01-01 00:01:30"
    header = "LEASE      MODEL         CLIENT    TTL  UNTIL"
    for arguments in ([], ["--list"]):
        done = gemctl("lease", *arguments, TZ="UTC0")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [header, first, second]
    filtered = gemctl("lease", "--list", "m", TZ="UTC0").stdout.splitlines()
    assert [line.split()[0] for line in filtered] == ["LEASE", "leases/22"]


def test_no_lease_is_said_to_whoever_reads_along(inside: Inside, daemon: FakeDaemon) -> None:
    """Data is what was found, which is nothing."""
    done = inside("lease")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no lease is active\n")
    empty = inside("lease", "--json")
    assert (json.loads(empty.stdout), empty.stderr) == ({"leases": []}, "")


def test_leases_as_json_are_the_messages(inside: Inside, daemon: FakeDaemon) -> None:
    """One document each time, with proto field names, and nothing beside it."""
    made = inside("lease", MODEL, "--json")
    shown = json.loads(made.stdout)
    assert (shown["name"], shown["model"], shown["ttl"]) == ("leases/1", f"models/{MODEL}", "600s")
    assert (shown["state"], made.stderr) == ("STATE_ACTIVE", "")
    assert json.loads(inside("lease", "--json").stdout) == {"leases": [shown]}
    assert json.loads(inside("lease", "--renew", "1", "--json").stdout) == shown
    released = inside("lease", "--release", "1", "--json")
    assert (json.loads(released.stdout), released.stderr) == ({}, "")


def test_status_shows_leases(inside: Inside, daemon: FakeDaemon) -> None:
    """One line each, and nothing if there is none."""
    assert "LEASE" not in inside("status").stdout
    daemon.script.leases = {"leases/1": lease(), "leases/2": lease("leases/2")}
    lines = inside("status").stdout.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("LEASE "))
    assert [line.split()[:3] for line in lines[header + 1 : header + 3]] == [
        ["leases/1", MODEL, "editor/1"],
        ["leases/2", MODEL, "editor/1"],
    ]
    assert lines[header - 1] == lines[header + 3] == ""


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["m", "--ttl", "10"], "'10' has to be a number and a unit, such as 10m"),
        (["m", "--ttl", "0s"], "'0s' is no time at all"),
        (["--ttl", "10m"], "--ttl is for MODEL and for --renew"),
        (["--list", "--no-load"], "--load and --no-load are for MODEL"),
        (["--renew", "1", "--load"], "--load and --no-load are for MODEL"),
        (["m", "--renew", "1"], "--renew takes the ID of a lease and no MODEL"),
        (["m", "--release", "1"], "--release takes the ID of a lease and no MODEL"),
        (["--release", "1", "--ttl", "10m"], "--ttl is for MODEL and for --renew"),
        (["--renew", "1", "--release", "1"], "--renew and --release are two commands"),
        (["--release", "1", "--list"], "--release and --list are two commands"),
        (["--renew", ""], "the lease's ID is empty"),
        ([""], "the model's name is empty"),
    ],
)
def test_what_does_not_belong_together_is_a_usage_error(
    inside: Inside, daemon: FakeDaemon, arguments: list[str], says: str
) -> None:
    """Found before the daemon is asked for anything."""
    done = inside("lease", *arguments)
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert says in done.stderr
    assert daemon.requests == []


@pytest.mark.parametrize("arguments", [[], ["--renew", "1"], ["--release", "1"]])
def test_without_a_daemon_there_are_no_leases(
    inside: Inside, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is started to look: leases ended with the last one."""
    monkeypatch.setattr(autostart, "ensure_running", None)
    done = inside("lease", *arguments)
    assert (done.returncode, done.stdout) == (Exit.UNREACHABLE, "")
