"""Long work on files in lines for people: what is at work, and how far all of it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.cli import text
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.cli.progress import Progress
    from gemd.client import Operation, Unit

_MOST_LINES = 4
_NAME_COLUMNS = 40


def show_operation(progress: Progress, before: Operation, now: Operation) -> None:
    """Show a snapshot, and what is notable about it if the last one did not say that."""
    if now.message and now.message != before.message:
        progress.note(" ".join(now.message.split()))
    if now.phase:
        parts = parts_done(now.units)
        progress.update(
            f"{now.phase} {now.model}".rstrip(),
            current=now.current_bytes,
            total=now.total_bytes,
            # Nothing that moves is no reason to work one out from what came before.
            rate=now.rate,
            remaining=now.remaining,
            detail=parts,
            # Of several files each has its phases: the count goes on over all of them.
            job=now.name if parts else "",
            brief=now.phase,
            above=unit_lines(now.units) if parts else (),
        )


def parts_done(units: Sequence[Unit]) -> str:
    """Such as ``3/14 files``; empty of a single one."""
    if len(units) < 2:  # noqa: PLR2004 - one is no count
        return ""
    done = sum(unit.done for unit in units)
    return f"{done}/{len(units)} {'files' if units[0].measure == 'BYTES' else 'parts'}"


def unit_lines(units: Sequence[Unit]) -> list[str]:
    """A line for each unit that is begun and not done; of many the first."""
    active = [each for each in units if each.begun and not each.done]
    names = [_short(unit.name) for unit in active[:_MOST_LINES]]
    columns = max(map(text.width, names), default=0)
    return [
        f"  {name}{' ' * (columns - text.width(name))}{_share(unit)}  {_amount(unit)}".rstrip()
        for name, unit in zip(names, active, strict=False)
    ]


def _share(unit: Unit) -> str:
    if not unit.total:
        return ""
    return f"  {int(min(unit.current / unit.total, 1.0) * 100):3d} %"


def _amount(unit: Unit) -> str:
    if unit.measure == "BYTES":
        if not unit.total:
            return human_bytes(unit.current) if unit.current else ""
        return f"{human_bytes(unit.current)} of {human_bytes(unit.total)}"
    what = "" if unit.measure == "UNSPECIFIED" else f" {unit.measure.lower()}"
    return f"{unit.current} of {unit.total}{what}" if unit.total else ""


def _short(name: str) -> str:
    """The end of a long name, which tells the parts of a whole apart."""
    return name if len(name) <= _NAME_COLUMNS else f"…{name[-_NAME_COLUMNS + 1 :]}"
