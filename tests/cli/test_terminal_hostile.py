"""Hostile answers in a real terminal (tmux): its title, clipboard, modes and lines stay whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemon_says import canvas, delta, finished, started
from tests.support.filled import FilledDaemon
from tests.support.hostile import HIDDEN, HOSTILE, SEQUENCES, SHOWN, TITLE
from tests.support.tmux import Terminal, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl

AFTER = "and this is plain, and whole."


def state(shown: Terminal) -> tuple[str, str, str, str]:
    """Title, clipboard, screen modes and the mouse's, as tmux knows them."""
    modes = "#{alternate_on} #{cursor_flag} #{wrap_flag} #{insert_flag} #{keypad_flag}"
    return (
        shown._ask("display-message", "-p", "#{pane_title}"),
        shown._ask("list-buffers", "-F", "#{buffer_sample}"),
        shown._ask("display-message", "-p", modes),
        shown._ask("display-message", "-p", "#{mouse_any_flag} #{pane_key_mode}"),
    )


def open_to_all(shown: Terminal) -> None:
    """Have the terminal do whatever a program asks it to."""
    for option in ("set-clipboard", "allow-passthrough", "allow-rename"):
        shown._ask("set-option", "-g", option, "on")


def says(daemon: FakeDaemon, *events: Any) -> None:
    """The daemon answers so, then with something plain."""
    daemon.script.generate = lambda _request, _context: iter(
        [started(), *events, delta(f"\n{AFTER}"), finished()]
    )


def test_the_terminal_of_this_test_would_do_it(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Else nothing below would say anything: raw, the same bytes set title and clipboard."""
    raw = tmp_path / "raw"
    raw.write_bytes("".join(SEQUENCES[:2]).encode())
    with terminal(gemctl.environ, "run") as shown:
        open_to_all(shown)
        shown.until(">>>")
        before = state(shown)
        shown._ask("respawn-pane", "-k", "sh", "-c", f"cat {raw}; echo there; exec cat")
        shown.until("there")
        after = state(shown)
    assert TITLE in after[0]
    assert TITLE not in before[0]
    assert after[1].strip() == "owned"


@pytest.mark.parametrize("pieces", [[HOSTILE], list(HOSTILE)], ids=["whole", "cut"])
def test_an_answer_changes_nothing_but_its_lines(
    gemctl: Gemctl, daemon: FakeDaemon, pieces: list[str]
) -> None:
    """In one delta, and with each character in its own."""
    says(daemon, *map(delta, pieces))
    with terminal(gemctl.environ, "run", "Hi", columns=200) as shown:
        open_to_all(shown)
        before = state(shown)
        assert shown.ended() == 0
        assert state(shown) == before
        seen = shown.screen()
    assert seen.startswith(SHOWN)
    assert f"\n{AFTER}\n" in seen
    assert not set(HIDDEN) & set(seen)


def test_nor_does_a_conversation(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """The next prompt stands where it should, and what is typed there is shown as before."""
    says(daemon, *map(delta, HOSTILE))
    with terminal(gemctl.environ, "run", columns=200) as shown:
        open_to_all(shown)
        shown.until(">>>")
        before = state(shown)
        shown.type("Hi")
        shown.press("Enter")
        shown.until(lambda seen: seen.endswith(f"{AFTER}\n>>>"))
        assert state(shown) == before
        shown.type("x")
        shown.until(lambda seen: seen.endswith(f"{AFTER}\n>>> x"))
        shown.press("C-c", "C-d")
        assert shown.ended() == 0
        # A terminal that was asked something has answered into what is typed next.
        assert shown.screen().rstrip().splitlines()[-2].rstrip() == ">>>"


def test_nor_does_text_that_is_pasted(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Marks that reorder or hide are seen before the text is sent; what is sent has them."""
    with terminal(gemctl.environ, "run") as shown:
        shown.until(">>>")
        title = state(shown)[0]
        shown.paste("ab\u202ecd\u200be\x1b]0;owned\x07f")
        shown.until(lambda seen: ">>> ab�cd�e^[]0;owned^Gf" in seen)
        assert state(shown)[0] == title
        shown.press("Enter")
        shown.until("Paris")
    (asked,) = daemon.asked("Generate")
    assert asked.chat.messages[0].parts[0].text == "ab\u202ecd\u200be\x1b]0;owned\x07f"


def test_nor_does_a_canvas(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Each of its pictures is taken away whole, and the answer stands in its place."""
    text = HOSTILE.replace("\r", "")
    pictures = [canvas(text[:n], step=n) for n in (5, 20, len(text))]
    says(daemon, *pictures, delta("So:"))
    with terminal(gemctl.environ, "run", "Hi", "--watch-canvas") as shown:
        open_to_all(shown)
        before = state(shown)
        assert shown.ended() == 0
        assert state(shown) == before
        assert shown.screen().splitlines()[:2] == ["So:", AFTER]


@pytest.fixture
def hostile(socket: Path) -> Iterator[FilledDaemon]:
    """A daemon all of whose texts are hostile."""
    with FilledDaemon(socket, text=HOSTILE) as running:
        yield running


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("arguments", [["top"], ["status", "--watch"]], ids=" ".join)
def test_nor_do_live_screens(
    gemctl: Gemctl, hostile: FilledDaemon, arguments: list[str], columns: int
) -> None:
    """No row wraps into the next one, and the terminal is as it was at the end."""
    with terminal(gemctl.environ, *arguments, columns=columns) as shown:
        open_to_all(shown)
        before = state(shown)[:2]
        seen = shown.until(lambda text: text.count(SHOWN) > 3)
        assert seen.startswith(f"gemd {SHOWN}")
        assert state(shown)[:2] == before
        shown.press("C-c")
        shown.ended()
        assert shown.modes() == "0 1 1"
        assert state(shown)[:2] == before
