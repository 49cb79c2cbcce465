"""Conversations in a real terminal (tmux): keys, pasted text, Ctrl-C at each stage, the history."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon_says import delta, draft, ended, finished, resolved, started
from tests.support.tmux import ENDED, terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import grpc

    from gemd.v1 import generation_service_pb2
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl

    Events = Iterator[generation_service_pb2.GenerateResponse]

HELLO = "/help shows what can be done, Ctrl-D ends the conversation"
PARIS = "The capital of France is Paris."


def questions(daemon: FakeDaemon) -> list[str]:
    """The last message of each request."""
    return [request.chat.messages[-1].parts[0].text for request in daemon.asked("Generate")]


@pytest.mark.parametrize("columns", [80, 200])
def test_questions_and_answers(gemctl: Gemctl, daemon: FakeDaemon, columns: int) -> None:
    """Each answer stands below its question, and another prompt below that; Ctrl-D ends it."""
    with terminal(gemctl.environ, "run", columns=columns) as shown:
        shown.until(">>>")
        shown.type("France?")
        shown.press("Enter")
        shown.until(lambda text: text.endswith(f"{PARIS}\n>>>"))
        shown.press("C-d")
        assert shown.ended() == 0
        assert shown.screen() == "\n".join([HELLO, ">>> France?", PARIS, ">>>", f"{ENDED} 0."])
        assert shown.modes() == "0 1 1"


def test_lines_are_edited_and_remembered(gemctl: Gemctl, daemon: FakeDaemon, home: Path) -> None:
    """Arrows, Alt-Enter, a backslash, and Tab; the next conversation knows the last one's texts."""
    with terminal(gemctl.environ, "run") as shown:
        shown.until(">>>")
        shown.type("Hi")
        shown.press("Left", "Left")
        shown.type("Oh ")
        shown.press("Enter")
        shown.until(PARIS)
        shown.type("one\\")
        shown.press("Enter")
        shown.type("two")
        shown.press("M-Enter")
        shown.type("three")
        shown.press("Enter")
        shown.until(lambda text: text.count(PARIS) == 2)
        shown.type("/sy")
        shown.press("Tab")
        shown.until(">>> /system")
        shown.press("C-c")
        shown.until(lambda text: text.endswith(">>>"))
        shown.press("C-d")
        assert shown.ended() == 0
    assert questions(daemon) == ["Oh Hi", "one\ntwo\nthree"]
    with terminal(gemctl.environ, "run") as shown:
        shown.until(">>>")
        # Through the three lines of the last text to the one before it.
        shown.press("Up", "Up", "Up", "Up")
        shown.until(">>> Oh Hi")
        shown.press("Enter")
        shown.until(PARIS)
    assert questions(daemon)[2:] == ["Oh Hi"]


def test_pasted_lines_are_one_text(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """No line of it is sent by itself, and what it does to a terminal is shown, not done."""
    with terminal(gemctl.environ, "run") as shown:
        shown.until(">>>")
        shown.paste("def f():\n    return '\x1b[31mred\x07'\n")
        shown.until(lambda text: "^[[31mred^G" in text)
        assert daemon.asked("Generate") == []
        shown.press("Enter")
        shown.until(PARIS)
    assert questions(daemon) == ["def f():\n    return '\x1b[31mred\x07'"]


def test_nothing_is_kept_with_no_history(gemctl: Gemctl, daemon: FakeDaemon, home: Path) -> None:
    """Of what is typed, nothing comes to lie on the disk."""
    with terminal(gemctl.environ, "run", "--no-history") as shown:
        shown.until(">>>")
        shown.type("my secret")
        shown.press("Enter")
        shown.until(PARIS)
        shown.press("C-d")
        assert shown.ended() == 0
    kept = [file for file in home.rglob("*") if file.is_file() and b"secret" in file.read_bytes()]
    assert kept == []


def test_ctrl_c_stops_the_answer_and_not_the_conversation(
    gemctl: Gemctl, daemon: FakeDaemon
) -> None:
    """What was said stays on the screen, the daemon is told, and the next question is answered.

    What is typed meanwhile is not written into the answer.
    """
    cancelled = threading.Event()

    def endless(request: object, context: grpc.ServicerContext) -> Events:
        context.add_callback(cancelled.set)
        yield started()
        yield delta("Once upon")
        cancelled.wait(30)

    def short(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("Well then.")
        yield finished()

    daemon.script.generate = endless
    with terminal(gemctl.environ, "run") as shown:
        shown.until(">>>")
        shown.type("A story")
        shown.press("Enter")
        shown.until("Once upon")
        shown.type("typed too early")
        shown.press("C-c")
        shown.until(lambda text: text.endswith("Once upon\nstopped\n>>>"))
        assert cancelled.wait(20)
        daemon.script.generate = short
        shown.type("Go on")
        shown.press("Enter")
        shown.until(lambda text: text.endswith("Well then.\n>>>"))
        shown.press("C-c")
        shown.until(lambda text: text.endswith("Ctrl-D, ends the conversation\n>>>"))
        shown.press("C-c")
        assert shown.ended() == 0
        assert shown.modes() == "0 1 1"


def test_a_draft_that_is_replaced_leaves_nothing(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Wherever the answer begins on the screen, its lines are those of the answer alone."""
    go_on = threading.Event()

    def script(request: object, context: grpc.ServicerContext) -> Events:
        yield started("diffuser")
        yield draft("The answer is\nfish and nothing\nbut fish.", last=True)
        go_on.wait(30)
        yield resolved("REPLACED")
        yield delta("It is 42.")
        yield ended("REPLACED")

    daemon.script.generate = script
    with terminal(gemctl.environ, "run", rows=8) as shown:
        shown.until(">>>")
        shown.type("What?")
        shown.press("Enter")
        shown.until("draft of diffuser, not checked yet")
        go_on.set()
        seen = shown.until(lambda text: text.endswith(">>>"))
        assert seen.splitlines() == [
            HELLO,
            ">>> What?",
            "the draft of diffuser was replaced: it is unlikely",
            "It is 42.",
            ">>>",
        ]


@pytest.mark.parametrize("where", ["prompt", "answer"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(
    gemctl: Gemctl, daemon: FakeDaemon, number: signal.Signals, where: str
) -> None:
    """At the prompt and amid an answer: keys are echoed and lines are whole ones again."""
    cancelled = threading.Event()

    def endless(request: object, context: grpc.ServicerContext) -> Events:
        context.add_callback(cancelled.set)
        yield delta("Once upon")
        cancelled.wait(30)

    daemon.script.generate = endless
    with terminal(gemctl.environ, "run") as shown:
        shown.until(">>>")
        if where == "answer":
            shown.type("A story")
            shown.press("Enter")
            shown.until("Once upon")
        os.kill(shown.pid(), number)
        assert shown.ended() == 128 + number
        # `cat` runs now: its terminal echoes the line, and cat says it again.
        shown.type("echoed")
        shown.press("Enter")
        shown.until(lambda text: text.count("echoed") == 2)


def test_a_dumb_terminal_has_plain_lines(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """No control sequence is written; quotes and backslashes join lines all the same."""
    left = ["one\\\ntwo\n", '"""three\nfour"""\n', "\x04"]

    def react(seen: str, type_text: Callable[[str], None]) -> None:
        if seen.count(">>> ") > 3 - len(left):
            type_text(left.pop(0))

    code, seen = gemctl.on_terminal("run", react=react, TERM="dumb")
    assert code == 0
    assert "\x1b" not in seen
    assert questions(daemon) == ["one\ntwo", "three\nfour"]
