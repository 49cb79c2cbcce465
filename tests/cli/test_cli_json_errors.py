"""`--json` and failure: one document on stdout that says what stderr says to people."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.cli.failures import Exit
from gemd.v1 import operation_pb2
from tests.support.daemon_says import abort, delta, operation
from tests.support.shapes import settled, shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

SHAPES = Path(__file__).parent / "json_shapes"
FIELDS = {"reason", "message", "why", "advice", "metadata", "exit_code"}

BUSY = partial(
    abort,
    code=grpc.StatusCode.FAILED_PRECONDITION,
    reason="MODEL_BUSY",
    message="m answers 2 requests",
    why="they would be cut short",
    advice=["gemctl unload --now m"],
    metadata={"requests": "2"},
)


def error_in(text: str) -> dict[str, Any]:
    """The one document, which is an error and on one line."""
    (line,) = text.splitlines()
    document = json.loads(line)
    assert set(document) == {"error"}
    assert set(document["error"]) == FIELDS
    content: dict[str, Any] = document["error"]
    return content


def test_an_error_of_the_daemon_is_a_document(inside: Inside, daemon: FakeDaemon) -> None:
    """Reason, numbers and advice as the daemon gave them; people have the same on stderr."""
    daemon.script.failures = [BUSY]
    done = inside("status", "--json")

    assert error_in(done.stdout) == {
        "reason": "MODEL_BUSY",
        "message": "m answers 2 requests",
        "why": "they would be cut short",
        "advice": ["gemctl unload --now m"],
        "metadata": {"requests": "2"},
        "exit_code": Exit.PRECONDITION,
    }
    assert done.returncode == Exit.PRECONDITION
    assert done.stderr == (
        "error: m answers 2 requests\n  why: they would be cut short\n"
        "  try: gemctl unload --now m\n"
    )


COMMANDS = [
    *(["status"], ["status", "--watch"], ["info"], ["unload", "m"], ["why"], ["events"]),
    *(["ops", "list"], ["ops", "cancel", "7"], ["lease", "--list"], ["feedback", "r-1", "good"]),
    *(["list"], ["pull", "m"], ["plan"], ["devices"], ["run", "Hi"], ["run", "--stream", "Hi"]),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_daemon_that_does_not_run_is_a_document(inside: Inside, arguments: list[str]) -> None:
    """Whatever the command, and whether it would have started one."""
    done = inside(*arguments, "--json")
    told = error_in(done.stdout)
    assert (told["exit_code"], done.returncode) == (Exit.UNREACHABLE, Exit.UNREACHABLE)
    assert told["message"] in done.stderr
    assert told["advice"]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_without_json_stdout_stays_empty(inside: Inside, arguments: list[str]) -> None:
    """Nobody who asked for text gets a document."""
    left = [each for each in arguments if each != "--stream"]
    assert inside(*left).stdout == ""


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["status", "--json", "--interval", "2"], "--interval is for --watch"),
        (["status", "--interval", "x", "--json"], "'x' is not a number of seconds"),
        (["load", "--json"], "Missing argument 'MODEL'"),
        (["run", "--mode", "quick", "--json", "Hi"], "'quick' is not one of"),
        (["run", "--json", "--frob", "Hi"], "No such option '--frob'"),
        (["frobnicate", "--json"], "No such command 'frobnicate'"),
        (["stop", "--json"], "No such option '--json'"),
        (["ops", "cancl", "--json"], "No such command 'cancl'"),
        (["config", "show", "--json", "more"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_a_document(
    inside: Inside, arguments: list[str], says: str
) -> None:
    """Also where it is found before the options are read."""
    done = inside(*arguments)
    told = error_in(done.stdout)
    assert says in told["message"]
    assert (told["exit_code"], done.returncode) == (Exit.USAGE, Exit.USAGE)
    assert told["advice"][0].startswith("gemctl")
    assert says in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--", "--json", "--frob"],
        ["load", "--", "--json", "m"],
        ["run", "--system", "--json", "Hi"],
    ],
)
def test_json_that_is_no_option_asks_for_none(inside: Inside, arguments: list[str]) -> None:
    """Behind `--`, and as the value of an option whose command has been read."""
    done = inside(*arguments)
    assert done.returncode != 0
    assert done.stdout == ""


def test_an_argument_that_is_no_text_is_a_document(inside: Inside) -> None:
    """Found before anything else is."""
    done = inside("load", "--json", "\udcff")
    assert r"'\xff' is not UTF-8 text" in error_in(done.stdout)["message"]


def test_a_wrong_setting_is_a_document(inside: Inside) -> None:
    """The reason is that of the error of the settings."""
    told = error_in(inside("config", "show", "--json", GEMD_THREADS="many").stdout)
    assert (told["reason"], told["exit_code"]) == ("BAD_CONFIG", Exit.PRECONDITION)


def test_a_defect_is_a_document(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that reads us is not left without an answer by a mistake of ours."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("one by none")

    monkeypatch.setattr("gemd.cli.config._files", broken)
    told = error_in(inside("config", "show", "--json").stdout)
    assert told["message"] == "unexpected ZeroDivisionError: one by none"
    assert told["exit_code"] == Exit.FAILURE


def test_a_document_that_was_written_stays_the_only_one(inside: Inside, daemon: FakeDaemon) -> None:
    """It says itself what failed; the exit code and stderr say so, too."""
    daemon.script.remembers = False
    done = inside("feedback", "r-1", "good", "--json")
    assert json.loads(done.stdout) == {"recorded": False}
    assert done.returncode == Exit.NOT_FOUND


def test_the_error_ends_a_stream(inside: Inside, daemon: FakeDaemon) -> None:
    """Lines that came before it stay, and it is a line like them."""

    def script(_request: object, context: grpc.ServicerContext) -> Iterator[Any]:
        yield delta("half")
        BUSY(context)

    daemon.script.generate = script
    first, last = inside("run", "--json", "--stream", "Hi").stdout.splitlines()
    assert "delta" in json.loads(first)
    assert error_in(last)["reason"] == "MODEL_BUSY"


def test_a_stream_of_events_that_ends_says_so(inside: Inside, daemon: FakeDaemon) -> None:
    """A reader of `events` learns from its last line that there is no more."""
    told = error_in(inside("events", "--json").stdout)
    assert (told["message"], told["exit_code"]) == ("gemd ended the stream of events", 3)


def test_a_reader_that_is_gone_changes_nothing(gemctl: Gemctl) -> None:
    """The error is on stderr, and the exit code is its own."""
    with gemctl.start("info", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == Exit.UNREACHABLE
        assert process.stderr.read().startswith("error: ")


def test_no_line_ends_inside_a_document(inside: Inside, daemon: FakeDaemon) -> None:
    r"""Readers that split at U+2028, U+2029 or U+0085 get whole documents all the same."""
    text = "a\u2028b\u2029c\u0085d\ne"
    daemon.script.generate = lambda _request, _context: iter([delta(text)])
    line = inside("run", "--json", "--stream", "Hi").stdout.splitlines()[0]
    assert json.loads(line)["delta"]["text"] == text


def test_what_a_verification_of_all_leaves_out_is_in_its_document(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """With the error of each, so that nobody takes it for verified."""
    failed = operation("FAILED", kind=operation_pb2.Operation.KIND_VERIFY, variant="q4_1")
    failed.error.reason, failed.error.message = "OPERATION_CONFLICT", "it is being pulled"
    daemon.script.verifications = [failed]
    done = inside("verify", "--json")
    found = json.loads(done.stdout)
    (refused,) = found["refused"]
    assert (refused["model"], refused["variant"]) == ("smollm2-135m", "q4_1")
    assert refused["error"]["reason"] == "OPERATION_CONFLICT"
    assert found["verifications"] == []
    known = json.loads((SHAPES / "verify.json").read_text(encoding="utf-8"))["refused"]
    assert settled(shape(found["refused"], maps=("metadata",)), known) == known
