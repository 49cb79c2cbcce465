"""The command itself: from a file of jobs to a file of results."""

from __future__ import annotations

import asyncio
import shlex
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gemd import __version__
from gemd.cli import offers
from gemd.cli.batch.jobs import read_jobs
from gemd.cli.batch.order import groups
from gemd.cli.batch.results import Printed, kept_in
from gemd.cli.batch.running import SILENCE_SECONDS, BatchStoppedError, Runner
from gemd.cli.failures import CommandError, Exit
from gemd.cli.progress import Progress
from gemd.cli.prompt import read_text
from gemd.cli.run import MODES
from gemd.cli.session import Session, pass_session
from gemd.cli.text import format_seconds
from gemd.cli.values import whole_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from gemd.cli.batch.jobs import Job
    from gemd.cli.batch.results import Results
    from gemd.cli.output import Output
    from gemd.client import Client

_MOST_AT_ONCE = 256


@click.command()
@click.argument("file", metavar="FILE", shell_complete=offers.files)
@click.option(
    "--out",
    "-o",
    metavar="OUT",
    shell_complete=offers.files,
    help="Where results go, and where to go on.",
)
@click.option(
    "--model",
    "-m",
    metavar="MODEL",
    shell_complete=offers.models,
    help="For jobs that name none.",
)
@click.option("--mode", type=click.Choice(MODES), help="For jobs that name none.")
@click.option(
    "--jobs",
    "at_once",
    type=whole_number(_MOST_AT_ONCE),
    metavar="N",
    help="How many run at once; the setting `parallel` unless given.",
)
@click.option("--retry-failed", is_flag=True, help="Run jobs of OUT again that failed.")
@pass_session
def batch(session: Session, /, **options: Any) -> Exit:
    """Answer a file of prompts, and go on after an interruption.

    Each line of FILE is a job: {"prompt": "…"} or {"messages": [{"role": "user", "content":
    "…"}]}, and whatever is wanted of id, system, model, tier, mode, max_tokens, temperature,
    top_p, top_k, min_p, seed, stop, thinking, candidates and best_of. `-` reads standard input.

    Each line of OUT is a result, in the order of the jobs; without -o they go to standard output.
    Jobs run in the background: others go first. The same command once more goes on where the last
    one ended. A job that failed is a line with its error, and the exit code is 1 then.
    """
    if options["out"] == "-":
        options["out"] = None
    _check(options)
    defaults = {name: options[name] for name in ("model", "mode") if options[name] is not None}
    content = read_text(options["file"], session.output)
    jobs = read_jobs(content, name=_called(options["file"]), defaults=defaults)
    at_once = options["at_once"] or session.resolved.settings.parallel
    with Progress(session.output) as progress, _results(jobs, options, session, progress) as kept:
        tally = _Tally(len(jobs), kept, progress, name=_called(options["file"]))
        _run(session, jobs, kept, tally, at_once=at_once, resume=_resume(options))
    tally.tell(session.output, options)
    return Exit.FAILURE if kept.failed else Exit.OK


def _check(options: dict[str, Any]) -> None:
    if options["at_once"] == 0:
        raise click.UsageError("--jobs has to be 1 or more")
    if options["retry_failed"] and options["out"] is None:
        raise click.UsageError("--retry-failed needs -o: the results with the failed jobs")
    if options["out"] is not None and _same(Path(options["out"]), Path(options["file"])):
        raise click.UsageError("OUT is FILE itself")


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _called(file: str) -> str:
    return "standard input" if file == "-" else Path(file).name


def _results(
    jobs: Sequence[Job], options: dict[str, Any], session: Session, progress: Progress
) -> AbstractContextManager[Results]:
    if options["out"] is not None:
        return kept_in(jobs, Path(options["out"]), retry_failed=options["retry_failed"])

    def write(result: dict[str, Any]) -> None:
        progress.clear()
        session.output.record(result)

    return nullcontext(Printed(len(jobs), write))


def _resume(options: dict[str, Any]) -> str:
    """The command that goes on; empty where results were not kept."""
    if options["out"] is None or options["file"] == "-":
        return ""
    words = ["gemctl", "batch", options["file"], "-o", options["out"]]
    for option, name in (("model", "model"), ("mode", "mode"), ("jobs", "at_once")):
        words += [f"--{option}", str(options[name])] if options[name] is not None else []
    if options["retry_failed"]:
        words.append("--retry-failed")
    return shlex.join(words)


