"""Progress on stderr: live lines on a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Self

from gemd.cli import text
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from gemd.cli.output import Output

_REDRAW_SECONDS = 0.1
_BAR_COLUMNS = 24
_TENTHS = 10
ECHO_COLUMNS = 3
"""Left free behind a live line: the cursor's, and those of a «^C» that the terminal echoes."""


def progress_line(
    label: str,
    *,
    current: int,
    total: int,
    rate: float | None = None,
    remaining: float | None = None,
    bytes_counted: bool = True,
    detail: str = "",
    bar: bool = False,
    short: bool = False,
) -> str:
    """One step of progress in words: label, share, amount, rate, time left.

    Args:
        label: What is going on.
        current: How much is done.
        total: How much there is; 0 if unknown.
        rate: Units per second, if known.
        remaining: Seconds left, if known.
        bytes_counted: Whether the unit is bytes; otherwise amounts are not shown.
        detail: More about it, in words.
        bar: Whether to draw a bar.
        short: Whether to name the unit of two amounts once, where it is the same.

    """
    parts = [label]
    if total:
        share = min(current / total, 1.0)
        if bar:
            full = int(share * _BAR_COLUMNS)
            parts.append(f"[{'#' * full}{'.' * (_BAR_COLUMNS - full)}]")
        parts.append(f"{int(share * 100):3d} %")
    if bytes_counted and (current or total):
        parts.append(_amount(current, total, short=short))
    if rate:
        parts.append(f"{human_bytes(rate)}/s")
    if detail:
        parts.append(detail)
    if remaining is not None and current < total:
        parts.append(f"{text.format_seconds(remaining)} left")
    return "  ".join(parts)


def _amount(current: int, total: int, *, short: bool) -> str:
    done, whole = human_bytes(current), human_bytes(total)
    if not total:
        return done
    figure, _, unit = done.partition(" ")
    if short and whole.endswith(f" {unit}"):
        done = figure
    return f"{done} of {whole}"


class Progress:
    """Shows how far one job is. A context manager: leaving it clears the live line.

    Args:
        output: Where to show it.
        clock: Monotonic seconds.
        columns: Width of the terminal; by default that of `output`.

    """

    def __init__(
        self,
        output: Output,
        *,
        clock: Callable[[], float] = time.monotonic,
        columns: Callable[[], int] | None = None,
    ) -> None:
        self._output = output
        self._clock = clock
        self._columns = columns or output.columns
        self._live = output.stderr.isatty() and output.environ.get("TERM") != "dumb"
        self._drawn_at: float | None = None
        self._label: str | None = None
        self._tenth = 0
        self._started_at = 0.0
        self._started_from = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the live line away, so that something else can be written."""
        if self._live and self._drawn_at is not None:
            self._output.transient("")
            self._drawn_at = None

    def note(self, content: str) -> None:
        """A line that stays, above the live one."""
        self.clear()
        self._output.note(content)

    def update(
        self,
        label: str,
        *,
        current: int = 0,
        total: int = 0,
        rate: float | None = None,
        remaining: float | None = None,
        bytes_counted: bool = True,
        detail: str = "",
        job: str = "",
        brief: str = "",
        above: Sequence[str] = (),
    ) -> None:
        """Show a new state of the job.

        Rate and time left are worked out from the counts where they are not given.

        Args:
            label: What is going on.
            current: How much is done.
            total: How much there is; 0 if unknown.
            rate: Units per second, if known.
            remaining: Seconds left, if known.
            bytes_counted: Whether the unit is bytes.
            detail: More about it, in words.
            job: Another one begins a new count; empty: the label says whether it is another.
            brief: A shorter label, for a terminal that the whole line does not fit into.
            above: Lines about its parts, for a terminal.

        """
        now = self._clock()
        begins = (job or label) != self._label
        if begins:
            self._label, self._tenth = job or label, 0
            self._started_at, self._started_from = now, current
        elapsed = now - self._started_at
        if rate is None and bytes_counted and elapsed > 0:
            rate = max(current - self._started_from, 0) / elapsed
        if remaining is None and rate and total:
            remaining = max(total - current, 0) / rate
        tenth = current * _TENTHS // total if total else 0
        ends = bool(total) and current >= total and self._tenth < _TENTHS
        due = begins or ends or tenth > self._tenth
        if self._live:
            due = due or self._drawn_at is None or now - self._drawn_at >= _REDRAW_SECONDS
        if not due:
            return
        self._tenth = tenth
        draw = partial(
            progress_line,
            current=current,
            total=total,
            rate=rate,
            remaining=remaining,
            bytes_counted=bytes_counted,
            detail=detail,
        )
        if self._live:
            columns = max(self._columns() - ECHO_COLUMNS, 1)
            forms = (
                draw(label, bar=True),
                # On a narrow terminal the figures say more than the bar, and than the name.
                draw(label),
                draw(brief or label),
                draw(brief or label, short=True),
                draw(brief or label, short=True, detail=""),
            )
            fitting = (form for form in forms if text.width(form) <= columns)
            content = next(fitting, forms[-1])
            self._output.transient(content, columns=columns, above=above)
            self._drawn_at = now
        else:
            self._output.note(draw(label))
