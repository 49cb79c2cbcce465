from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.failures import Exit
from gemd.cli.top import fit
from tests.support.daemon_says import decision

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

LINES = st.integers(0, 40)


@given(LINES, LINES, st.integers(1, 60))
def test_a_screen_is_just_full(above: int, below: int, rows: int) -> None:
    """The first line of the state and the last decision are always on it, if it has two lines."""
    state, latest = [f"s{n}" for n in range(above)], [f"d{n}" for n in range(below)]
    lines = fit(state, latest, rows)
    assert len(lines) == rows
    assert [line for line in lines if line[:1] == "s"] == state[: sum(x[:1] == "s" for x in lines)]
    shown = [line for line in lines if line[:1] == "d"]
    assert shown == latest[below - len(shown) :]
    if above and below and rows > 4:
        assert (lines[0], lines[-1]) == ("s0", latest[-1])
    if above and above + below < rows:
        assert (lines.count(""), len(shown)) == (rows - above - below, below)


@pytest.mark.parametrize(
    "rows,shown",
    [
        (8, ["s0", "s1", "s2", "", "d1", "d2", "d3", "d4"]),
        (6, ["s0", "s1", "", "d2", "d3", "d4"]),
        (4, ["s0", "", "d3", "d4"]),
        (2, ["s0", "s1"]),
    ],
)
def test_old_decisions_go_before_the_state_does(rows: int, shown: list[str]) -> None:
    """A few stay."""
    assert fit(["s0", "s1", "s2"], [f"d{n}" for n in range(5)], rows) == shown


def test_top_is_one_screen(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """It is drawn over and over until q is pressed, and what stood there before comes back."""
    daemon.script.decisions = [decision(2), decision(1, confirmed=False)]

    pressed: list[str] = []

    def end(seen: str, press: Callable[[str], None]) -> None:
        if seen.count("gemd 0.1.0") == 3 and not pressed:
            pressed.append("q")
            press("q")

    code, seen = gemctl.on_terminal("top", "--interval", "0.01", react=end, TZ="UTC0")
    assert code == 0
    assert seen.startswith("\x1b[?1049h\x1b[?7l\x1b[?25l\x1b[H\x1b[Kgemd 0.1.0")
    first = seen.split("\x1b[H")[1].replace("\x1b[K", "").replace("\x1b[J", "")
    assert "DEVICE  CAPACITY" in first
    assert "cpu     64.0 GiB" in first
    assert first.splitlines()[-2:] == [
        "1971-01-01 00:00:00  unload m for n: it frees 1.0 GiB (nobody used it for 30 s)",
        "1971-01-01 00:00:00  unload m for n: it frees 1.0 GiB; took 350 ms",
    ]
    assert seen.endswith("\x1b[?25h\x1b[?7h\x1b[?1049l")


def test_without_a_daemon_the_screen_is_not_taken(gemctl: Gemctl) -> None:
    """What is wrong stands where it can be read."""
    code, seen = gemctl.on_terminal("top")
    assert code == Exit.UNREACHABLE
    assert "\x1b[?1049h" not in seen
    assert "gemd is not running" in seen


@pytest.mark.parametrize("environ", [{}, {"TERM": "dumb"}])
def test_top_needs_a_terminal(environ: dict[str, str], inside: Inside, daemon: FakeDaemon) -> None:
    """What does without one is named."""
    done = inside("top", **environ)
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "gemctl status --watch" in done.stderr
