"""The verifier's process: its progress on a tracker, its crash as a verdict where it is one."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.engine.chores import Heard, run_chore
from gemd.errors import EngineCrashedError
from gemd.store.manifest import Checked
from gemd.wire.verify import Examined, Progress, Report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gemd.store.progress import Tracker
    from gemd.wire.verify import Examine

MODULE: Final = "gemd.worker.verify"

_UNTRUSTED: Final = frozenset({"container", "tensor-census", "scales", "no-alloc-load"})
"""Checks that take little memory: who crashes there has been brought down by the file."""
_BROUGHT_DOWN: Final = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
)
_SLOW: Final[Mapping[str, str]] = {
    "kl-divergence": "{name}: the model and its source read the same text, which takes a while",
    "smoke": "{name}: it is loaded and asked three questions",
}


@dataclass(frozen=True, slots=True)
class Engine:
    """With what it is checked.

    Attributes:
        overlay: The directory of an engine build; None for what gemd came with.
        environ: Variables of the process, those of the daemon among them.

    """

    overlay: Path | None
    environ: Mapping[str, str]


async def examined(
    order: Examine, *, name: str, engine: Engine, tracker: Tracker, unit: str
) -> tuple[Checked, ...]:
    """What the checks of an order found, in their order; what was left out stands in the last one.

    Args:
        order: What to check.
        name: Of the variant, for people.
        engine: With what.
        tracker: Takes the progress.
        unit: Of the tracker, which counts the bytes that are read from end to end.

    Raises:
        GemdError: This machine cannot check it.
        EngineCrashedError: The verifier ended by itself, and not because of the file.

    """
    shown = _Shown(tracker, unit, name)
    try:
        found = await run_chore(
            MODULE,
            order,
            subject=f"the verification of {name}",
            parse=_parsed,
            report=shown.show,
            environ=engine.environ,
            overlay=engine.overlay,
        )
    except EngineCrashedError as error:
        if not _is_verdict(error, shown.check):
            raise
        detail = f"{error.why}; nothing after it was checked"
        return (Checked(check=shown.check, passed=False, detail=detail),)
    return _with_left_out(found)


def _parsed(line: bytes) -> Heard[Progress, Examined]:
    report = Report.model_validate_json(line)
    return Heard(
        report.progress, report.examined, None if report.error is None else report.error.error()
    )


def _is_verdict(error: EngineCrashedError, check: str) -> bool:
    number = error.metadata.get("signal", "")
    return check in _UNTRUSTED and number in {
        text for each in _BROUGHT_DOWN for text in (str(int(each)), each.name)
    }


def _with_left_out(found: Examined) -> tuple[Checked, ...]:
    checks = [Checked.model_validate(each.model_dump()) for each in found.checks]
    if checks and found.left_out:
        said = "; ".join(f"{each.check} was not made: {each.why}" for each in found.left_out)
        checks[-1] = checks[-1].model_copy(update={"detail": f"{checks[-1].detail}; {said}"})
    return tuple(checks)


class _Shown:
    """Turns the verifier's figures into the tracker's steps.

    Attributes:
        check: The one that is being made.

    """

    def __init__(self, tracker: Tracker, unit: str, name: str) -> None:
        self.check = ""
        self._tracker = tracker
        self._unit = unit
        self._name = name
        self._current = 0

    def show(self, progress: Progress) -> None:
        """Takes one report."""
        if progress.check != self.check:
            self.check = progress.check
            if text := _SLOW.get(self.check):
                # All that is read from end to end has been: there is no rate any more.
                self._tracker.complete(self._unit)
                self._tracker.enter("verifying", message=text.format(name=self._name))
        if progress.current_bytes > self._current:
            self._tracker.advance(self._unit, progress.current_bytes - self._current)
            self._current = progress.current_bytes
