"""`gemctl` as a real process: piped, or on a pseudo-terminal."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import select
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from gemd.cli.app import invoke

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "gemd.cli"]
TIMEOUT_SECONDS = 60.0
_IN_CHARGE = (
    "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes its terminal the one whose Ctrl-C reaches it, and becomes another program."""


@dataclass(frozen=True)
class Gemctl:
    """Runs `gemctl` with one environment.

    Attributes:
        environ: Its whole environment.
        patience: Seconds after which a command has failed.
        interrupts: Whether a Ctrl-C that is typed on its terminal interrupts it.

    """

    environ: Mapping[str, str]
    patience: float = TIMEOUT_SECONDS
    interrupts: bool = False

    def __call__(
        self, *arguments: str, stdin: str | bytes | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end with pipes; without `stdin` it reads from /dev/null."""
        content = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*COMMAND, *arguments],
            env={**self.environ, **environ},
            cwd=REPOSITORY,
            input=content,
            stdin=subprocess.DEVNULL if content is None else None,
            capture_output=True,
            timeout=self.patience,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start it with pipes and return at once."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env={**self.environ, **environ},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_terminal(
        self,
        *arguments: str,
        react: Callable[[str, Callable[[str], None]], None] | None = None,
        **environ: str,
    ) -> tuple[int, str]:
        """Run on a pseudo-terminal; returns the exit code and all that appeared on it.

        Args:
            arguments: Of `gemctl`.
            react: Called with all output so far and a function that types, after each piece.
            environ: Additions to the environment.

        """
        ours, theirs = pty.openpty()
        prefix = [sys.executable, "-c", _IN_CHARGE] if self.interrupts else []
        process = subprocess.Popen(
            [*prefix, *COMMAND, *arguments],
            env={**self.environ, "TERM": "xterm", **environ},
            cwd=REPOSITORY,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        seen = ""
        try:
            for piece in _pieces(ours):
                seen += piece
                if react is not None:
                    react(seen, lambda text: _type(ours, text))
            return process.wait(TIMEOUT_SECONDS), seen.replace("\r\n", "\n")
        finally:
            process.kill()
            process.wait()
            os.close(ours)


@dataclass(frozen=True)
class Inside:
    """Runs `gemctl` in this process: quicker, and all the same but for the streams."""

    environ: Mapping[str, str]

    def on_terminal(self, *arguments: str, **environ: str) -> tuple[int, str]:
        """Run on a pseudo-terminal, on which nobody types; as `Gemctl.on_terminal`."""
        ours, theirs = pty.openpty()
        with ThreadPoolExecutor(1) as reader:
            try:
                seen = reader.submit(lambda: "".join(_pieces(ours)))
                with (
                    os.fdopen(theirs, "w", encoding="utf-8", buffering=1) as stream,
                    os.fdopen(theirs, encoding="utf-8", closefd=False) as typed,
                    contextlib.redirect_stdout(stream),
                    contextlib.redirect_stderr(stream),
                    mock.patch("sys.stdin", typed),
                ):
                    code = invoke(arguments, {**self.environ, "TERM": "xterm", **environ})
                return code, seen.result().replace("\r\n", "\n")
            finally:
                os.close(ours)

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run to the end; standard input is none of this process's business."""
        stdout, stderr = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            mock.patch("sys.stdin", None),
        ):
            code = invoke(arguments, {**self.environ, **environ})
        return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def _type(terminal: int, text: str) -> None:
    os.write(terminal, text.encode())


def _pieces(terminal: int) -> Iterator[str]:
    """What appears on the terminal, until every process has let go of it."""
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while select.select([terminal], [], [], max(give_up - time.monotonic(), 0))[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            return
        if not piece:
            return
        yield piece.decode(errors="replace")
    raise TimeoutError("gemctl did not end")
