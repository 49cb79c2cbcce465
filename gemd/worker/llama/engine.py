"""The loop's one step: admit, plan, decode, hand out.

Everything here runs on the worker's engine thread, so there are no locks. Only prompts
are prepared elsewhere (a template or a tokenizer may take its time) and come back as
posted jobs.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from gemd import wire
from gemd.errors import EngineStartFailedError
from gemd.worker.intake import Intake
from gemd.worker.llama import loading
from gemd.worker.llama.batch import Batch
from gemd.worker.llama.binding import NoCellsLeftError
from gemd.worker.llama.params import BATCH_TOKENS, GUESSED_TOKENS, NARROW_ROWS, SCORED_TOKENS
from gemd.worker.llama.preparation import Preparation
from gemd.worker.llama.prompt_cache import PromptCache
from gemd.worker.llama.sequences import Sequences
from gemd.worker.llama.tasks import Moment, Output, Task
from gemd.worker.schedule import Rate, chunk_budget, share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gemd.worker.host import Host, Progress
    from gemd.worker.llama.prefix import Placement
    from gemd.worker.llama.sequences import KVSequence


SEND_SECONDS = 0.02
"""Running answers are sent at most fifty times a second, all of them together: a token that
comes sooner joins the next message. No screen shows more."""

CPU_SEND_SECONDS = 0.05
"""The same where decodes take the CPU's cores: twenty times. Whatever is in a message, it wakes a
process whose code has left the caches meanwhile, which takes 0.4 ms of a core from a decode (two
cores, eight streams in 28 to 40 ms a step: 2 % with a message for each step)."""


class _Feed(NamedTuple):
    """A task's part of one decode.

    Attributes:
        sequence: Where it goes.
        task: Whose it is.
        start: Position of the first token.
        tokens: What is evaluated.
        batch_index: Of the first token.
        wanted: Positions whose outputs the task takes.
        read: Tokens of a prompt.

    """

    sequence: KVSequence
    task: Task
    start: int
    tokens: Sequence[int]
    batch_index: int
    wanted: range
    read: int


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
        self._waiting: list[Task] = []
        self._next_deadline = math.inf
        self._sent = -math.inf
        self._embedding = False
        self._intake: Intake[Task] = Intake(
            host, prepare=self._prepare, ready=self._take, clock=clock
        )

    def load(self, load: wire.Load, progress: Progress) -> wire.Ready:
        """See `Engine.load`."""
        self._loaded = loading.load(load, progress, self._clock)
        self._model, self._context = self._loaded.model, self._loaded.context
        self._sequences = Sequences(
            self._model,
            self._context,
            count=load.max_sequences,
            prompt_cache=PromptCache(load.prompt_cache_bytes),
        )
        self._on_cpu = bool(load.host_expert_layers) or load.gpu_layers <= self._model.layers
        self._send_seconds = CPU_SEND_SECONDS if self._on_cpu else SEND_SECONDS
        self._prepare_for_context()
        return self._loaded.ready

    def resize(self, resize: wire.Resize) -> wire.Resized:
        """See `Engine.resize`; conversations go on as far as the prompt cache takes them."""
        # A new context keeps no hidden states, whatever the old one was told.
        self._embedding = False
        try:
            self._sequences.resize(
                loading.usable_context(self._model, resize.context_tokens),
                prompt_cache_bytes=resize.prompt_cache_bytes,
            )
        except EngineStartFailedError:
            loading.warm_up(self._model, self._context)
            raise
        loading.warm_up(self._model, self._context)
        self._prepare_for_context()
        return wire.Resized(
            request_id=resize.request_id,
            context_tokens=self._context.tokens,
            memory_bytes=loading.memory_bytes(),
        )

    def _prepare_for_context(self) -> None:
        self._preparation = Preparation(
            self._loaded.builder,
            self._model.vocabulary,
            context_tokens=self._context.tokens,
            pooling=self._model.pooling,
            speculates=not self._model.has_state,
        )

    def accept(self, message: wire.Work) -> None:
        """See `Engine.accept`."""
        self._intake.accept(message)

    def cancel(self, request_id: str) -> None:
        """See `Engine.cancel`."""
        if self._intake.cancel(request_id):
            return
        for task in self._tasks():
            if task.request_id == request_id:
                task.cancel(self._moment())
                self._end(task)

    def step(self) -> bool:
        """See `Engine.step`: one decode."""
        self._expire()
        self._admit()
        if not self._sequences.any_running():
            return False
        feeds = self._decode()
        if feeds:
            self._hand_out(feeds)
        return True

    def idle(self) -> bool:
        """See `Engine.idle`."""
        return not (self._intake or self._waiting or self._sequences.any_running())

    def status(self, nonce: int) -> wire.Pong:
        """See `Engine.status`."""
        return wire.Pong(
            nonce=nonce,
            active=len(self._sequences.running()),
            waiting=len(self._waiting) + len(self._intake),
            cached_tokens=self._sequences.cached_tokens(),
        )

    def close(self) -> None:
        """See `Engine.close`."""
        self._intake.close()
        self._loaded.close()

    # --- requests come in -----------------------------------------------------------

    def _prepare(self, message: wire.Work, arrived: float) -> Task | wire.Counted:
        """On the preparation thread."""
        if isinstance(message, wire.Count):
            return self._loaded.builder.count(message)
        return self._preparation.task(message, arrived)

    def _take(self, task: Task) -> None:
        self._waiting.append(task)
        if task.deadline is not None:
            self._next_deadline = min(self._next_deadline, task.deadline)
        # Not left to the step: Started then leaves before the prompt is read.
        self._admit()

    def _moment(self) -> Moment:
        return Moment(self._context, self._host.emit, self._clock())

    def _tasks(self) -> list[Task]:
        return [*self._waiting, *(task for _, task in self._sequences.running())]

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
        for sequence, running in self._sequences.running():
            if running is task:
                sequence.task = None
                sequence.last_used = self._clock()

    # --- requests get a sequence ----------------------------------------------------

    def _admit(self) -> None:
        while self._waiting:
            task = self._waiting[0]
            placement = self._sequences.place(task.prefix)
            if placement is None or not self._has_cells(task, placement):
                return
            self._waiting.pop(0)
            sequence = self._sequences.prepare(placement)
            sequence.task = task
            task.begin(len(sequence.tokens), self._moment())

    def _has_cells(self, task: Task, placement: Placement) -> bool:
        """Whether its prompt fits beside what runs; caches give way, requests should not.

        Answers that grow past this set the last one aside later, which costs reading its
        prompt again; so it must not happen to prompts that could have waited.
        """
        running = self._sequences.running()
        if not running:
            return True
        held = sum(len(other.tokens) for _, other in running)
        needed = len(task.tokens) - self._sequences.shared_tokens(placement)
        return held + needed < self._context.tokens

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
                if not self._sequences.any_running():
                    return []
                continue
            self._rate.observe(sum(feed.read for feed in feeds), self._clock() - before)
            return feeds

    def _plan(self) -> list[_Feed]:
        """Fill the batch: one token of every running answer, the rest for prompts and guesses."""
        self._batch.clear()
        feeds, guessers, readers = [], [], []
        for sequence, task in self._turn():
            if not task.streaming or _missing(sequence, task) != 1:
                readers.append((sequence, task))
            elif task.guess:
                guessers.append((sequence, task))
            else:
                feeds.append(self._next_token(sequence, task))
        if not readers and not guessers:
            return feeds
        readers.sort(key=lambda pair: pair[1].times.arrived)
        # llama.cpp aborts at a decode that is larger than the whole cache.
        streams = len(feeds) + len(guessers)
        limit = min(BATCH_TOKENS, self._context.tokens) - streams
        budget = chunk_budget(rate=self._rate.value, streams=streams, limit=limit)
        missing = [_missing(sequence, task) for sequence, task in readers]
        guessable = self._guessable(streams, sum(missing))
        guessed = share(min(budget, guessable), [len(task.guess) for _, task in guessers])
        for (sequence, task), part in zip(guessers, guessed, strict=True):
            feeds.append(self._guess(sequence, task, part))
        parts = share(min(budget, limit - sum(guessed)), missing)
        outputs = SCORED_TOKENS - sum(guessed)
        for (sequence, task), part in zip(readers, parts, strict=True):
            feed = self._feed(sequence, task, part, outputs)
            outputs -= len(feed.wanted)
            feeds.append(feed)
        return [feed for feed in feeds if feed.tokens]

    def _guessable(self, streams: int, missing: int) -> int:
        """How many guesses one decode takes.

        Args:
            streams: Answers whose next token goes first.
            missing: Tokens of prompts that have still to be read.

        """
        most = NARROW_ROWS - streams if self._on_cpu else GUESSED_TOKENS
        # Nobody gives way to a guess, no cache either.
        free = self._context.tokens - self._sequences.cached_tokens() - streams - missing
        return max(0, min(most, free))

    def _turn(self) -> list[tuple[KVSequence, Task]]:
        """The requests of the next decode.

        llama.cpp puts out every token of a decode that wants hidden states, so those
        requests take turns with the others.
        """
        running = self._sequences.running()
        embedding = [pair for pair in running if pair[1].needs_embeddings]
        others = [pair for pair in running if not pair[1].needs_embeddings]
        chosen = embedding if embedding and not (others and self._embedding) else others
        if bool(chosen and chosen is embedding) != self._embedding:
            self._embedding = not self._embedding
            self._context.want_embeddings(wanted=self._embedding)
        return chosen

    def _next_token(self, sequence: KVSequence, task: Task) -> _Feed:
        """Put the last token of a running answer into the batch."""
        position = len(sequence.tokens)
        token = task.tokens[position]
        index = self._batch.add_one(sequence.index, position, token)
        wanted = range(position, position + 1)
        return _Feed(sequence, task, position, (token,), index, wanted, read=0)

    def _guess(self, sequence: KVSequence, task: Task, count: int) -> _Feed:
        """The same with up to `count` tokens that may follow it."""
        position = len(sequence.tokens)
        tokens = (task.tokens[position], *task.guess[:count])
        index = self._batch.add(sequence.index, position, tokens, range(len(tokens)))
        wanted = range(position, position + len(tokens))
        return _Feed(sequence, task, position, tokens, index, wanted, read=0)

    def _feed(self, sequence: KVSequence, task: Task, count: int, outputs: int) -> _Feed:
        """Put up to `count` tokens with up to `outputs` wanted positions into the batch."""
        start = len(sequence.tokens)
        stop = start + count
        wanted = task.wanted(start, stop)
        if len(wanted) > outputs:
            wanted = wanted[:outputs]
            stop = wanted[-1] + 1 if wanted else task.wanted(start, stop).start
        index = len(self._batch)
        tokens = task.tokens[start:stop]
        if tokens:
            self._batch.add(
                sequence.index, start, tokens, (position - start for position in wanted)
            )
        read = 0 if task.streaming else len(tokens)
        return _Feed(sequence, task, start, tokens, index, wanted, read)

    def _make_room(self) -> None:
        """Free cells: the longest unused cache, else the request that came last."""
        if self._sequences.free_oldest_idle():
            return
        running = self._sequences.running()
        last, task = max(running, key=lambda pair: pair[1].times.arrived)
        last.task = None
        if len(running) == 1:
            # Alone and still no room: the cache is smaller than the window promised.
            task.context_full(self._moment())
            task.close()
        else:
            # What it has answered so far is part of its tokens: it goes on from there.
            task.set_aside(self._moment())
            self._waiting.insert(0, task)
            last.last_used = self._clock()
            self._sequences.save(last)
        self._sequences.cut(last, 0)

    def _hand_out(self, feeds: list[_Feed]) -> None:
        moment = self._moment()
        if moment.now - self._sent < self._send_seconds:
            moment = moment._replace(send=False)
        else:
            self._sent = moment.now
        rows = sum(len(feed.wanted) for feed in feeds)
        logits = self._context.logits(rows) if rows else None
        row = 0
        for feed in feeds:
            feed.sequence.tokens.extend(feed.tokens)
            if not feed.wanted:
                continue
            assert logits is not None
            outputs = [
                Output(position, feed.batch_index + position - feed.start, logits[row + offset])
                for offset, position in enumerate(feed.wanted)
            ]
            row += len(outputs)
            ended = feed.task.take(outputs, moment)
            if (keep := feed.task.rewind()) is not None:
                self._sequences.rewind(feed.sequence, keep)
            if ended:
                self._end(feed.task)


def _missing(sequence: KVSequence, task: Task) -> int:
    """Tokens that are still to be evaluated."""
    return task.goal - len(sequence.tokens)
