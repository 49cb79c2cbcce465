"""The answers of one generation as they come: text, reasoning, and what may still change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.cli.canvas import Painter
from gemd.cli.stats import verdict

if TYPE_CHECKING:
    from gemd.cli.output import Output
    from gemd.cli.progress import Progress
    from gemd.client import Canvas, Delta, Draft, DraftView, Finished, Resolved

    Piece = Delta | Draft | Resolved


class Answers:
    """Writes the text of answers to stdout and their reasoning to stderr.

    Several candidates come all at once and are written one after another, each under its
    heading: the first as it comes, the others as soon as those before them are complete.

    A draft is drawn on a terminal until it is part of the answer or dropped; elsewhere it is
    never written.

    Args:
        output: Where to.
        progress: The live line, which goes away for everything else.
        candidates: How many there are.
        whole_lines: Whether to end an answer with a newline if it has none.

    """

    def __init__(
        self,
        output: Output,
        progress: Progress,
        *,
        candidates: int = 1,
        whole_lines: bool = True,
    ) -> None:
        self._output = output
        self._progress = progress
        self._candidates = candidates
        self._whole_lines = whole_lines
        self._painter = Painter(output) if output.can_draw() else None
        self._held: dict[int, list[Piece]] = {}
        self._complete: set[int] = set()
        self._current = 0
        self._draft = _view()
        self._headed = False
        self._thinking = False
        self._last = ""

    def add(self, event: Piece) -> None:
        """New text of a candidate, provisional or not, or what becomes of the provisional one."""
        if event.candidate == self._current:
            self._show(event)
        else:
            self._held.setdefault(event.candidate, []).append(event)

    def draw(self, event: Canvas) -> None:
        """A denoising step; that of the candidate whose turn it is is shown."""
        if self._painter is not None and event.candidate == self._current:
            self._progress.clear()
            self._head()
            self._painter.draw(event, draft=self._draft.rest)

    def end(self, event: Finished) -> None:
        """A candidate is complete; the next one gets its turn if it was the one on show."""
        self._complete.add(event.candidate)
        while self._current in self._complete:
            self._head()
            self.close()
            self._current += 1
            self._draft = _view()
            self._headed = False
            for held in self._held.pop(self._current, ()):
                self._show(held)

    def close(self) -> None:
        """Leave the cursor on a line of its own, and nothing that is no part of an answer."""
        if self._painter is not None:
            self._painter.clear()
        self._end_thought()
        if self._whole_lines and self._last and not self._last.endswith("\n"):
            self._say("\n")
        self._last = ""

    def _show(self, event: Piece) -> None:
        from gemd.client import Delta, Resolved

        self._draft.add(event)
        if isinstance(event, Delta):
            self._write(event)
        elif isinstance(event, Resolved):
            self._resolve(event)
        self._sketch()

    def _write(self, event: Delta) -> None:
        if event.reasoning_text:
            self._think(event.reasoning_text)
        if event.text:
            self._progress.clear()
            self._head()
            self._end_thought()
            self._say(event.text)
            self._last = event.text

    def _resolve(self, event: Resolved) -> None:
        """Say so if the draft is dropped: nothing that was on show goes away in silence."""
        if self._painter is not None:
            self._painter.clear()
        dropped = event.resolution == "REPLACED" or (
            self._painter is not None and self._draft.rest != self._draft.draft
        )
        if dropped:
            self._progress.clear()
            self._end_thought()
            self._output.hint(verdict(event, self._draft.model))

    def _sketch(self) -> None:
        """Draw what the draft has beyond the answer so far."""
        if self._painter is None or not self._draft.rest:
            return
        self._progress.clear()
        self._head()
        resolved = self._draft.resolved is not None
        state = "checked" if resolved else f"draft of {self._draft.model}, not checked yet"
        self._painter.sketch(self._draft.rest, state, provisional=not resolved)

    def _say(self, text: str) -> None:
        if self._painter is not None:
            self._painter.write(text)
        else:
            self._output.data(text)

    def _think(self, text: str) -> None:
        self._progress.clear()
        self._head()
        think = self._output.thought if self._painter is None else self._painter.think
        if not self._thinking:
            think("thinking: ")
            self._thinking = True
        think(text)

    def _end_thought(self) -> None:
        if self._thinking:
            think = self._output.thought if self._painter is None else self._painter.think
            think("\n")
            self._thinking = False

    def _head(self) -> None:
        if self._headed or self._candidates == 1 or self._current >= self._candidates:
            return
        if self._current:
            self._output.line()
        self._output.heading(f"answer {self._current + 1} of {self._candidates}")
        self._headed = True


def _view() -> DraftView:
    from gemd.client import DraftView

    return DraftView()


class Collected:
    """Shows nothing, and keeps the denoising steps: for a document of all of it.

    Args:
        progress: The live line, which goes away once there is text.

    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.canvases: list[Canvas] = []

    def add(self, _: Piece) -> None:
        """New text; the generation keeps it."""
        self._progress.clear()

    def draw(self, event: Canvas) -> None:
        """A denoising step."""
        self.canvases.append(event)

    def end(self, _: Finished) -> None:
        """A candidate is complete."""

    def close(self) -> None:
        """Nothing was written."""
