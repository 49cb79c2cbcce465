"""The doctor: what is wrong with the installation and the machine, and how to mend it.

Every check is a pure function of facts (`check_x`) behind an edge that gathers them
(`examine_x`). Nothing is changed, no daemon is started, and no engine library is imported.

All checks are in `gemd.doctor.checks`, which a daemon imports when it is first asked for one.
"""

from __future__ import annotations

from gemd.doctor.diagnosis import CannotCheckError, Diagnosis, Finding, Result
from gemd.doctor.examination import Check, Doctor
from gemd.doctor.surroundings import (
    Condition,
    DaemonReport,
    Errand,
    NoAnswerError,
    Once,
    Surroundings,
)

__all__ = [
    "CannotCheckError",
    "Check",
    "Condition",
    "DaemonReport",
    "Diagnosis",
    "Doctor",
    "Errand",
    "Finding",
    "NoAnswerError",
    "Once",
    "Result",
    "Surroundings",
]
