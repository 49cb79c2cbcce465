"""The answers of one generation as they come: text, reasoning, and the canvas behind both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.cli.canvas import Painter

if TYPE_CHECKING:
    from gemd.cli.output import Output
    from gemd.cli.progress import Progress
    from gemd.client import Canvas, Delta, Finished


class Answers:
    """Writes the text of answers to stdout and their reasoning to stderr.

    Several candidates come all at once and are written one after another, each under its
    heading: the first as it comes, the others as soon as those before them are complete.

    Args:
        output: Where to.
        progress: The live line, which goes away for everything else.
        candidates: How many there are.
        whole_lines: Whether to end an answer with a newline if it has none.
        watch: Draw the canvas; stdout has to be a terminal for that.

    """

    def __init__(
        self,
        output: Output,
        progress: Progress,
        *,
        candidates: int = 1,
        whole_lines: bool = True,
        watch: bool = False,
    ) -> None:
        self._output = output
        self._progress = progress
        self._candidates = candidates
        self._whole_lines = whole_lines
        self._painter = Painter(output) if watch else None
        self._held: dict[int, list[Delta]] = {}
        self._complete: set[int] = set()
        self._current = 0
        self._headed = False
        self._thinking = False
        self._last = ""

    def add(self, event: Delta) -> None:
        """New text of a candidate."""
        if event.candidate == self._current:
            self._write(event)
        else:
            self._held.setdefault(event.candidate, []).append(event)

    def draw(self, event: Canvas) -> None:
        """A denoising step; that of the candidate whose turn it is is shown."""
        if self._painter is not None and event.candidate == self._current:
            self._progress.clear()
            self._head()
            self._painter.draw(event)

    def end(self, event: Finished) -> None:
        """A candidate is complete; the next one gets its turn if it was the one on show."""
        self._complete.add(event.candidate)
        while self._current in self._complete:
            self._head()
            self.close()
            self._current += 1
            self._headed = False
            for held in self._held.pop(self._current, ()):
                self._write(held)

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._painter is not None:
            self._painter.clear()
        self._end_thought()
        if self._whole_lines and self._last and not self._last.endswith("\n"):
            self._say("\n")
        self._last = ""

    def _write(self, event: Delta) -> None:
        if event.reasoning_text:
            self._think(event.reasoning_text)
        if event.text:
            self._progress.clear()
            self._head()
            self._end_thought()
            self._say(event.text)
            self._last = event.text

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


class Collected:
    """Shows nothing, and keeps the denoising steps: for a document of all of it.

    Args:
        progress: The live line, which goes away once there is text.

    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.canvases: list[Canvas] = []

    def add(self, _: Delta) -> None:
        """New text; the generation keeps it."""
        self._progress.clear()

    def draw(self, event: Canvas) -> None:
        """A denoising step."""
        self.canvases.append(event)

    def end(self, _: Finished) -> None:
        """A candidate is complete."""

    def close(self) -> None:
        """Nothing was written."""
