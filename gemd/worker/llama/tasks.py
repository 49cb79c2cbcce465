"""What one request wants evaluated, and what it does with the result.

A task owns a list of tokens that is to stand in its sequence of the KV cache. The
engine evaluates what is missing there, chunk by chunk, and hands the task the logits it
wanted. Answering grows the list by a token each time; scoring and embedding replace it.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gemd import wire
from gemd.errors import CancelledError, ContextTooLongError, DeadlineExpiredError
from gemd.worker.llama.sampling import Sampler, log_softmax, token_logprob
from gemd.worker.prompting.reasoning import Splitter
from gemd.worker.prompting.text import TextStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from gemd.errors import GemdError
    from gemd.worker.llama.binding import Context
    from gemd.worker.llama.vocabulary import Vocabulary

    Emit = Callable[
        [
            wire.Started
            | wire.Delta
            | wire.Finished
            | wire.RequestFailed
            | wire.Scores
            | wire.Embeddings
        ],
        None,
    ]


class Output(NamedTuple):
    """What the model said at one wanted position.

    Attributes:
        position: In the sequence.
        batch_index: Of the token in the batch.
        logits: Shape (vocabulary,), a view that the next decode overwrites.

    """

    position: int
    batch_index: int
    logits: NDArray[np.float32]


class Moment(NamedTuple):
    """What a task sees of the engine at a step boundary.

    Attributes:
        context: Holds the sequences; samplers read its logits.
        emit: Sends a message to the daemon.
        now: Clock reading in seconds.
        send: Whether it is time to send what running answers have collected.

    """

    context: Context
    emit: Emit
    now: float
    send: bool = True


@dataclass
class Times:
    """Clock readings of one request, in seconds."""

    arrived: float
    started: float | None = None
    first: float | None = None


class Task(abc.ABC):
    """One request that runs, or waits for a sequence."""

    def __init__(self, request_id: str, *, deadline: float | None, arrived: float) -> None:
        self.request_id = request_id
        self.deadline = deadline
        self.times = Times(arrived)
        self.tokens: list[int] = []
        self.prompt_tokens = 0
        self.cached_tokens = 0

    streaming = False
    """Whether the next decode only takes one token of a running answer."""

    needs_embeddings = False

    @property
    def prefix(self) -> list[int]:
        """Tokens that a cached sequence may stand in for, but for the last of them."""
        return self.tokens

    @property
    def goal(self) -> int:
        """How many of `tokens` have to be evaluated now."""
        return len(self.tokens)

    @abc.abstractmethod
    def wanted(self, start: int, stop: int) -> range:
        """Positions within start..stop-1 whose output it needs."""

    @abc.abstractmethod
    def take(self, outputs: Sequence[Output], moment: Moment) -> bool:
        """Use the outputs of one decode, in order of position.

        Returns:
            Whether the request has ended.

        """

    def begin(self, cached: int, moment: Moment) -> None:
        """It has a sequence whose first `cached` tokens are in place."""
        if self.times.started is None:
            self.times.started = moment.now
            self.cached_tokens = cached

    def rewind(self) -> int | None:
        """Where to cut its sequence before going on; None to leave it."""
        return None

    def set_aside(self, moment: Moment) -> None:  # noqa: B027 - most tasks say nothing before the end
        """It has to give up its sequence, and goes on when it gets another one."""

    def fail(self, error: GemdError, moment: Moment) -> None:
        """End with an error."""
        moment.emit(wire.RequestFailed.of(self.request_id, error))

    def cancel(self, moment: Moment) -> None:
        """End because the client wants no more."""
        self.fail(CancelledError("the request was cancelled"), moment)

    def expire(self, moment: Moment) -> None:
        """End because its deadline has passed."""
        waited = moment.now - self.times.arrived
        self.fail(
            DeadlineExpiredError(
                f"the deadline passed after {waited:.1f} s",
                why=f"{len(self.tokens) - self.prompt_tokens} tokens of the answer were decoded",
                metadata={"seconds": f"{waited:.3f}", "prompt_tokens": self.prompt_tokens},
            ),
            moment,
        )

    def context_full(self, moment: Moment) -> None:
        """End because the cache has no cell left for it, although it runs alone."""
        self.fail(
            ContextTooLongError(
                f"{len(self.tokens)} tokens do not fit in the model's cache",
                why="it refused them although nothing else was in it",
                advice=("GEMD_CONTEXT_TOKENS=8192 gemd",),
                metadata={"tokens": len(self.tokens)},
            ),
            moment,
        )

    def close(self) -> None:  # noqa: B027 - most tasks hold nothing
        """Free what it holds outside Python."""


class Generation(Task):
    """An answer, token by token."""

    def __init__(
        self,
        request: wire.Generate,
        prompt: list[int],
        vocabulary: Vocabulary,
        *,
        limit: int,
        deadline: float | None,
        arrived: float,
    ) -> None:
        super().__init__(request.request_id, deadline=deadline, arrived=arrived)
        self._sampling = request.sampling
        self._vocabulary = vocabulary
        self._limit = limit
        self._splitter = Splitter(vocabulary, prompt)
        self._text = TextStream(request.sampling.stop)
        self._thought = TextStream()
        self._reasoned = 0
        self._sampler: Sampler | None = None
        self._unsent = _Unsent()
        self._sent = False
        self.tokens = list(prompt)
        self.prompt_tokens = len(prompt)

    @property
    def streaming(self) -> bool:  # type: ignore[override]
        """See `Task`."""
        return len(self.tokens) > self.prompt_tokens

    def wanted(self, start: int, stop: int) -> range:
        """The last token's, once everything before it is evaluated."""
        last = len(self.tokens) - 1
        return range(last, stop) if start <= last < stop else range(0)

    def begin(self, cached: int, moment: Moment) -> None:
        """See `Task`; a request that was set aside and resumed begins only once."""
        if self.times.started is None:
            self._sampler = Sampler(
                self._vocabulary, self._sampling, self.tokens, context_tokens=self._limit
            )
            moment.emit(
                wire.Started(
                    request_id=self.request_id,
                    prompt_tokens=self.prompt_tokens,
                    cached_tokens=cached,
                )
            )
        super().begin(cached, moment)

    def take(self, outputs: Sequence[Output], moment: Moment) -> bool:
        """Draw a token and send the text that it makes final."""
        assert self._sampler is not None
        if self._sampling.max_tokens == 0:
            self._end("max_tokens", moment)
            return True
        for output in outputs:
            token = self._sampler.draw(moment.context, output.batch_index, output.logits)
            if self.times.first is None:
                self.times.first = moment.now
            if token in self._vocabulary.end_of_generation:
                self._end("stop", moment)
                return True
            self._append(token, output)
            reason = self._reason_to_end()
            if reason is not None:
                self._end(reason, moment)
                return True
            self._send(moment)
        return False

    def _append(self, token: int, output: Output) -> None:
        self.tokens.append(token)
        self._unsent.tokens.append(token)
        if self._sampling.logprobs is not None:
            self._unsent.logprobs.append(
                token_logprob(
                    self._vocabulary,
                    log_softmax(output.logits),
                    token,
                    self._sampling.logprobs,
                )
            )
        piece = self._splitter.take(token)
        if piece is None:
            return
        if piece.reasoning:
            self._reasoned += 1
            self._unsent.reasoning += self._thought.push(piece.data)
        else:
            self._unsent.text += self._text.push(piece.data)

    def _reason_to_end(self) -> wire.FinishReason | None:
        if self._text.stopped_by is not None:
            return "stop_string"
        drawn = len(self.tokens) - self.prompt_tokens
        if self._sampling.max_tokens is not None and drawn >= self._sampling.max_tokens:
            return "max_tokens"
        # The last drawn token would need a cell of its own to draw another one.
        if len(self.tokens) >= self._limit:
            return "context_full"
        return None

    def set_aside(self, moment: Moment) -> None:
        """See `Task`: what is collected does not wait until it is its turn again."""
        self._send(moment)

    def _send(self, moment: Moment) -> None:
        # Tokens whose text is still open wait for it: one Delta, both complete. The first
        # text is what somebody waits for.
        ready = self._unsent.text or self._unsent.reasoning
        if ready and (moment.send or not self._sent):
            moment.emit(self._unsent.delta(self.request_id))
            self._unsent = _Unsent()
            self._sent = True

    def _end(self, reason: wire.FinishReason, moment: Moment) -> None:
        self._unsent.reasoning += self._thought.finish()
        self._unsent.text += self._text.finish()
        if reason != "stop_string" and self._text.stopped_by is not None:
            reason = "stop_string"
        if self._unsent.text or self._unsent.reasoning or self._unsent.tokens:
            moment.emit(self._unsent.delta(self.request_id))
            self._unsent = _Unsent()
        started = moment.now if self.times.started is None else self.times.started
        first = moment.now if self.times.first is None else self.times.first
        moment.emit(
            wire.Finished(
                request_id=self.request_id,
                reason=reason,
                stop_string=self._text.stopped_by,
                prompt_tokens=self.prompt_tokens,
                cached_tokens=self.cached_tokens,
                completion_tokens=len(self.tokens) - self.prompt_tokens,
                reasoning_tokens=self._reasoned,
                queue_seconds=started - self.times.arrived,
                prefill_seconds=first - started,
                decode_seconds=moment.now - first,
            )
        )

    def fail(self, error: GemdError, moment: Moment) -> None:
        """See `Task`; what was decoded so far goes ahead of the error."""
        self._send(moment)
        super().fail(error, moment)

    def cancel(self, moment: Moment) -> None:
        """End with what was decoded so far."""
        self._end("cancelled", moment)

    def context_full(self, moment: Moment) -> None:
        """See `Task`: the answer ends there."""
        self._end("context_full", moment)

    def close(self) -> None:
        """See `Task`."""
        if self._sampler is not None:
            self._sampler.close()


@dataclass
class _Unsent:
    text: str = ""
    reasoning: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[wire.TokenLogprob] = field(default_factory=list)

    def delta(self, request_id: str) -> wire.Delta:
        return wire.Delta(
            request_id=request_id,
            text=self.text,
            reasoning_text=self.reasoning,
            tokens=tuple(self.tokens),
            logprobs=tuple(self.logprobs),
        )
