"""What a batch has done: results in the order of the jobs, and a journal of those ahead of it.

Each result is a line of JSON with the key of its job. A line goes to the results as soon as all
lines before it are there, and to the journal beside them until then. Both are written through
at once, so that a killed process loses nothing that it had, and synced to the disk every second.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

from gemd.cli.failures import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from gemd.cli.batch.jobs import Job

_SYNC_SECONDS = 1.0
_BEGINNING = b'{"id": '
"""How every line of ours begins; what is cut off otherwise is not ours to drop."""


class Results(Protocol):
    """Where results go."""

    def open(self) -> list[int]:
        """Indices of the jobs that have no result yet, in ascending order."""

    @property
    def failed(self) -> int:
        """How many results are errors."""

    def add(self, index: int, result: dict[str, Any]) -> None:
        """The result of a job."""


class Printed:
    """Results on standard output: in order, and nothing is kept for later.

    Args:
        jobs: How many there are.
        write: Takes a result.

    """

    def __init__(self, jobs: int, write: Callable[[dict[str, Any]], None]) -> None:
        self._jobs = jobs
        self._write = write
        self._ahead: dict[int, dict[str, Any]] = {}
        self._next = 0
        self.failed = 0

    def open(self) -> list[int]:
        """All of them: there is nothing from before."""
        return list(range(self._jobs))

    def add(self, index: int, result: dict[str, Any]) -> None:
        """The result of a job."""
        self.failed += "error" in result
        self._ahead[index] = result
        while self._next in self._ahead:
            self._write(self._ahead.pop(self._next))
            self._next += 1


class Kept:
    """Results in a file, with a journal beside it; `kept_in` opens them.

    Args:
        jobs: Those of the batch.
        results: The file of results.
        journal: The file of results that are ahead of it.

    """

    def __init__(self, jobs: Sequence[Job], results: _Lines, journal: _Lines) -> None:
        self._jobs = jobs
        self._results = results
        self._journal = journal
        self._ahead: dict[int, dict[str, Any]] = {}
        self._next = 0
        self.failed = 0

    def take_up(self, done: Sequence[dict[str, Any]], *, retry_failed: bool) -> None:
        """Go on where an earlier run has ended.

        Args:
            done: The lines of the results, which are those of the first jobs.
            retry_failed: Errors are no results.

        Raises:
            CommandError: The journal is none.

        """
        index_of = {job.key: index for index, job in enumerate(self._jobs)}
        # A job of the journal that has changed since is run again: nobody has seen its result.
        ahead = {
            index_of[line["job"]]: line for line in self._journal.read() if line["job"] in index_of
        }
        self._next = len(done)
        if retry_failed:
            ahead = {index: line for index, line in ahead.items() if "error" not in line}
            first = next((at for at, line in enumerate(done) if "error" in line), len(done))
            kept = {at: done[at] for at in range(first, len(done)) if "error" not in done[at]}
            for line in kept.values():
                self._journal.append(line)
            # Only now: what is cut off is in the journal.
            self._journal.sync()
            self._results.cut(first)
            self._next = first
            ahead |= kept
        self.failed = sum("error" in line for line in done[: self._next])
        self._ahead = {index: line for index, line in ahead.items() if index >= self._next}
        self.failed += sum("error" in line for line in self._ahead.values())
        self._hand_over()

    def open(self) -> list[int]:
        """Indices of the jobs that have no result yet, in ascending order."""
        return [at for at in range(self._next, len(self._jobs)) if at not in self._ahead]

    def add(self, index: int, result: dict[str, Any]) -> None:
        """The result of a job; it is written when this returns."""
        self.failed += "error" in result
        self._ahead[index] = result
        if index != self._next:
            self._journal.append(result)
        self._hand_over()

    def end(self) -> None:
        """Sync both files; a journal with nothing that the results lack goes away."""
        self._results.sync()
        if self._ahead:
            self._journal.sync()
        else:
            self._journal.remove()

    def _hand_over(self) -> None:
        while self._next in self._ahead:
            self._results.append(self._ahead.pop(self._next))
            self._next += 1


def check_same(done: Sequence[dict[str, Any]], jobs: Sequence[Job], path: Path) -> None:
    """See that results are those of the first jobs.

    Raises:
        CommandError: They are not: nothing is answered again that stands in the file already.

    """
    if len(done) > len(jobs):
        raise _other_jobs(path, f"it has {len(done)} results for {len(jobs)} jobs")
    for number, (line, job) in enumerate(zip(done, jobs, strict=False), 1):
        if line["job"] == job.key:
            continue
        changed = f"the job of line {job.line} is not the one that result {number} is of"
        raise _other_jobs(path, changed)


def _other_jobs(path: Path, why: str) -> CommandError:
    return CommandError(
        f"{path} has results of other jobs, or the jobs have changed since",
        Exit.PRECONDITION,
        why=why,
        advice=("gemctl batch … -o another file", f"rm {path}"),
    )


@contextmanager
def kept_in(jobs: Sequence[Job], path: Path, *, retry_failed: bool) -> Iterator[Kept]:
    """Results in a file, from where an earlier run left off.

    Args:
        jobs: Those of the batch.
        path: The file; it is made if it does not exist.
        retry_failed: Jobs that ended in an error run again.

    Raises:
        CommandError: The file cannot be used, is not ours, or another process writes to it.

    """
    journal = path.with_name(path.name + ".journal")
    with _Lines(path) as results:
        done = results.read()
        check_same(done, jobs, path)
        # Only now: beside a file of somebody else no journal is made.
        with _Lines(journal) as ahead:
            made = Kept(jobs, results, ahead)
            made.take_up(done, retry_failed=retry_failed)
            try:
                yield made
            finally:
                made.end()


class _Lines:
    """A file of results, which only this process writes to.

    Args:
        path: The file; made when it is entered.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._ends: list[int] = []
        self._synced_at = time.monotonic()
        self._dirty = False

    def __enter__(self) -> Self:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with _usable(self.path):
            self._file = os.open(self.path, flags, 0o666)
        try:
            self._lock()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def read(self) -> list[dict[str, Any]]:
        """All complete lines; one that a killed process left unfinished is cut off.

        Raises:
            CommandError: They are no results of a batch.

        """
        with _usable(self.path):
            content = self.path.read_bytes()
        *lines, rest = content.split(b"\n")
        if not (rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest)):
            raise self._foreign(len(lines) + 1)
        found = [self._result(number, line) for number, line in enumerate(lines, 1)]
        end = 0
        for line in lines:
            end += len(line) + 1
            self._ends.append(end)
        if rest:
            os.ftruncate(self._file, end)
        return found

    def append(self, result: dict[str, Any]) -> None:
        """Write a line, and sync if the last time is long ago."""
        line = json.dumps(result, ensure_ascii=False).encode() + b"\n"
        self._dirty = True
        with _usable(self.path):
            while line:
                line = line[os.write(self._file, line) :]
        if time.monotonic() - self._synced_at >= _SYNC_SECONDS:
            self.sync()

    def cut(self, count: int) -> None:
        """Keep only so many of the lines that were read."""
        os.ftruncate(self._file, self._ends[count - 1] if count else 0)
        self._dirty = True

    def sync(self) -> None:
        """See all of it on the disk."""
        if self._dirty:
            with _usable(self.path):
                os.fsync(self._file)
        self._dirty = False
        self._synced_at = time.monotonic()

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise CommandError(
                f"{self.path} is no file that results can be kept in",
                Exit.USAGE,
                why="a device or a pipe cannot be gone on with",
                advice=(f"gemctl batch … > {self.path}",),
            )
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"another gemctl batch writes to {self.path}", Exit.PRECONDITION
            ) from None

    def _result(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            result = json.loads(line)
        except ValueError:
            raise self._foreign(number) from None
        if not (line.startswith(_BEGINNING) and isinstance(result.get("job"), str)):
            raise self._foreign(number)
        return dict(result)

    def _foreign(self, number: int) -> CommandError:
        return CommandError(
            f"{self.path} is no file of results",
            Exit.PRECONDITION,
            why=f"its line {number} is not what gemctl batch writes",
            advice=("gemctl batch … -o another file",),
        )


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Turns a file that cannot be read or written into an error that names it."""
    try:
        yield
    except OSError as error:
        raise CommandError(
            f"{path} cannot be used", Exit.FAILURE, why=error.strerror or str(error)
        ) from None
