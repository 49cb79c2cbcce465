"""Running the programs of the service managers."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.cli.failures import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LONGEST_S: Final = 120.0
"""More than a start or a stop may take by the units' own limits."""


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """What it complained of, in one line."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return "; ".join(line.strip() for line in lines if line.strip())


@dataclass(frozen=True, slots=True)
class Programs:
    """Runs programs of the user's PATH.

    Attributes:
        environ: Their environment.
        missing: What to say and try where one is not there.
        patience_s: How long one that runs to its end may take.

    """

    environ: Mapping[str, str]
    missing: tuple[str, tuple[str, ...]]
    patience_s: float = LONGEST_S

    def run(self, *command: str) -> Done:
        """Run one to its end.

        Raises:
            CommandError: It is not there, cannot be run, or does not end.

        """
        try:
            done = subprocess.run(
                self._found(command),
                env=self._quiet(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.patience_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandError(
                f"`{' '.join(command)}` has not ended after {self.patience_s:.0f} s", Exit.FAILURE
            ) from None
        except OSError as error:
            raise _not_run(command, error) from None
        return Done(done.returncode, done.stdout, done.stderr)

    def lines(self, *command: str) -> Iterator[str]:
        """What one writes, line by line, to its end.

        Raises:
            CommandError: It is not there, cannot be run, or fails.

        """
        try:
            process = subprocess.Popen(
                self._found(command),
                env=self._quiet(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise _not_run(command, error) from None
        assert process.stdout is not None
        try:
            with process.stdout as written:
                for line in written:
                    yield line.rstrip("\n")
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if code:
            raise CommandError(f"`{command[0]}` ended with {code}", Exit.FAILURE)

    def _found(self, command: Sequence[str]) -> list[str]:
        path = shutil.which(command[0], path=self.environ.get("PATH", ""))
        if path is None:
            why, advice = self.missing
            message = f"there is no {command[0]} on the PATH"
            raise CommandError(message, Exit.PRECONDITION, why=why, advice=advice)
        return [path, *command[1:]]

    def _quiet(self) -> dict[str, str]:
        return {**self.environ, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}


def _not_run(command: Sequence[str], error: OSError) -> CommandError:
    """As a script whose interpreter is gone."""
    return CommandError(
        f"`{command[0]}` cannot be run", Exit.FAILURE, why=error.strerror or str(error)
    )


def number(text: str) -> int:
    """A number that a program wrote; 0 if it is none."""
    return int(text) if text.isascii() and text.isdigit() else 0
