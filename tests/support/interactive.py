"""Shells as a person has them: on a terminal, with the line that is typed still unfinished."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.tmux import SECONDS, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
    "fish": ("fish", "--no-config", "-i"),
}
"""Each without anything of a user's."""
PROMPT: Final = "=> "
_PROMPTS: Final[Mapping[str, str]] = {
    "bash": f"PS1='{PROMPT}' PS2='more '",
    "zsh": f"PS1='{PROMPT}' PS2='more '; unsetopt zle_bracketed_paste; setopt no_beep",
    "fish": (
        f"function fish_prompt; printf '{PROMPT}'; end; function fish_right_prompt; end; "
        "set -g fish_greeting; set -g fish_autosuggestion_enabled 0"
    ),
}
_MARK: Final = "#"
"""Typed behind what is completed: once it stands there, the shell has done with the Tab."""


@dataclass(frozen=True)
class Shell:
    """A shell that waits for a line.

    Attributes:
        name: A key of `STARTS`.
        shown: Its terminal.

    """

    name: str
    shown: Terminal
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def run(self, line: str) -> None:
        """Have it carry out a line, and wait for the next prompt."""
        said = f"done {next(self._numbers)}"
        self.shown.type(f"clear; {line}; echo {said}")
        self.shown.press("Enter")
        self.shown.until(lambda seen: said in seen.splitlines() and seen.endswith(PROMPT.rstrip()))

    def complete(self, line: str, *, tabs: int = 1) -> str:
        """What a line has become after Tab; the line is thrown away.

        Args:
            line: What is typed.
            tabs: How many times Tab is pressed; the second one shows what is possible.

        """
        self.shown.type(line)
        for _ in range(tabs):
            self.shown.press("Tab")
        self.shown.type(_MARK)
        seen = self.shown.until(lambda text: PROMPT in text and _last(text).endswith(_MARK))
        self.shown.press("C-a", "C-k")
        self.shown.until(lambda text: not _last(text))
        return _last(seen).removesuffix(_MARK)

    def listed(self, line: str) -> str:
        """All that stands on the terminal after Tab was pressed as often as it takes to be shown.

        fish takes the second one for a choice.
        """
        self.run("true")
        if self.name == "fish":
            self.run(f'complete --do-complete "{line}"')
            return self.shown.screen()
        self.shown.type(line)
        self.shown.press("Tab")
        self.shown.press("Tab")
        self.shown.type(_MARK)
        seen = self.shown.until(lambda text: PROMPT in text and _MARK in text)
        self.shown.press("C-a", "C-k")
        return seen


def _last(screen: str) -> str:
    """The line that is being typed, without the prompt."""
    return screen.rpartition(PROMPT.rstrip())[2].removeprefix(" ").replace("\n", "")


def needs(shell: str) -> None:
    """Skip the test where there is no such shell."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")


@contextlib.contextmanager
def interactive(shell: str, environ: Mapping[str, str], folder: Path) -> Iterator[Shell]:
    """A shell in a terminal of 200 columns; skips the test where there is no tmux or no shell.

    Args:
        shell: A key of `STARTS`.
        environ: All its variables, but for TERM.
        folder: Where it is.

    """
    needs(shell)
    needs("tmux")
    with tempfile.TemporaryDirectory(prefix="gemd-") as directory:
        socket = Path(directory) / "tmux"
        variables = [f"{key}={value}" for key, value in environ.items()]
        subprocess.run(
            [
                *("tmux", "-S", str(socket), "-f", "/dev/null", "new-session", "-d"),
                *("-x", "200", "-y", "50"),
                *("env", "-i", "TERM=screen", *variables, *STARTS[shell]),
            ],
            check=True,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": directory},
            timeout=SECONDS,
        )
        try:
            made = Shell(shell, Terminal(socket))
            made.shown.until(lambda seen: bool(seen.strip()))
            made.shown.type(_PROMPTS[shell])
            made.shown.press("Enter")
            made.shown.until(lambda seen: seen.endswith(PROMPT.rstrip()))
            yield made
        finally:
            subprocess.run(
                ["tmux", "-S", str(socket), "kill-server"], check=False, capture_output=True
            )
