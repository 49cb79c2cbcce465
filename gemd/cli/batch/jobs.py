"""The jobs of a file: what a line may say, and all that is wrong with it before anything runs."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemd.cli.batch.fields import FIELDS
from gemd.cli.failures import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SHOWN = 10
"""Mistakes that are told; the rest is counted."""
_KEY_DIGITS = 16
_TARGETS = ("model", "tier")


@dataclass(frozen=True, slots=True)
class Job:
    """One line of the file.

    Attributes:
        line: Its number in the file, from 1.
        id: As it was given, or else the number of the line.
        content: Its other fields, all of them checked.

    """

    line: int
    id: str | int
    content: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A digest of the job, by which a later start knows that it is still the same one."""
        told = json.dumps([self.id, self.content], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(told.encode()).hexdigest()[:_KEY_DIGITS]


def read_jobs(content: str, *, name: str, defaults: Mapping[str, Any]) -> list[Job]:
    """The jobs of a file, one JSON object a line; blank lines are skipped.

    Args:
        content: Of the file.
        name: How to call the file in errors.
        defaults: Fields of all jobs that do not have them.

    Raises:
        CommandError: Something is wrong with some of the lines, or there is no job.

    """
    wrong: list[str] = []
    jobs: list[Job] = []
    # No other line ends than these: JSON texts may hold the rest.
    for number, line in enumerate(content.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        mistakes, fields = _parsed(line)
        wrong += [f"line {number}: {each}" for each in mistakes]
        if not mistakes:
            jobs.append(_job(number, fields, defaults))
    wrong += _repeated(jobs)
    if wrong:
        raise _refusal(wrong, name)
    if not jobs:
        raise CommandError(
            f"{name} has no jobs", Exit.USAGE, why='a job is a line such as {"prompt": "Hi"}'
        )
    return jobs


def _job(line: int, fields: dict[str, Any], defaults: Mapping[str, Any]) -> Job:
    given = fields.pop("id", line)
    # Who answers is one choice: a job that names a tier wants no other's model.
    targeted = any(name in fields for name in _TARGETS)
    taken = {name: value for name, value in defaults.items() if not (targeted and name in _TARGETS)}
    return Job(line, given, {**taken, **fields})


def _parsed(line: str) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with a line, and its fields."""
    try:
        fields = json.loads(line, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return [f"it is no JSON ({error})"], {}
    if not isinstance(fields, dict):
        return ["it is no JSON object"], {}
    return [*_mistakes(fields)], fields


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose names is there once: of two, one would be lost in silence."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f"{name!r} is there {count} times")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _mistakes(fields: dict[str, Any]) -> Iterator[str]:
    for name, value in fields.items():
        check = FIELDS.get(name)
        if check is None:
            yield f"a job has no field {name!r}{_meant(name)}"
        elif mistake := check(value):
            yield f"{name} {mistake}"
    if ("prompt" in fields) == ("messages" in fields):
        yield "a job has a prompt or messages, and not both"
    if "system" in fields and "messages" in fields:
        yield "system goes with a prompt; with messages it is the first of them"
    if all(name in fields for name in _TARGETS):
        yield "a job names a model or a tier, and not both"
    if fields.get("tier") == "fast" and fields.get("mode") == "exact":
        yield "mode exact is for the strong tier's own answer, and tier is fast"
    if not _enough(fields.get("candidates"), fields.get("best_of")):
        yield "best_of has to be at least candidates: they are chosen from it"


def _enough(candidates: Any, best_of: Any) -> bool:
    """Whether answers can be chosen from so many; what is no number is told elsewhere."""
    return not (isinstance(candidates, int) and isinstance(best_of, int) and candidates > best_of)


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, FIELDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it can have {', '.join(FIELDS)}"


def _repeated(jobs: Sequence[Job]) -> Iterator[str]:
    """Ids that two jobs have: nobody could tell their answers apart."""
    first: dict[str, int] = {}
    for job in jobs:
        before = first.setdefault(str(job.id), job.line)
        if before != job.line:
            yield f"line {job.line}: the id {job.id!r} is that of line {before}"


def _refusal(wrong: list[str], name: str) -> CommandError:
    shown = wrong[:_SHOWN]
    if len(wrong) > _SHOWN:
        shown.append(f"and {len(wrong) - _SHOWN} more")
    what = "1 mistake" if len(wrong) == 1 else f"{len(wrong)} mistakes"
    return CommandError(
        f"{name} has {what}; nothing was run", Exit.USAGE, why="\n       ".join(shown)
    )
