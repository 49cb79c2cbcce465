"""The Neovim plugin over a scripted daemon: drafts, undo, cancelling, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.support.daemon_says import abort, delta, draft, ended, finished, resolved, started
from tests.support.neovim import FOUND, MISSING, PLUGIN, drive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.v1.generation_service_pb2 import GenerateResponse as Response
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl

pytestmark = pytest.mark.skipif(FOUND is None, reason=MISSING)


def says(daemon: FakeDaemon, *events: Response) -> None:
    """Let the daemon send these."""
    daemon.script.generate = lambda _request, _context: iter([started(), *events])


def goes_on(daemon: FakeDaemon, *events: Response) -> list[bool]:
    """Let the daemon send these and no end; whether it was cancelled is in the list then."""
    cancelled: list[bool] = []

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        yield from events
        cancelled.append(daemon.stream_ended.wait(20))

    daemon.script.generate = script
    return cancelled


def until(file: Path, daemon: FakeDaemon) -> None:
    """Wait until the editor has written a file, or is gone."""
    while not file.exists() and not daemon.stream_ended.wait(0.01):
        pass


def test_an_answer_comes_piece_by_piece_and_one_undo_takes_it_back(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Into the text at the cursor, while what follows it moves on."""
    says(daemon, delta("one "), delta("größer\ntwo"), delta("!"), finished())
    driven = drive(
        """
        set("before after", "last")
        vim.api.nvim_win_set_cursor(0, { 1, 6 })
        vim.cmd("GemdComplete")
        wait(idle)
        local written = lines()
        normal("u")
        return { written, lines(), virtual() }
        """,
        tmp_path,
        gemctl.environ,
    )
    (request,) = daemon.asked("Generate")
    assert request.text == "before "
    assert driven.result == [
        ["before one größer", "two!after", "last"],
        ["before after", "last"],
        "",
    ]


def test_a_line_may_come_in_pieces(gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path) -> None:
    """One that is longer than what a pipe holds does."""
    says(daemon, delta("long " * 100_000), finished())
    driven = drive('gemd.ask("Hi") wait(idle) return #lines()[3]', tmp_path, gemctl.environ)
    assert driven.result == 500_000


