"""What a check found, as values, and how several findings of one check become its row."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.errors import GemdError


class Result(enum.Enum):
    """How a check ended. Names as in the API."""

    OK = "OK"
    """All is well."""
    WARNING = "WARNING"
    """It works, but worse than it could."""
    FAILED = "FAILED"
    """It does not work."""
    SKIPPED = "SKIPPED"
    """The check does not apply to this machine, or could not be made."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        result: WARNING or FAILED.
        text: What is wrong, with its numbers.
        fixes: Literal commands or short sentences that mend it, best first.

    """

    result: Result
    text: str
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One row of the doctor.

    Attributes:
        check: Short stable name of the check.
        result: How it ended.
        detail: What was found, with its numbers.
        fixes: How to mend it: literal commands or short sentences, best first.

    """

    check: str
    result: Result
    detail: str
    fixes: tuple[str, ...] = ()


class CannotCheckError(Exception):
    """A check does not apply here, or something that it needs is missing. Its text says why."""


def warning(text: str, *fixes: str) -> Finding:
    """It works, but worse than it could."""
    return Finding(Result.WARNING, text, fixes)


def failure(text: str, *fixes: str) -> Finding:
    """It does not work."""
    return Finding(Result.FAILED, text, fixes)


def failure_of(error: GemdError) -> Finding:
    """The finding that a domain error is: its words and its advice."""
    return Finding(Result.FAILED, str(error), error.advice)


_GRAVITY: Final = (Result.FAILED, Result.WARNING)
"""Worst first."""


def conclude(check: str, findings: Iterable[Finding], *, facts: str) -> Diagnosis:
    """The row of a check.

    The worst finding decides the result and comes first; no fix is said twice.

    Args:
        check: Its name.
        findings: What is wrong.
        facts: What was seen apart from that; may be empty.

    """
    ordered = sorted(findings, key=lambda finding: _GRAVITY.index(finding.result))
    fixes = dict.fromkeys(fix for finding in ordered for fix in finding.fixes)
    texts = [*(finding.text for finding in ordered), facts]
    return Diagnosis(
        check=check,
        result=ordered[0].result if ordered else Result.OK,
        detail="; ".join(text for text in texts if text),
        fixes=tuple(fixes),
    )
