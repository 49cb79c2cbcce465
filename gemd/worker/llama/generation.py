"""An answer, token by token, and as many at once as its draft gets right."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

from gemd import wire
from gemd.errors import InvalidRequestError
from gemd.worker.llama.sampling import Sampler, log_softmax, token_logprob
from gemd.worker.llama.speculation import Speculation
from gemd.worker.llama.tasks import Task
from gemd.worker.prompting.reasoning import Splitter
from gemd.worker.prompting.text import TextStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.errors import GemdError
    from gemd.worker.llama.tasks import Moment, Output
    from gemd.worker.llama.vocabulary import Vocabulary


class Generation(Task):
    """An answer.

    Args:
        request: What is asked.
        prompt: Its tokens.
        vocabulary: Of the model.
        prefix: Tokens that the answer begins with; as good as drawn, and not sent.
        draft: What may follow them; empty where the model cannot take tokens back.
        limit: Tokens that the context holds.
        deadline: Clock reading in seconds; None for none.
        arrived: Likewise.

    Raises:
        InvalidRequestError: The prefix is no beginning of an answer.

    """

    def __init__(
        self,
        request: wire.Generate,
        prompt: list[int],
        vocabulary: Vocabulary,
        *,
        prefix: Sequence[int] = (),
        draft: Sequence[int] = (),
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
        # Most answers have no draft, and what is called for every token costs every token.
        self._speculation = Speculation(draft) if draft else None
        self._keep: int | None = None
        self.tokens = [*prompt, *prefix]
        self.prompt_tokens = len(prompt)
        self.prefix_tokens = len(prefix)
        for token in prefix:
            self._precede(token)

    def _precede(self, token: int) -> None:
        """Take in a token of the answer's given beginning."""
        piece = self._splitter.take(token)
        reasoned = piece is not None and piece.reasoning
        if reasoned or token in self._vocabulary.end_of_generation:
            what = "is part of its reasoning" if reasoned else "ends one"
            raise InvalidRequestError(
                "answer_prefix is no beginning of an answer",
                why=f"where it stands, token {token} {what}",
                metadata={"field": "answer_prefix", "token": token},
            )
        if piece is not None:
            self._text.precede(piece.data)

    @property
    def streaming(self) -> bool:  # type: ignore[override]
        """See `Task`."""
        return len(self.tokens) > self.given_tokens

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
        """Draw tokens as long as they are the guessed ones, and send the text they make final."""
        reason = None if self.streaming else self._reason_to_end()
        if reason is None:
            reason = self._draw_tokens(outputs, moment)
        if reason is not None:
            self.guess = ()
            self._end(reason, moment)
            return True
        self._send(moment)
        if self._speculation is not None:
            self.guess = self._speculation.guess(self._room())
        return False

    def _draw_tokens(self, outputs: Sequence[Output], moment: Moment) -> wire.FinishReason | None:
        """One token for each output up to the first that was not guessed; why it is the last."""
        if self._speculation is None:
            (output,) = outputs
            return "stop" if self._draw(output, moment) is None else self._reason_to_end()
        guesses = self.guess[: len(outputs) - 1]
        accepted = 0
        reason: wire.FinishReason | None = None
        for output, guess in zip_longest(outputs, guesses):
            token = self._draw(output, moment)
            if token is None:
                reason = "stop"
                break
            accepted += token == guess
            reason = self._reason_to_end()
            if reason is not None or token != guess:
                break
        if guesses:
            self._speculation.judge(len(guesses), accepted)
            if output is not outputs[-1]:
                # Behind it stand guesses that nobody confirmed.
                self._keep = output.position + 1
        return reason

    def _draw(self, output: Output, moment: Moment) -> int | None:
        """The next token; None if it ends the answer and is no part of it."""
        assert self._sampler is not None
        token = self._sampler.draw(moment.context, output.batch_index, output.logits)
        if self.times.first is None:
            self.times.first = moment.now
        if token in self._vocabulary.end_of_generation:
            return None
        self._append(token, output)
        return token

    def _room(self) -> int:
        """Tokens behind which another one may still be drawn."""
        left = self._limit - len(self.tokens)
        if self._sampling.max_tokens is not None:
            left = min(left, self._sampling.max_tokens + self.prompt_tokens - len(self.tokens))
        return left - 1

    def rewind(self) -> int | None:
        """See `Task`: guesses that were wrong leave the cache."""
        keep, self._keep = self._keep, None
        return keep

    def _append(self, token: int, output: Output) -> None:
        self.tokens.append(token)
        if self._speculation is not None:
            self._speculation.follow(token)
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
        length = len(self.tokens) - self.prompt_tokens
        if self._sampling.max_tokens is not None and length >= self._sampling.max_tokens:
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
                completion_tokens=len(self.tokens) - self.given_tokens,
                reasoning_tokens=self._reasoned,
                queue_seconds=started - self.times.arrived,
                prefill_seconds=first - started,
                decode_seconds=moment.now - first,
                drafted_tokens=0 if self._speculation is None else self._speculation.drafted,
                accepted_tokens=0 if self._speculation is None else self._speculation.accepted,
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
