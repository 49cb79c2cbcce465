"""The quantizer's process, started again where it was killed, with its progress on a tracker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from gemd.engine.chores import Heard, run_chore
from gemd.errors import EngineCrashedError
from gemd.store.progress import Unit
from gemd.wire.quantize import Progress, Report, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gemd.store.progress import Phase, Tracker
    from gemd.wire.quantize import Order

MODULE: Final = "gemd.worker.quantize"
_FRUITLESS: Final = 3
"""So many ends in a row without a new byte are enough."""
_PHASES: Final = frozenset({"planning", "quantizing", "checking"})


@dataclass(frozen=True, slots=True)
class Engine:
    """With what it is computed.

    Attributes:
        device: As torch names it; of GGUF files always the processor.
        overlay: The directory of an engine build; None for what gemd came with.
        environ: Variables of the process, those of the daemon among them.

    """

    device: str
    overlay: Path | None
    environ: Mapping[str, str]


async def quantized(
    order: Order,
    *,
    subject: str,
    engine: Engine,
    tracker: Tracker,
    born: Callable[[int], None] = lambda _: None,
) -> Told:
    """What the order asks for.

    A process that is killed, by whomever, is started again with the same order, and goes on from
    its journal.

    Args:
        order: What to make.
        subject: That as a noun.
        engine: With what.
        tracker: Takes the progress.
        born: Takes the id of each process.

    Raises:
        GemdError: What the quantizer said.
        EngineCrashedError: It ended by itself, or was killed again and again.

    """
    shown = _Shown(tracker, order.name or order.quantization)
    fruitless = 0
    while True:
        before = shown.furthest
        try:
            return await run_chore(
                MODULE,
                order,
                subject=subject,
                parse=parsed,
                report=shown.show,
                environ=engine.environ,
                overlay=engine.overlay,
                born=born,
            )
        except EngineCrashedError as error:
            fruitless = 0 if shown.furthest > before else fruitless + 1
            if "signal" not in error.metadata or fruitless == _FRUITLESS:
                raise
            tracker.enter("planning", message=f"{error.why}; it goes on where it was")


def parsed(line: bytes) -> Heard[Progress, Told]:
    """One line of the quantizer. Raises ValueError if it is none."""
    report = Report.model_validate_json(line)
    return Heard(
        report.progress, report.made, None if report.error is None else report.error.error()
    )


class _Shown:
    """Turns absolute figures of one process after the other into the tracker's steps."""

    def __init__(self, tracker: Tracker, name: str) -> None:
        self._tracker = tracker
        self._name = name
        self._phase = ""
        self._total = 0
        self._current = 0
        self.furthest = 0
        """The most bytes of the result that were ever there."""

    def show(self, progress: Progress) -> None:
        """Takes one report."""
        if progress.phase != self._phase and progress.phase in _PHASES:
            self._phase, self._total = progress.phase, 0
            self._tracker.enter(cast("Phase", progress.phase))
        if not progress.total_bytes:
            return
        if progress.total_bytes != self._total or progress.current_bytes < self._current:
            self._total, self._current = progress.total_bytes, progress.current_bytes
            self._tracker.plan((Unit(self._phase, self._name, total=self._total),))
            # What is there at once is what an earlier try had written.
            self._tracker.begin(self._phase, current=self._current, reused=self._current)
        self._tracker.advance(self._phase, progress.current_bytes - self._current)
        self._current = progress.current_bytes
        if self._phase == "quantizing":
            self.furthest = max(self.furthest, self._current)
