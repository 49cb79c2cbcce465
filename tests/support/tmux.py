"""A real terminal emulator without a screen: programs run in it, and what stands there is read."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.desktop import wait_until
from tests.support.gemctl import COMMAND, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SECONDS = 60.0
"""How long something may take to appear: the machine may be busy."""
ENDED = "ended with"
"""What the terminal says after the program, before its exit code."""


@dataclass(frozen=True)
class Terminal:
    """One window with a program in it.

    Attributes:
        socket: Of its own tmux server.

    """

    socket: Path

    def screen(self, *, styled: bool = False) -> str:
        """What stands on it, without blanks at the ends of lines and empty lines at the end.

        Args:
            styled: Whether with the sequences that colour it.

        """
        return self._ask("capture-pane", "-p", *(["-e"] if styled else [])).rstrip("\n")

    def until(self, appears: str | Callable[[str], bool]) -> str:
        """The screen once a text, or what is asked for, is on it."""
        seen = ""

        def there() -> bool:
            nonlocal seen
            seen = self.screen()
            return appears in seen if isinstance(appears, str) else appears(seen)

        try:
            wait_until(there, seconds=SECONDS, what=f"{appears!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen is:\n{seen}") from None
        return seen

    def type(self, text: str) -> None:
        """Type a text as it is."""
        self._ask("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by their names, such as `Enter`, `C-c` and `M-Enter`."""
        self._ask("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Paste a text, which a program may ask to have marked as such."""
        self._ask("set-buffer", text)
        self._ask("paste-buffer", "-p")

    def resize(self, columns: int, rows: int) -> None:
        """Make it another size."""
        self._ask("resize-window", "-x", str(columns), "-y", str(rows))

    def pid(self) -> int:
        """Of the program, which is the child of the shell in the window."""
        shell = self._ask("display-message", "-p", "#{pane_pid}").strip()
        children = Path(f"/proc/{shell}/task/{shell}/children")
        wait_until(lambda: bool(children.read_text().split()), what="the program's start")
        return int(children.read_text().split()[0])

    def modes(self) -> str:
        """Other page, cursor and wrapping: `0 1 1` as a shell expects them."""
        return self._ask("display-message", "-p", "#{alternate_on} #{cursor_flag} #{wrap_flag}")[
            :-1
        ]

    def ended(self) -> int:
        """The exit code of the program, once it has ended."""
        seen = self.until(lambda text: f"\n{ENDED} " in f"\n{text}" and text.endswith("."))
        return int(seen.rpartition(f"{ENDED} ")[2].rstrip("."))

    def _ask(self, *command: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(self.socket), *command],
            check=True,
            capture_output=True,
            timeout=SECONDS,
        ).stdout.decode()


@contextlib.contextmanager
def terminal(
    environ: Mapping[str, str],
    *arguments: str,
    columns: int = 80,
    rows: int = 24,
    **extra: str,
) -> Iterator[Terminal]:
    """`gemctl` in a terminal of that size; skips the test where there is no tmux.

    Args:
        environ: Of the program; tmux says what TERM is, unless `extra` does.
        arguments: Of `gemctl`.
        columns: Width.
        rows: Height.
        extra: Additions to the environment.

    """
    if shutil.which("tmux") is None or not Path("/proc/self").is_dir():
        pytest.skip("no tmux here, or no /proc to find its programs with")
    with tempfile.TemporaryDirectory(prefix="gemd-") as directory:
        socket = Path(directory) / "tmux"
        inside = {"TERM": "screen-256color", **environ, **extra}
        variables = [f"{key}={value}" for key, value in inside.items()]
        # The shell stays to say how it ended, and to keep the screen; a Ctrl-C is not for it.
        script = f'trap : INT; "$@"; echo "{ENDED} $?."; exec cat'
        command = ["env", "-i", *variables, "sh", "-c", script, "sh", *COMMAND, *arguments]
        subprocess.run(
            [
                *("tmux", "-S", str(socket), "-f", "/dev/null", "new-session", "-d"),
                *("-x", str(columns), "-y", str(rows), *command),
            ],
            check=True,
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": directory},
            timeout=SECONDS,
        )
        try:
            yield Terminal(socket)
        finally:
            subprocess.run(
                ["tmux", "-S", str(socket), "kill-server"], check=False, capture_output=True
            )
