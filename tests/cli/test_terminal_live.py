"""`top` and `status --watch` in a real terminal (tmux): sizes, ends, restarts, hostile names."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from tests.support.daemon_says import decision, model
from tests.support.fake_daemon import FakeDaemon
from tests.support.tmux import terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.gemctl import Gemctl

COMMANDS = pytest.mark.parametrize("command", [("top",), ("status", "--watch")], ids=" ".join)


@COMMANDS
@pytest.mark.parametrize("columns,marks", [(80, 32), (200, 96)])
def test_the_picture_fits_the_terminal(
    gemctl: Gemctl, daemon: FakeDaemon, command: tuple[str, ...], columns: int, marks: int
) -> None:
    """One row for a line; the bars of memory are as long as there is room for."""
    daemon.script.decisions = [decision(2)]
    daemon.script.models = {"m": model("m" * 100)}
    with terminal(gemctl.environ, *command, columns=columns) as shown:
        seen = shown.until("SensorBlind")
        lines = seen.splitlines()
        assert lines[0].startswith("gemd 0.1.0  serving")
        (bar,) = [line for line in lines if line.strip().startswith("[#")]
        assert bar.index("]") - bar.index("[") - 1 == marks
        (row,) = [line for line in lines if line.startswith("mmm")]
        assert row.startswith(("m" * 100 + "  on_disk  Q4_1")[:columns])
        assert len(row) <= columns


@COMMANDS
def test_it_follows_the_size_of_the_terminal(
    gemctl: Gemctl, daemon: FakeDaemon, command: tuple[str, ...]
) -> None:
    """Smaller and larger: nothing of the former picture is left, nothing scrolls away."""
    with terminal(gemctl.environ, *command, "--interval", "0.05", columns=100, rows=30) as shown:
        shown.until("SensorBlind")
        shown.resize(60, 6)
        shown.until(lambda text: "SensorBlind" not in text and text.startswith("gemd 0.1.0"))
        shown.resize(120, 40)
        seen = shown.until("SensorBlind")
        assert seen.count("gemd 0.1.0") == seen.count("DEVICE") == seen.count("SensorBlind") == 1


@COMMANDS
@pytest.mark.parametrize("end", ["C-c", "TERM", "HUP"])
def test_the_terminal_is_as_it_was_at_the_end(
    gemctl: Gemctl, daemon: FakeDaemon, command: tuple[str, ...], end: str
) -> None:
    """Its first page, the cursor, wrapping, and keys that are echoed."""
    with terminal(gemctl.environ, *command) as shown:
        shown.until("SensorBlind")
        if end == "C-c":
            shown.press(end)
        else:
            os.kill(shown.pid(), getattr(signal, f"SIG{end}"))
        expected = Exit.INTERRUPTED if end == "C-c" else 128 + getattr(signal, f"SIG{end}")
        assert shown.ended() == expected
        assert shown.modes() == "0 1 1"
        shown.type("echoed")
        shown.press("Enter")
        shown.until(lambda text: text.count("echoed") == 2)


@COMMANDS
def test_a_daemon_that_is_started_again_is_shown(
    gemctl: Gemctl, socket: Path, command: tuple[str, ...]
) -> None:
    """Until then it says since when nobody answers."""
    with (
        FakeDaemon(socket) as first,
        terminal(gemctl.environ, *command, "--interval", "0.05") as shown,
    ):
        shown.until("SensorBlind")
        first.stop()
        shown.until("gemd does not answer for")
        with FakeDaemon(socket) as second:
            second.script.models = {"n": model("another")}
            seen = shown.until("another")
        assert seen.startswith("gemd 0.1.0")


@COMMANDS
def test_keys_do_not_appear_on_the_picture(
    gemctl: Gemctl, daemon: FakeDaemon, command: tuple[str, ...]
) -> None:
    """Nor does Ctrl-Z leave a shell on a page that is not its own."""
    with terminal(gemctl.environ, *command, "--interval", "0.05") as shown:
        shown.until("SensorBlind")
        shown.type("xyzzy")
        shown.press("Enter", "C-z")
        daemon.script.models = {"n": model("another")}
        assert "xyzzy" not in shown.until("another")


@COMMANDS
def test_names_cannot_steer_the_terminal(
    gemctl: Gemctl, daemon: FakeDaemon, command: tuple[str, ...]
) -> None:
    """Whatever a daemon says of models and decisions is shown and not done, on one row each."""
    hostile = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202efdp"
    daemon.script.models = {"m": model(hostile)}
    daemon.script.decisions = [decision(1)]
    daemon.script.decisions[0].summary = f"load {hostile}\nand more"
    with terminal(gemctl.environ, *command, columns=120) as shown:
        seen = shown.until("SensorBlind")
        neutral = "␛[2J␛]0;owned␇<9b>31m␍<202e>fdp"
        assert f"\n{neutral}  on_disk" in seen
        if command == ("top",):
            assert f"load {neutral.replace('␍', ' ')} and more" in seen
        assert seen.startswith("gemd 0.1.0")


def test_colours_are_those_of_any_background(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Only bold, dim and the usual foreground: nothing that a light or dark page would hide."""
    with terminal(gemctl.environ, "status", "--watch") as shown:
        shown.until("SensorBlind")
        styled = shown.screen(styled=True)
        codes = {part for each in _sequences(styled) for part in each.split(";")}
        assert {"1", "2"} <= codes <= {"", "0", "1", "2", "39", "49"}
    with terminal(gemctl.environ, "status", "--watch", NO_COLOR="1") as shown:
        shown.until("SensorBlind")
        assert _sequences(shown.screen(styled=True)) == []


def _sequences(styled: str) -> list[str]:
    return [part.partition("m")[0] for part in styled.split("\x1b[")[1:]]
