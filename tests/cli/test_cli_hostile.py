"""A daemon all of whose texts are hostile: every command shows them, and does nothing of it."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.v1 import operation_pb2
from tests.support.daemon_says import abort, delta, draft, finished, loading, started
from tests.support.filled import FilledDaemon, ended, filled
from tests.support.hostile import HOSTILE, SHOWN, left_over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.gemctl import Gemctl, Inside

COMMANDS = [
    *(["status"], ["info"], ["list"], ["list", "--variants"], ["devices"], ["plan", "--all"]),
    *(["plan", "m"], ["why"], ["why", "--kind", "route"], ["events"], ["ops", "list"]),
    *(["ops", "watch", "7"], ["ops", "cancel", "7"], ["lease", "--list"], ["lease", "m"]),
    *(["lease", "--renew", "1"], ["yield"], ["yield", "--resume"], ["pull", "m"], ["load", "m"]),
    *(["unload", "m"], ["pin", "m"], ["rm", "m", "--yes"], ["prune", "--yes"], ["verify", "m:q"]),
    *(["prune", "--dry-run"], ["quantize", "m", "--to", "Q8_0", "--yes"], ["doctor", "daemon"]),
    *(["run", "Hi"], ["run", "Hi", "--watch-canvas"], ["run", "Hi", "--stats"]),
    *(["run", "Hi", "--candidates", "2"], ["bench", "m", "--streams", "1", "--repeat", "1"]),
    *(["status", "--json"], ["run", "--json", "Hi"], ["run", "--json", "--stream", "Hi"]),
    *(["events", "--json"], ["list", "--json"]),
]


@pytest.fixture
def hostile(socket: Path) -> Iterator[FilledDaemon]:
    """The daemon."""
    with FilledDaemon(socket, text=HOSTILE) as running:
        yield running


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_text_of_the_daemon_steers_the_terminal(
    inside: Inside, hostile: FilledDaemon, arguments: list[str]
) -> None:
    """Names, descriptions, reasons, answers: whatever field it comes in."""
    _, seen = inside.on_terminal(*arguments)
    assert left_over(seen) == set()
    if "--json" not in arguments:
        assert SHOWN in seen


def test_json_on_a_terminal_says_what_was_said(inside: Inside, hostile: FilledDaemon) -> None:
    """All of it escaped, nothing of it replaced: it can be copied from there."""
    _, seen = inside.on_terminal("info", "--json")
    assert json.loads(seen)["version"] == HOSTILE


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """In the background of a shell the tests would hand on a SIGINT that is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("arguments", [["top"], ["status", "--watch"]], ids=" ".join)
def test_nor_do_texts_on_live_screens(
    gemctl: Gemctl, hostile: FilledDaemon, arguments: list[str]
) -> None:
    """Each on its row, drawn again and again."""
    pressed: list[bool] = []

    def react(seen: str, type_text: Callable[[str], None]) -> None:
        if SHOWN in seen and seen.count("\x1b[H") > 1 and not pressed:
            pressed.append(True)
            type_text("\x03")

    _, seen = replace(gemctl, interrupts=True).on_terminal(
        *arguments, "--interval", "0.05", react=react
    )
    assert SHOWN in seen
    assert left_over(seen) == set()


ERROR = partial(
    abort,
    code=grpc.StatusCode.NOT_FOUND,
    reason="NOT_FOUND",
    message=f"no {HOSTILE}",
    why=HOSTILE,
    advice=[f"gemctl {HOSTILE}"],
    metadata={"name": HOSTILE},
)


@pytest.mark.parametrize(
    "arguments", [["status"], ["run", "Hi"], ["pull", "m"], ["status", "--json"]], ids=" ".join
)
def test_nor_do_errors(inside: Inside, hostile: FilledDaemon, arguments: list[str]) -> None:
    """Message, reason and advice come from hubs, files and other programs, too."""
    hostile.script.failures = [ERROR]
    code, seen = inside.on_terminal(*arguments)
    assert code != 0
    assert left_over(seen) == set()
    assert SHOWN in seen or "\\u001b]0;owned" in seen


