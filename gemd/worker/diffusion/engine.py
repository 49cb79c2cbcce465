"""The loop's one step: admit, read a piece of a prompt, denoise one step of every canvas.

Everything here runs on the worker's engine thread, so there are no locks. Only prompts are
prepared elsewhere (a template or a tokenizer may take its time) and come back as posted jobs.
Canvases of all answers share one pass over the weights; they enter and leave between steps, each
at a step of its own.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from gemd import wire
from gemd.errors import (
    BadModelFileError,
    DeadlineExpiredError,
    EngineCrashedError,
    EngineStartFailedError,
    GemdError,
    UnsupportedInputError,
)
from gemd.worker.diffusion import loading
from gemd.worker.diffusion.cache import place
from gemd.worker.diffusion.memory import OutOfMemoryError, lack, recover, watched
from gemd.worker.diffusion.stack import PREFILL_TOKENS
from gemd.worker.diffusion.turns import next_answer, portions
from gemd.worker.intake import Intake
from gemd.worker.schedule import Rate, chunk_budget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from gemd.worker.diffusion.answer import Answer
    from gemd.worker.diffusion.head import Wish
    from gemd.worker.diffusion.sampler import Reading
    from gemd.worker.host import Host, Progress

SHOW_SECONDS = 0.02
"""Steps are shown at most fifty times a second, as texts of the llama engine are."""
SHORT_STEPS = 256
"""After so many steps in smaller groups of canvases it is tried whether there is memory again."""


class DiffusionEngine:
    """Answers requests with one block-diffusion model, several at a time.

    Args:
        host: The process around it.
        clock: Seconds, monotonic.
        path: How to compute with packed weights; None for what is fastest here.

    """

    def __init__(
        self,
        host: Host,
        *,
        clock: Callable[[], float] = time.monotonic,
        path: str | None = None,
    ) -> None:
        self._host = host
        self._clock = clock
        self._path = path
        self._rate = Rate()
        self._waiting: list[Answer] = []
        self._running: list[Answer] = []
        self._next_deadline = math.inf
        self._shown = -math.inf
        self._together = math.inf
        self._short_steps = 0
        self._intake: Intake[list[Answer]] = Intake(
            host, prepare=self._prepare, ready=self._take, clock=clock
        )

    def load(self, load: wire.Load, progress: Progress) -> wire.Ready:
        """See `Engine.load`."""
        self._loaded = loading.load(load, progress, self._clock, path=self._path)
        self._stack = self._loaded.stack
        self._last_used = [0.0] * load.max_sequences
        return self._loaded.ready

    def resize(self, resize: wire.Resize) -> wire.Resized:
        """See `Engine.resize`."""
        before = self._stack.slots.context_tokens
        wanted = loading.usable_context(self._loaded.checkpoint, resize.context_tokens)
        try:
            with watched():
                loading.resize(self._loaded, wanted)
        except OutOfMemoryError as error:
            recover(self._stack.device)
            self._restore(before, error)
            raise EngineStartFailedError(
                f"there is no memory for a context of {wanted} tokens",
                why=str(error),
                metadata={"context_tokens": wanted, "kept_context_tokens": before},
            ) from None
        self._loaded.preparation.context_tokens = wanted
        return wire.Resized(
            request_id=resize.request_id,
            context_tokens=wanted,
            memory_bytes=loading.memory_bytes(),
        )

    def _restore(self, context_tokens: int, cause: BaseException) -> None:
        try:
            with watched():
                loading.resize(self._loaded, context_tokens)
        except OutOfMemoryError:
            raise EngineCrashedError(
                "the context is gone: there was no memory for another one, nor for the old one",
                why=str(cause),
                metadata={"context_tokens": context_tokens},
            ) from None

    def accept(self, message: wire.Work) -> None:
        """See `Engine.accept`."""
        if isinstance(message, wire.Score | wire.Embed):
            raise UnsupportedInputError(
                f"a block-diffusion model does not answer {message.type}",
                why="it denoises a whole canvas, and gives no probability of one token after the "
                "other, nor a vector of a text",
                metadata={"field": "model"},
            )
        self._intake.accept(message)

    def cancel(self, request_id: str) -> None:
        """See `Engine.cancel`."""
        if self._intake.cancel(request_id):
            return
        for answer in [each for each in self._answers() if each.request_id == request_id]:
            answer.cancel(self._host.emit, self._clock())
            self._leave(answer)

    def step(self) -> bool:
        """See `Engine.step`: a piece of a prompt, and a step of every canvas."""
        self._expire()
        self._admit()
        readers = [answer for answer in self._running if answer.pending]
        self._read(readers)
        for answer in [each for each in self._running if not each.pending]:
            self._open(answer)
        canvases = [answer for answer in self._running if answer.canvas is not None]
        if canvases:
            self._denoise(canvases)
        # An answer of no tokens may have ended without any of it, and left its slot to another.
        return bool(readers or canvases or self._answers())

    def idle(self) -> bool:
        """See `Engine.idle`."""
        return not (self._intake or self._waiting or self._running)

    def status(self, nonce: int) -> wire.Pong:
        """See `Engine.status`."""
        slots = self._stack.slots
        return wire.Pong(
            nonce=nonce,
            active=len(self._running),
            waiting=len(self._waiting) + len(self._intake),
            cached_tokens=sum(len(held.tokens) for held in slots.held),
        )

    def close(self) -> None:
        """See `Engine.close`."""
        self._intake.close()
        self._loaded.close()

    # --- requests come in -----------------------------------------------------------

    def _prepare(self, message: wire.Work, arrived: float) -> list[Answer] | wire.Counted:
        """On the preparation thread."""
        if isinstance(message, wire.Count):
            return self._loaded.builder.count(message)
        assert isinstance(message, wire.Generate), "others are refused as they come"
        return self._loaded.preparation.answers(message, arrived)

    def _take(self, answers: list[Answer]) -> None:
        self._waiting += answers
        task = answers[0].task
        if task.deadline is not None:
            self._next_deadline = min(self._next_deadline, task.deadline)
        # Not left to the step: Started then leaves before the prompt is read.
        self._admit()

    def _answers(self) -> list[Answer]:
        return [*self._running, *self._waiting]

    def _expire(self) -> None:
        now = self._clock()
        if now < self._next_deadline:
            return
        for task in {id(each.task): each.task for each in self._answers()}.values():
            if task.deadline is not None and now >= task.deadline:
                waited = now - task.arrived
                self._drop(
                    task.request.request_id,
                    DeadlineExpiredError(
                        f"the deadline passed after {waited:.1f} s",
                        why=f"{task.unfinished} of {task.request.candidates} answers were open",
                        metadata={"seconds": f"{waited:.3f}", "prompt_tokens": len(task.prompt)},
                    ),
                )
        left = (each.task.deadline for each in self._answers() if each.task.deadline is not None)
        self._next_deadline = min(left, default=math.inf)

    def _drop(self, request_id: str, error: GemdError) -> None:
        """End a request with all its candidates."""
        for answer in [each for each in self._answers() if each.request_id == request_id]:
            self._leave(answer)
        self._host.emit(wire.RequestFailed.of(request_id, error))

    def _leave(self, answer: Answer) -> None:
        """The answer is ended: its slot stays as a cache for the next one."""
        if answer in self._waiting:
            self._waiting.remove(answer)
        if answer in self._running:
            self._running.remove(answer)
            assert answer.slot is not None
            self._last_used[answer.slot] = self._clock()

    # --- answers get a slot ---------------------------------------------------------

    def _admit(self) -> None:
        while True:
            busy = {each.slot for each in self._running}
            free = [slot for slot in range(len(self._last_used)) if slot not in busy]
            answer = next_answer(self._waiting, self._running) if free else None
            if answer is None:
                return
            self._waiting.remove(answer)
            self._place(answer, free)

    def _place(self, answer: Answer, free: Sequence[int]) -> None:
        slots, prompt = self._stack.slots, answer.task.prompt
        found = place(
            prompt, slots.held, free=free, last_used=self._last_used, keep=slots.window_keep
        )
        target, cached = found.slot, found.kept
        if found.source == target:
            slots.cut(target, cached)
        else:
            slots.copy(found.source, target, cached)
        now = self._clock()
        answer.place(target, cached, now)
        self._running.append(answer)
        if answer.task.started is None:
            answer.task.started = now
            self._host.emit(
                wire.Started(
                    request_id=answer.request_id,
                    prompt_tokens=len(prompt),
                    cached_tokens=cached,
                )
            )

    # --- work -----------------------------------------------------------------------

    def _read(self, answers: Sequence[Answer]) -> None:
        """A piece of the prompts that wait, or all of them where they are short."""
        streams = sum(each.canvas is not None for each in self._running)
        budget = chunk_budget(rate=self._rate.value, streams=streams, limit=PREFILL_TOKENS)
        for answer, tokens in portions(answers, budget):
            # An answer whose request has failed meanwhile has left.
            if answer in self._running:
                self._encode(answer, tokens)

    def _encode(self, answer: Answer, most: int) -> None:
        """Read up to so many tokens of a prompt."""
        assert answer.slot is not None
        chunk = answer.pending[: self._stack.chunk_limit(answer.slot, most)]
        before = self._clock()
        try:
            with watched():
                self._stack.encode(answer.slot, chunk)
                # Else the clock tells how long it takes to ask.
                self._stack.wait()
        except OutOfMemoryError as error:
            # Some layers hold these tokens already, and others do not.
            self._stack.slots.cut(answer.slot, 0)
            self._lack(answer, error, f"to read {len(chunk)} tokens of the prompt")
            return
        del answer.pending[: len(chunk)]
        self._rate.observe(len(chunk), self._clock() - before)

    def _open(self, answer: Answer) -> None:
        if answer.canvas is not None:
            return
        if answer.task.limit == 0:
            answer.finish_at_once(self._host.emit, self._clock())
            self._leave(answer)
            return
        answer.open(self._clock())

    def _denoise(self, answers: Sequence[Answer]) -> None:
        """A step of every canvas, in as few passes as there is memory for."""
        now = self._clock()
        show = now - self._shown >= SHOW_SECONDS
        if show:
            self._shown = now
        # Asked for once, whatever a pass comes to: each step of a canvas draws once.
        steps = [(answer, answer.wish()) for answer in answers]
        while steps:
            group = steps[: int(min(len(steps), self._together))]
            try:
                with watched():
                    done = self._pass(group)
            except OutOfMemoryError as error:
                if len(group) > 1:
                    recover(self._stack.device)
                    self._together, self._short_steps = len(group) // 2, 0
                    continue
                answer = group[0][0]
                self._lack(answer, error, f"to denoise {self._stack.canvas_tokens} tokens")
            else:
                self._hand_out([answer for answer, _ in group], done, show=show)
                del steps[: len(group)]
            # The other candidates of a request that has failed are gone with it.
            steps = [step for step in steps if step[0] in self._running]
        self._short_steps += 1
        if not self._running or self._short_steps == SHORT_STEPS:
            # Memory may be there again.
            self._together = math.inf

    def _hand_out(
        self, answers: Sequence[Answer], done: Sequence[tuple[Reading, torch.Tensor]], *, show: bool
    ) -> None:
        for answer, (reading, soft) in zip(answers, done, strict=True):
            if answer not in self._running:
                continue  # another candidate of its request has failed
            if not reading.sound:
                self._drop(answer.request_id, _no_numbers(self._loaded.ready.compute))
                continue
            answer.soft = soft
            if answer.take(reading, self._host.emit, show=show, now=self._clock()):
                self._leave(answer)

    def _pass(self, group: Sequence[tuple[Answer, Wish]]) -> list[tuple[Reading, torch.Tensor]]:
        slots = [answer.slot for answer, _ in group if answer.slot is not None]
        wishes = [wish for _, wish in group]
        return self._loaded.denoiser.step(slots, wishes, [answer.soft for answer, _ in group])

    def _lack(self, answer: Answer, error: OutOfMemoryError, what: str) -> None:
        recover(self._stack.device)
        self._drop(answer.request_id, lack(what, error, self._stack.device))


def _no_numbers(compute: str) -> BadModelFileError:
    return BadModelFileError(
        "the model computes infinities, or what is no number",
        why=f"its weights are damaged, or the way that it computes ({compute}) is wrong here",
        advice=("gemctl doctor --engine diffusion",),
        metadata={"compute": compute},
    )
