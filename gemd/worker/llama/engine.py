"""The loop's one step: admit, plan, decode, hand out.

Everything here runs on the worker's engine thread, so there are no locks. Only prompts
are prepared elsewhere (a template or a tokenizer may take its time) and come back as
posted jobs.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gemd import wire
from gemd.errors import CancelledError, GemdError
from gemd.worker.llama import loading
from gemd.worker.llama.binding import (
    BATCH_TOKENS,
    SCORED_TOKENS,
    Batch,
    NoCellsLeftError,
)
from gemd.worker.llama.prefix import CachedSequence, Placement, place
from gemd.worker.llama.preparation import Preparation
from gemd.worker.llama.schedule import Rate, chunk_budget, share
from gemd.worker.llama.tasks import Generation, Moment, Output, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.worker.host import Host, Progress


@dataclass
class _Sequence:
    """One sequence of the KV cache and who uses it."""

    index: int
    tokens: list[int] = field(default_factory=list)
    task: Task | None = None
    last_used: float = 0.0


class _Feed(NamedTuple):
    """A task's part of one decode."""

    sequence: _Sequence
    task: Task
    start: int
    stop: int
    batch_index: int
    wanted: range


class LlamaEngine:
    """Answers requests with one GGUF model, several at a time.

    Args:
        host: The process around it.
        clock: Seconds, monotonic.

    """

    def __init__(self, host: Host, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._clock = clock
        self._rate = Rate()
        self._batch = Batch(BATCH_TOKENS)
        self._sequences: list[_Sequence] = []
        self._waiting: list[Task] = []
        self._next_deadline = math.inf
        self._preparing: set[str] = set()
        self._embedding = False
        # One thread: the renderer is a conversation, and one core is enough for it.
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="gemd-prepare")

    def load(self, load: wire.Load, progress: Progress) -> wire.Ready:
        """See `Engine.load`."""
        self._loaded = loading.load(load, progress, self._clock)
        self._model, self._context = self._loaded.model, self._loaded.context
        self._sequences = [_Sequence(i) for i in range(load.max_sequences)]
        self._preparation = Preparation(
            self._loaded.builder, self._model.vocabulary, context_tokens=self._context.tokens
        )
        return self._loaded.ready

    def accept(self, message: wire.Work) -> None:
        """See `Engine.accept`."""
        self._preparing.add(message.request_id)
        self._preparer.submit(self._prepare, message, self._clock())

    def cancel(self, request_id: str) -> None:
        """See `Engine.cancel`."""
        if request_id in self._preparing:
            self._preparing.discard(request_id)
            self._fail(request_id, CancelledError("the request was cancelled"))
            return
        for task in self._tasks():
            if task.request_id == request_id:
                task.cancel(self._moment())
                self._end(task)

    def step(self) -> bool:
        """See `Engine.step`: one decode."""
        self._expire()
        self._admit()
        if not any(sequence.task for sequence in self._sequences):
            return False
        feeds = self._decode()
        if feeds:
            self._hand_out(feeds)
        return True

    def idle(self) -> bool:
        """See `Engine.idle`."""
        return not (self._preparing or self._waiting or any(s.task for s in self._sequences))

    def status(self, nonce: int) -> wire.Pong:
        """See `Engine.status`."""
        return wire.Pong(
            nonce=nonce,
            active=sum(sequence.task is not None for sequence in self._sequences),
            waiting=len(self._waiting) + len(self._preparing),
            cached_tokens=sum(len(sequence.tokens) for sequence in self._sequences),
        )

    def close(self) -> None:
        """See `Engine.close`."""
        self._preparer.shutdown()
        self._loaded.close()

    # --- requests come in -----------------------------------------------------------

    def _prepare(self, message: wire.Work, arrived: float) -> None:
        """On the preparation thread."""
        try:
            if isinstance(message, wire.Count):
                answer = self._preparation.count(message)
                self._host.post(lambda: self._prepared(message.request_id, answer))
            else:
                task = self._preparation.task(message, arrived)
                self._host.post(lambda: self._prepared(message.request_id, task))
        except GemdError as caught:
            failure = wire.RequestFailed(
                request_id=message.request_id, error=wire.ErrorBody.of(caught)
            )
            self._host.post(lambda: self._prepared(message.request_id, failure))
        except BaseException as caught:  # noqa: BLE001 - the engine thread has to know
            defect = caught
            self._host.post(lambda: _raise(defect))

    def _prepared(self, request_id: str, result: Task | wire.Counted | wire.RequestFailed) -> None:
        if request_id not in self._preparing:
            return  # cancelled meanwhile, and answered then
        self._preparing.discard(request_id)
        if isinstance(result, Task):
            self._waiting.append(result)
            if result.deadline is not None:
                self._next_deadline = min(self._next_deadline, result.deadline)
            # Not left to the step, so that Started leaves before the prompt is read.
            self._admit()
            # Not left to the step: Started then leaves before the prompt is read.
            self._admit()
        else:
            self._host.emit(result)

    def _moment(self) -> Moment:
        return Moment(self._context, self._host.emit, self._clock())

    def _tasks(self) -> list[Task]:
        return [*self._waiting, *(s.task for s in self._sequences if s.task)]

    def _expire(self) -> None:
        if self._clock() < self._next_deadline:
            return
        moment = self._moment()
        for task in self._tasks():
            if task.deadline is not None and moment.now >= task.deadline:
                task.expire(moment)
                self._end(task)
        left = (task.deadline for task in self._tasks() if task.deadline is not None)
        self._next_deadline = min(left, default=math.inf)

    def _end(self, task: Task) -> None:
        """The task is answered: its sequence stays as a cache for the next one."""
        task.close()
        if task in self._waiting:
            self._waiting.remove(task)
        for sequence in self._sequences:
            if sequence.task is task:
                sequence.task = None
                sequence.last_used = self._clock()

    def _fail(self, request_id: str, error: GemdError) -> None:
        self._host.emit(wire.RequestFailed(request_id=request_id, error=wire.ErrorBody.of(error)))

    # --- requests get a sequence ----------------------------------------------------

    def _admit(self) -> None:
        while self._waiting:
            task = self._waiting[0]
            placement = place(
                task.prefix,
                [
                    CachedSequence(s.index, s.tokens, s.task is not None, s.last_used)
                    for s in self._sequences
                ],
                lambda cached, keep: self._can_keep(cached.index, len(cached.tokens), keep),
            )
            if placement is None or not self._has_cells(task, placement):
                return
            self._waiting.pop(0)
            target = self._sequences[placement.target]
            if placement.source is not None and placement.source != placement.target:
                self._cut(target, 0)
                source = self._sequences[placement.source]
                self._context.copy(source.index, target.index, placement.keep)
                target.tokens = source.tokens[: placement.keep]
            else:
                self._cut(target, placement.keep)
            target.task = task
            task.begin(len(target.tokens), self._moment())

    def _has_cells(self, task: Task, placement: Placement) -> bool:
        """Whether its prompt fits beside what runs; caches give way, requests should not.

        Answers that grow past this set the last one aside later, which costs reading its
        prompt again; so it must not happen to prompts that could have waited.
        """
        running = [s for s in self._sequences if s.task]
        if not running:
            return True
        held = sum(len(s.task.tokens) for s in running if s.task)
        shared = placement.keep if any(s.index == placement.source for s in running) else 0
        return held + len(task.tokens) - shared < self._context.tokens

    def _can_keep(self, index: int, length: int, keep: int) -> bool:
        """Whether the first `keep` positions can still be attended to.

        A layer with a sliding window overwrites cells that have left it. llama.cpp
        agrees to a cut whose window reaches into them and decodes on in silence, with
        wrong answers; so look at the oldest position that every layer still holds.
        """
        if self._model.has_state:
            return keep == length
        first = self._context.first_position(index)
        return 0 <= first <= max(0, keep - self._model.sliding_window)

    def _cut(self, sequence: _Sequence, keep: int) -> None:
        """Keep the first `keep` positions, or none where the memory cannot do that."""
        if len(sequence.tokens) > keep and not self._context.cut(sequence.index, keep):
            self._context.cut(sequence.index, 0)
            keep = 0
        del sequence.tokens[keep:]

    def _rewind(self, sequence: _Sequence, keep: int) -> None:
        if keep and not self._can_keep(sequence.index, len(sequence.tokens), keep):
            keep = 0
        self._cut(sequence, keep)

    # --- one decode -----------------------------------------------------------------

    def _decode(self) -> list[_Feed]:
        """Evaluate the next piece of every request; its parts, or none if none fitted."""
        while True:
            feeds = self._plan()
            before = self._clock()
            try:
                self._context.decode(self._batch)
            except NoCellsLeftError:
                self._make_room()
                if not any(sequence.task for sequence in self._sequences):
                    return []
                continue
            read = sum(feed.stop - feed.start for feed in feeds if not feed.task.streaming)
            self._rate.observe(read, self._clock() - before)
            return feeds

    def _plan(self) -> list[_Feed]:
        """Fill the batch: one token of every running answer, the rest for prompts."""
        self._batch.clear()
        running = self._turn()
        feeds = []
        readers = []
        for sequence, task in running:
            if task.streaming and _missing(sequence, task) == 1:
                feeds.append(self._next_token(sequence, task))
            else:
                readers.append((sequence, task))
        if not readers:
            return feeds
        streams = len(feeds)
        readers.sort(key=lambda pair: pair[1].times.arrived)
        budget = chunk_budget(rate=self._rate.value, streams=streams, limit=BATCH_TOKENS - streams)
        parts = share(budget, [_missing(s, task) for s, task in readers])
        outputs = SCORED_TOKENS
        for (sequence, task), part in zip(readers, parts, strict=True):
            feed = self._feed(sequence, task, part, outputs)
            outputs -= len(feed.wanted)
            feeds.append(feed)
        return [feed for feed in feeds if feed.stop > feed.start]

    def _turn(self) -> list[tuple[_Sequence, Task]]:
        """The requests of the next decode.

        llama.cpp puts out every token of a decode that wants hidden states, so those
        requests take turns with the others.
        """
        running = [(s, s.task) for s in self._sequences if s.task is not None]
        embedding = [pair for pair in running if pair[1].needs_embeddings]
        others = [pair for pair in running if not pair[1].needs_embeddings]
        chosen = embedding if embedding and not (others and self._embedding) else others
        if bool(chosen and chosen is embedding) != self._embedding:
            self._embedding = not self._embedding
            self._context.want_embeddings(wanted=self._embedding)
        return chosen

    def _next_token(self, sequence: _Sequence, task: Task) -> _Feed:
        """Put the last token of a running answer into the batch."""
        position = len(sequence.tokens)
        index = self._batch.add_one(sequence.index, position, task.tokens[position])
        wanted = range(position, position + 1)
        return _Feed(sequence, task, position, position + 1, index, wanted)

    def _feed(self, sequence: _Sequence, task: Task, count: int, outputs: int) -> _Feed:
        """Put up to `count` tokens with up to `outputs` wanted positions into the batch."""
        start = len(sequence.tokens)
        stop = start + count
        wanted = task.wanted(start, stop)
        if len(wanted) > outputs:
            wanted = wanted[:outputs]
            stop = wanted[-1] + 1 if wanted else task.wanted(start, stop).start
        index = len(self._batch)
        if stop > start:
            self._batch.add(
                sequence.index,
                start,
                task.tokens[start:stop],
                (position - start for position in wanted),
            )
        return _Feed(sequence, task, start, stop, index, wanted)

    def _make_room(self) -> None:
        """Free cells: the longest unused cache, else the request that came last."""
        caches = [s for s in self._sequences if s.task is None and s.tokens]
        if caches:
            self._cut(min(caches, key=lambda s: s.last_used), 0)
            return
        running = [s for s in self._sequences if s.task is not None]
        last = max(running, key=lambda s: s.task.times.arrived if s.task else 0.0)
        task, last.task = last.task, None
        assert task is not None
        if len(running) == 1 and isinstance(task, Generation):
            # Alone and still no room: the cache is smaller than the window promised.
            task.context_full(self._moment())
            task.close()
        else:
            # What it has answered so far is part of its tokens: it goes on from there.
            self._waiting.insert(0, task)
        self._cut(last, 0)

    def _hand_out(self, feeds: list[_Feed]) -> None:
        moment = self._moment()
        rows = sum(len(feed.wanted) for feed in feeds)
        logits = self._context.logits(rows) if rows else None
        row = 0
        for feed in feeds:
            feed.sequence.tokens.extend(feed.task.tokens[feed.start : feed.stop])
            if not feed.wanted:
                continue
            assert logits is not None
            outputs = [
                Output(position, feed.batch_index + position - feed.start, logits[row + offset])
                for offset, position in enumerate(feed.wanted)
            ]
            row += len(outputs)
            if feed.task.take(outputs, moment):
                self._end(feed.task)
            elif (keep := feed.task.rewind()) is not None:
                self._rewind(feed.sequence, keep)


def _missing(sequence: _Sequence, task: Task) -> int:
    """Tokens that are still to be evaluated."""
    return task.goal - len(sequence.tokens)


def _raise(defect: BaseException) -> None:
    raise defect
