"""`daemon`: whether one answers, of which version, and what it reports of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import gemd
from gemd.doctor.diagnosis import Diagnosis, Result, conclude, failure, warning
from gemd.doctor.sockets import look_at_lock
from gemd.doctor.surroundings import NoAnswerError
from gemd.doctor.words import counted, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.doctor.diagnosis import Finding
    from gemd.doctor.surroundings import DaemonReport, Errand, Surroundings

NAME: Final = "daemon"
_OFF: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What is known of the running daemon.

    Attributes:
        version: Of the code that asks.
        report: What it says; None if none runs.
        problem: Why one that runs does not say it; empty if it does.
        pid: Of the process that holds its lock; 0 if none does.
        may_start: Whether `gemctl` starts one when it needs one.

    """

    version: str
    report: DaemonReport | None = None
    problem: str = ""
    pid: int = 0
    may_start: bool = True


def examine_daemon(around: Surroundings, _: Errand) -> Diagnosis:
    """Ask it and judge; none is started."""
    word = around.environ.get("GEMD_AUTOSTART", "").strip().lower()
    report, problem, pid = None, "", 0
    try:
        report = around.report()
    except NoAnswerError as error:
        problem, pid = str(error), look_at_lock(around.paths.lock).pid
    return check_daemon(
        DaemonFacts(gemd.__version__, report, problem=problem, pid=pid, may_start=word not in _OFF)
    )


def check_daemon(facts: DaemonFacts) -> Diagnosis:
    """Judge it."""
    report = facts.report
    if facts.problem:
        found = failure(
            f"somebody listens, and does not answer as gemd: {facts.problem}",
            *(("gemctl stop", f"kill -9 {facts.pid}") if facts.pid else ()),
        )
        return conclude(NAME, [found], facts="")
    if report is None:
        if facts.may_start:
            text = "none runs; gemctl starts one when a command needs it"
            return Diagnosis(NAME, Result.SKIPPED, text)
        found = warning("none runs, and GEMD_AUTOSTART keeps gemctl from starting one", "gemd")
        return conclude(NAME, [found], facts="")
    notes = [each.message for each in report.conditions if each.severity == "INFO"]
    seen = (
        f"gemd {report.version}, pid {report.pid}, {report.state.lower()}, "
        f"up {span(report.uptime_s)}, started by {report.started_by.lower()}, "
        f"{counted(len(report.workers), 'model')} in memory"
    )
    return conclude(NAME, _findings(facts, report), facts="; ".join([seen, *notes]))


def _findings(facts: DaemonFacts, report: DaemonReport) -> Iterator[Finding]:
    if report.version != facts.version:
        yield warning(
            f"it is gemd {report.version}, and this is {facts.version}: it was started before "
            "an update",
            "gemctl stop",
        )
    for condition in report.conditions:
        if condition.severity != "INFO":
            yield warning(condition.message, *condition.advice)