def test_an_error_forges_no_label(inside: Inside, hostile: FilledDaemon) -> None:
    """What else it says stands beside a bar, and not where a command to try would stand."""
    hostile.script.failures = [partial(ERROR, message="no\n  try: rm -rf ~\nerror: x", why="a\nb")]
    _, seen = inside.on_terminal("status", NO_COLOR="1")
    assert seen.splitlines()[:5] == [
        *("error: no", "       |   try: rm -rf ~", "       | error: x"),
        *("  why: a", "       | b"),
    ]


def test_an_operation_that_fails_says_so_harmlessly(inside: Inside, hostile: FilledDaemon) -> None:
    """Its phases, units and messages on the live line, and its error at the end."""
    running = ended("pull", text=HOSTILE)
    running.state = operation_pb2.Operation.STATE_RUNNING
    running.ClearField("pull")
    running.units[0].ClearField("completed")
    running.units.add().CopyFrom(running.units[0])
    failed = filled(operation_pb2.Operation, text=HOSTILE, result="error")
    failed.state = operation_pb2.Operation.STATE_FAILED
    hostile._ended = lambda *_: running  # type: ignore[method-assign]
    hostile.script.pull = [running, failed]
    code, seen = inside.on_terminal("pull", "m")
    assert code != 0
    assert left_over(seen) == set()
    assert seen.count(SHOWN) > 3


def test_a_question_is_harmless(gemctl: Gemctl, hostile: FilledDaemon) -> None:
    """The name of what would be removed is in it."""

    def react(seen: str, type_text: Callable[[str], None]) -> None:
        if seen.endswith("[y/N]: "):
            type_text("n\n")

    _, seen = gemctl.on_terminal("rm", "m", react=react)
    assert "Remove " in seen
    assert SHOWN in seen
    assert left_over(seen) == set()


def test_a_sequence_may_come_in_pieces(inside: Inside, hostile: FilledDaemon) -> None:
    """Each of its characters in a delta of its own, as tokens come; thoughts and drafts, too."""

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        yield from (delta(each) for each in HOSTILE)
        yield draft(HOSTILE[:5])
        yield draft(HOSTILE[5:], last=True)
        thinking = delta("")
        for each in HOSTILE:
            thinking.delta.reasoning_text = each
            yield thinking
        yield finished()

    hostile.script.generate = script
    code, seen = inside.on_terminal("run", "Hi")
    assert code == 0
    assert left_over(seen) == set()
    assert SHOWN in seen.replace("\x1b[2m", "").replace("\x1b[0m", "")


def test_loading_is_harmless(inside: Inside, hostile: FilledDaemon) -> None:
    """The name of the model is on the live line."""
    step = loading(1, 4)
    step.model = f"models/{HOSTILE}"
    hostile.script.generate = lambda _request, _context: iter(
        [type(started())(loading=step), started(), delta("x"), finished()]
    )
    _, seen = inside.on_terminal("run", "Hi")
    assert f"loading {SHOWN}" in seen
    assert left_over(seen) == set()


def test_a_table_keeps_its_columns(inside: Inside, socket: Path) -> None:
    """A name with lines and tabs in it is one cell, as wide as it is shown."""
    with FilledDaemon(socket, text="a\n\tb\x1bc\x9bd") as _:
        _, seen = inside.on_terminal("ops", "list", NO_COLOR="1")
        header, first, *_ = seen.splitlines()
        assert first.index("pull") == header.index("KIND")
        assert first.startswith("a␊␉b␛c<9b>d")
        piped = inside("ops", "list").stdout.splitlines()
        assert len(piped) == len(seen.splitlines())


def test_what_is_piped_is_what_was_said(inside: Inside, hostile: FilledDaemon) -> None:
    """An answer that goes into a file is that answer: nothing is steered there."""
    hostile.script.generate = lambda _request, _context: iter(
        [started(), delta(HOSTILE), finished()]
    )
    assert inside("run", "Hi").stdout == f"{HOSTILE}\n"