def test_what_was_typed_meanwhile_is_not_undone_with_it(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Three steps: the answer so far, the line of the user, the rest of the answer."""
    go_on = tmp_path / "go-on"

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        yield delta("one ")
        until(go_on, daemon)
        yield delta("two ")
        yield delta("three")
        yield finished()

    daemon.script.generate = script
    driven = drive(
        f"""
        set("x ", "typed: ")
        vim.api.nvim_win_set_cursor(0, {{ 1, 1 }})
        vim.cmd("GemdComplete")
        wait(function() return lines()[1] == "x one " end)
        vim.api.nvim_win_set_cursor(0, {{ 2, 6 }})
        normal("Amine")
        vim.fn.writefile({{}}, "{go_on}")
        wait(idle)
        local seen = {{ lines() }}
        for _ = 1, 3 do
          normal("u")
          table.insert(seen, lines())
        end
        return seen
        """,
        tmp_path,
        gemctl.environ,
    )
    assert driven.result == [
        ["x one two three", "typed: mine"],
        ["x one ", "typed: mine"],
        ["x one ", "typed: "],
        ["x ", "typed: "],
    ]


KEPT = [resolved("KEPT"), delta("Bonn,\nor"), delta(" so."), ended("KEPT")]
CONTINUED = [
    resolved("CONTINUED", kept="Bonn,"),
    delta("Bonn,"),
    delta("\nno."),
    ended("CONTINUED"),
]
REPLACED = [resolved("REPLACED"), delta("Berlin."), ended("REPLACED")]


@pytest.mark.parametrize(
    "verdict,rest,text",
    [
        (KEPT, " so.", ["Bonn,", "or so."]),
        (CONTINUED, "", ["Bonn,", "no."]),
        (REPLACED, "", ["Berlin."]),
    ],
    ids=["kept", "continued", "replaced"],
)
def test_a_draft_is_shown_and_never_part_of_the_buffer(
    gemctl: Gemctl,
    daemon: FakeDaemon,
    tmp_path: Path,
    verdict: list[Response],
    rest: str,
    text: list[str],
) -> None:
    """Below the line while it is checked; then what stays of it, until it is written."""
    checked, seen = tmp_path / "checked", tmp_path / "seen"

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        yield draft("Bonn,\nor ")
        yield draft("so.", last=True)
        until(checked, daemon)
        yield from verdict[:2]
        until(seen, daemon)
        yield from verdict[2:]

    daemon.script.generate = script
    driven = drive(
        f"""
        gemd.ask("Capital?")
        wait(function() return virtual() == "Bonn,\\nor so." end)
        local during = {{ lines(), gemd.status() }}
        vim.fn.writefile({{}}, "{checked}")
        wait(function() return gemd.status() == "gemd: writing" end)
        local rest = virtual()
        vim.fn.writefile({{}}, "{seen}")
        wait(idle)
        return {{ during, rest, lines(), virtual() }}
        """,
        tmp_path,
        gemctl.environ,
    )
    during = [["# Capital?", "", ""], "gemd: drafting"]
    assert driven.result == [during, rest, ["# Capital?", "", *text], ""]


def test_lines_stay_until_the_first_word_and_a_fence_goes(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The text of the lines is in the prompt; the answer is what stands in its fenced block."""
    go_on = tmp_path / "go-on"

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        until(go_on, daemon)
        yield delta("```lua\nlocal a")
        yield delta(" = 1\nreturn a\n```\n")
        yield finished()

    daemon.script.generate = script
    driven = drive(
        f"""
        set("first", "a=1", "return(a)", "last")
        vim.cmd("2,3GemdReplace tidy up")
        wait(function() return gemd.status() == "gemd: reading" end)
        local before = lines()
        vim.fn.writefile({{}}, "{go_on}")
        wait(idle)
        local after = lines()
        normal("u")
        return {{ before, after, lines() }}
        """,
        tmp_path,
        gemctl.environ,
    )
    (request,) = daemon.asked("Generate")
    (message,) = request.chat.messages
    assert "tidy up" in message.parts[0].text
    assert message.parts[0].text.rstrip().endswith("a=1\nreturn(a)")
    old = ["first", "a=1", "return(a)", "last"]
    assert driven.result == [old, ["first", "local a = 1", "return a", "last"], old]


def test_stop_cancels_the_call_and_keeps_what_was_written(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The daemon hears of it: the model is free for the next one."""
    cancelled = goes_on(daemon, delta("half"))
    driven = drive(
        """
        gemd.ask("Go on")
        wait(function() return lines()[3] == "half" end)
        vim.cmd("GemdStop")
        wait(idle)
        return lines()
        """,
        tmp_path,
        gemctl.environ,
    )
    assert driven.result[2] == "half"
    assert driven.told == ["gemd: cancelled"]
    daemon.stop()
    assert cancelled == [True]


def test_closing_the_buffer_cancels_too(gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path) -> None:
    """An answer that has no place left is not written on."""
    cancelled = goes_on(daemon, delta("half"), *[delta(".")] * 3)
    drive(
        """
        gemd.ask("Go on")
        wait(function() return lines()[3] == "half..." end)
        vim.cmd("bwipeout!")
        wait(idle)
        """,
        tmp_path,
        gemctl.environ,
    )
    daemon.stop()
    assert cancelled == [True]


def test_undoing_it_while_it_comes_cancels_it(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The lines are back, and the rest of the answer is not written between them."""
    go_on = tmp_path / "go-on"

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        yield delta("one ")
        until(go_on, daemon)
        yield from [delta("two ")] * 3
        daemon.stream_ended.wait(20)

    daemon.script.generate = script
    driven = drive(
        f"""
        set("first", "second", "third")
        vim.cmd("2GemdReplace shout")
        wait(function() return lines()[2] == "one " end)
        normal("u")
        vim.fn.writefile({{}}, "{go_on}")
        wait(idle)
        return lines()
        """,
        tmp_path,
        gemctl.environ,
    )
    assert driven.result == ["first", "second", "third"]
    assert driven.told == ["gemd: cancelled"]


def test_a_buffer_that_was_locked_meanwhile_ends_it(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Once, with the editor's reason, and not an error for each piece."""
    go_on = tmp_path / "go-on"

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        until(go_on, daemon)
        yield from [delta("two ")] * 3
        daemon.stream_ended.wait(20)

    daemon.script.generate = script
    driven = drive(
        f"""
        set("kept")
        vim.cmd("GemdReplace shout")
        wait(function() return gemd.status() == "gemd: reading" end)
        vim.bo.modifiable = false
        vim.fn.writefile({{}}, "{go_on}")
        wait(idle)
        return lines()
        """,
        tmp_path,
        gemctl.environ,
    )
    (told,) = driven.told
    assert driven.result == ["kept"]
    assert told.startswith("gemd: the answer cannot be written here\n  why: ")
    assert "modifiable" in told


def test_an_error_says_what_to_do(gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path) -> None:
    """The words of the daemon; lines that were to be replaced stay as they were."""

    def script(_request: object, context: grpc.ServicerContext) -> Iterator[Any]:
        abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "too many wait",
              why="16 of 16", advice=["gemctl status"])  # fmt: skip
        yield started()

    daemon.script.generate = script
    driven = drive(
        """
        set("kept")
        vim.cmd("GemdReplace shout")
        wait(idle)
        return lines()
        """,
        tmp_path,
        gemctl.environ,
    )
    assert driven.result == ["kept"]
    assert driven.told == ["gemd: too many wait\n  why: 16 of 16\n  try: gemctl status"]


@pytest.mark.parametrize(
    "script,words",
    [
        ('gemd.setup({ command = { "/nowhere/gemctl" } }) gemd.ask("Hi")', "is not on the PATH"),
        ('gemd.setup({ command = "/nowhere/gemctl" }) gemd.ask("Hi")', "is not on the PATH"),
        ('gemd.setup({ arguments = { "--nonsense" } }) gemd.ask("Hi") wait(idle)', "--nonsense"),
        ('vim.bo.modifiable = false vim.cmd("GemdComplete")', "cannot be changed"),
        ('vim.cmd("GemdComplete")', "no text before"),
    ],
)
def test_what_cannot_begin_says_why(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path, script: str, words: str
) -> None:
    """A program that is missing or refuses, a buffer that is not to be changed, no text."""
    (told,) = drive(script, tmp_path, gemctl.environ).told
    assert words in told
    assert daemon.asked("Generate") == []


@pytest.mark.parametrize("running", [True, False])
def test_checkhealth_tells_of_gemctl_and_the_daemon(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path, *, running: bool
) -> None:
    """Their versions and the socket, whether one runs or not."""
    if not running:
        daemon.stop()
    driven = drive(
        """
        vim.cmd("checkhealth gemd")
        return table.concat(lines(), "\\n")
        """,
        tmp_path,
        gemctl.environ,
    )
    assert "gemctl 0.1.0" in driven.result
    assert ("the daemon answers" if running else "no daemon runs") in driven.result
    assert "ERROR" not in driven.result


def test_the_help_has_every_command() -> None:
    """And its tags are found by `:help`."""
    commands = (PLUGIN / "plugin" / "gemd.lua").read_text(encoding="utf-8")
    names = [line.split('"')[1] for line in commands.splitlines() if line.startswith("command(")]
    help_page = (PLUGIN / "doc" / "gemd.txt").read_text(encoding="utf-8")
    assert names
    assert all(f"*:{name}*" in help_page for name in names)
