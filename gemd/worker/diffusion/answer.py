"""One answer on its way: its canvases one after the other, and what is said of them.

A request has one answer for each candidate. None of this touches the model: the engine encodes what
is `pending`, runs the canvas, and hands in what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gemd import wire
from gemd.worker.diffusion.draws import SeededDraws
from gemd.worker.diffusion.head import Wish
from gemd.worker.diffusion.picture import picture
from gemd.worker.diffusion.sampler import RANDOM, Canvas
from gemd.worker.diffusion.trace import CanvasTrace, Recorder, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from gemd.worker.diffusion.picture import Pieces
    from gemd.worker.diffusion.request import Task
    from gemd.worker.diffusion.sampler import Reading
    from gemd.worker.diffusion.writer import Writer, Written

    Emit = Callable[[wire.FromWorker], None]


@dataclass(slots=True)
class Times:
    """Clock readings in seconds."""

    placed: float | None = None
    """It got a slot."""
    canvas: float | None = None
    """Its first canvas began: the prompt was read."""


@dataclass(slots=True, eq=False)
class Answer:
    """One candidate of a request.

    Attributes:
        task: The request.
        candidate: From 0.
        writer: Of its text.
        pieces: Of the vocabulary.
        canvas_tokens: Of a canvas.
        vocabulary: Tokens there are.
        slot: Of the cache; None while it waits for one.
        pending: Tokens to be encoded before the next canvas.
        canvas: That is being denoised.
        soft: What conditions its next step; shape (canvas, hidden).
        cached: Prompt tokens that did not have to be encoded.

    """

    task: Task
    candidate: int
    writer: Writer
    pieces: Pieces
    canvas_tokens: int
    vocabulary: int
    slot: int | None = None
    pending: list[int] = field(default_factory=list)
    canvas: Canvas | None = None
    soft: torch.Tensor | None = None
    cached: int = 0
    times: Times = field(default_factory=Times)
    _number: int = -1
    _recorder: Recorder = field(default_factory=Recorder)
    _traces: list[CanvasTrace] = field(default_factory=list)
    _filled: tuple[str, ...] = ()
    _filled_tokens: int = 0

    @property
    def request_id(self) -> str:
        """Of the request."""
        return self.task.request.request_id

    @property
    def reads_prompt(self) -> bool:
        """Whether its slot does not hold the whole prompt yet."""
        return bool(self.pending) and self._number < 0

    def place(self, slot: int, cached: int, now: float) -> None:
        """It has a slot, which holds the first tokens of its prompt."""
        self.slot = slot
        self.cached = cached
        self.pending = list(self.task.prompt[cached:])
        self.times.placed = now

    def open(self, now: float) -> None:
        """Start the next canvas: all before it is encoded."""
        assert not self.pending
        assert self.canvas is None
        if self.times.canvas is None:
            self.times.canvas = now
        self._number += 1
        layout = self.task.layout
        given = np.full(self.canvas_tokens, RANDOM, dtype=np.int64)
        fixed = np.zeros(self.canvas_tokens, dtype=np.bool_)
        if layout is not None:
            given, fixed = layout.tokens, layout.fixed
        self.canvas = Canvas.start(
            self.task.schedule,
            SeededDraws(self.task.seed, self.candidate, self._number),
            vocabulary=self.vocabulary,
            given=given,
            fixed=fixed,
        )
        self._recorder = Recorder()
        self.soft = None

    def wish(self) -> Wish:
        """How the next step's logits are to be read."""
        assert self.canvas is not None
        return Wish(
            temperature=self.canvas.temperature,
            uniforms=self.canvas.uniforms(),
            fixed=self.canvas.fixed,
            tokens=self.canvas.tokens,
            filters=self.task.filters,
            bias=self.task.bias,
        )

    def take(self, reading: Reading, emit: Emit, *, show: bool, now: float) -> bool:
        """Go on by a step.

        Args:
            reading: What the model said.
            emit: Sends a message.
            show: Whether it is time to show a step to whoever watches; a last one always is.
            now: Clock reading, seconds.

        Returns:
            Whether the answer has ended.

        """
        canvas = self.canvas
        assert canvas is not None
        canvas.take(reading)
        self._recorder.observe(reading)
        if self.task.request.watch_canvas and (show or canvas.done):
            emit(
                picture(
                    canvas,
                    reading.confidence,
                    self.pieces,
                    request_id=self.request_id,
                    candidate=self.candidate,
                    number=self._number,
                )
            )
        if not canvas.done:
            return False
        if self.task.layout is not None:
            self._fill(canvas, emit, now)
            return True
        return self._commit(canvas, emit, now)

    def cancel(self, emit: Emit, now: float) -> None:
        """End it with what was committed so far."""
        self._end(self.writer.abandon(), emit, now)

    def finish_at_once(self, emit: Emit, now: float) -> None:
        """End it before its first canvas: nothing was to be generated."""
        written = self.writer.abandon()
        written.ended = self.task.limit_reason
        self._end(written, emit, now)

    def _commit(self, canvas: Canvas, emit: Emit, now: float) -> bool:
        tokens = canvas.likeliest.tolist()
        written = self.writer.commit(tokens)
        counted = np.arange(self.canvas_tokens) < written.positions
        self._traces.append(self._recorder.canvas(canvas, counted))
        self.canvas = None
        if written.ended is not None:
            self._end(written, emit, now)
            return True
        self._say(written, emit)
        # The whole of it: the next canvas attends to what stands there.
        self.pending = tokens
        return False

    def _fill(self, canvas: Canvas, emit: Emit, now: float) -> None:
        layout = self.task.layout
        assert layout is not None
        filling = layout.filled(canvas.likeliest)
        self._traces.append(self._recorder.canvas(canvas, filling.written))
        self.canvas = None
        self._filled = filling.spans
        self._filled_tokens = filling.tokens
        emit(
            wire.Delta(
                request_id=self.request_id,
                candidate=self.candidate,
                text=filling.text,
                tokens=tuple(int(token) for token in canvas.likeliest[~canvas.fixed]),
            )
        )
        written = self.writer.abandon()
        written.ended = "stop"
        self._end(written, emit, now)

    def _say(self, written: Written, emit: Emit) -> None:
        if written.text or written.reasoning or written.tokens:
            emit(
                wire.Delta(
                    request_id=self.request_id,
                    candidate=self.candidate,
                    text=written.text,
                    reasoning_text=written.reasoning,
                    tokens=tuple(written.tokens),
                )
            )

    def _end(self, written: Written, emit: Emit, now: float) -> None:
        assert written.ended is not None
        self._say(written, emit)
        self.task.unfinished -= 1
        placed = now if self.times.placed is None else self.times.placed
        began = now if self.times.canvas is None else self.times.canvas
        emit(
            wire.Finished(
                request_id=self.request_id,
                candidate=self.candidate,
                last=self.task.unfinished == 0,
                reason=written.ended,
                stop_string=written.stop_string,
                prompt_tokens=len(self.task.prompt),
                cached_tokens=self.cached,
                completion_tokens=self.writer.written + self._filled_tokens,
                reasoning_tokens=self.writer.reasoned,
                queue_seconds=placed - self.task.arrived,
                prefill_seconds=began - placed,
                decode_seconds=now - began,
                filled_spans=self._filled,
                trace=summary(self._traces),
            )
        )