@dataclass(slots=True)
class _Tally:
    """How far the batch is, as it is shown."""

    total: int
    results: Results
    progress: Progress
    name: str
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    """By this run."""
    before: int = 0
    """By earlier ones."""
    started: float = 0.0

    def begin(self, waiting: int) -> None:
        """So many jobs have no result yet."""
        self.before = self.total - waiting
        self.started = self.clock()
        self.show()

    def count(self) -> None:
        """One more has a result."""
        self.done += 1
        self.show()

    def show(self) -> None:
        """Bring the live line up to date."""
        done = self.before + self.done
        elapsed = self.clock() - self.started
        rate = self.done / elapsed if elapsed > 0 else 0.0
        failed = f", {self.results.failed} failed" if self.results.failed else ""
        speed = f", {rate:.1f} jobs/s" if self.done else ""
        self.progress.update(
            f"answering {self.name}",
            current=done,
            total=self.total,
            remaining=(self.total - done) / rate if rate else None,
            bytes_counted=False,
            detail=f"{done} of {self.total}{failed}{speed}",
        )

    def away(self) -> None:
        """Say that the daemon does not answer, which looks like a long job otherwise."""
        wait = f"{SILENCE_SECONDS:.0f} s"
        self.progress.note(f"gemd does not answer; it has {wait} to come back")
        self.show()

    def stopped(self, resume: str) -> None:
        """Say how far it came, and how to go on."""
        self.progress.note(f"stopped after {self.before + self.done} of {self.total} jobs")
        if resume:
            self.progress.note(f"to go on: {resume}")

    def tell(self, output: Output, options: dict[str, Any]) -> None:
        """Say how it went when all is done."""
        where = f"; the results are in {options['out']}" if options["out"] else ""
        output.note(f"{self._done()}{where}")
        failed = self.results.failed
        if failed:
            output.note(f"{failed} job{'' if failed == 1 else 's'} of {self.total} failed")
            if _resume(options):
                again = _resume({**options, "retry_failed": True})
                output.hint(f"to run what failed again: {again}")

    def _done(self) -> str:
        if not self.done:
            return f"all {self.total} jobs were done before"
        what = f"{self.done} jobs" if self.done != 1 else "1 job"
        earlier = f", {self.before} were done before" if self.before else ""
        return f"{what} in {format_seconds(self.clock() - self.started)}{earlier}"


def _run(
    session: Session,
    jobs: Sequence[Job],
    results: Results,
    tally: _Tally,
    *,
    at_once: int,
    resume: str,
) -> None:
    """Run what has no result yet; if that is cut short, say how to go on."""
    waiting = results.open()
    tally.begin(len(waiting))
    if not waiting:
        return

    def add(index: int, result: dict[str, Any]) -> None:
        results.add(index, result)
        tally.count()

    with session.client(start=True) as client:
        _check_models(client, [jobs[index] for index in waiting])
        runner = Runner(jobs, add, away=tally.away)
        running = runner.run(
            session.paths.socket,
            groups(jobs, waiting),
            parallel=at_once,
            name=f"gemctl/{__version__}",
        )
        complete = False
        try:
            asyncio.run(running)
            complete = True
        except BaseExceptionGroup as group:
            raise _plain(group) from None
        finally:
            if not complete:
                tally.stopped(resume)


def _check_models(client: Client, jobs: Sequence[Job]) -> None:
    """See that the models that jobs name are there: a slip would fail hundreds of them.

    Raises:
        GemdClientError: There is no such model.
        CommandError: It is not on this machine.

    """
    for name in dict.fromkeys(job.content["model"] for job in jobs if "model" in job.content):
        # A file's path, or a name on the hub, is no entry of the catalogue.
        if "/" in name or name.endswith(".gguf"):
            continue
        model = client.model(name)
        if not model.on_disk:
            raise CommandError(
                f"{model.id} is not on this machine",
                Exit.NOT_FOUND,
                advice=(f"gemctl pull {model.id}",),
            )


def _plain(error: BaseException) -> BaseException:
    """What ended the run, without the group that its tasks put around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.error if isinstance(error, BatchStoppedError) else error
