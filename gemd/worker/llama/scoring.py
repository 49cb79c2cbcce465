"""The log-probabilities of given continuations: the checker's primitive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd import wire
from gemd.worker.llama.sampling import log_softmax, token_logprob
from gemd.worker.llama.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from gemd.worker.llama.tasks import Moment, Output
    from gemd.worker.llama.vocabulary import Vocabulary


class Scoring(Task):
    """Log-probabilities of given continuations, one after the other.

    The prompt is evaluated once. Its last position predicts the first token of every
    continuation, so that distribution is kept.
    """

    def __init__(
        self,
        request: wire.Score,
        prompt: list[int],
        continuations: Sequence[Sequence[int]],
        vocabulary: Vocabulary,
        *,
        deadline: float | None,
        arrived: float,
    ) -> None:
        super().__init__(request.request_id, deadline=deadline, arrived=arrived)
        self._prompt = prompt
        self._open = [list(tokens) for tokens in continuations]
        self._done: list[wire.Continuation] = []
        self._first: NDArray[np.float64] | None = None
        self._scores: list[wire.TokenLogprob] = []
        self._vocabulary = vocabulary
        self._alternatives = request.alternatives
        self._cut: int | None = None
        self.prompt_tokens = len(prompt)
        self._next()

    @property
    def prefix(self) -> list[int]:
        """The prompt: every position of a continuation has to be seen."""
        return self._prompt

    @property
    def goal(self) -> int:
        """The last token of a continuation predicts nothing that is asked for."""
        return len(self.tokens) - 1

    def begin(self, cached: int, moment: Moment) -> None:
        """See `Task`; a request that was set aside scores its open continuation anew."""
        super().begin(cached, moment)
        self._restart()

    def wanted(self, start: int, stop: int) -> range:
        """Every position that predicts a token of the continuation."""
        first = len(self._prompt) - (1 if self._first is None else 0)
        return range(max(start, first), max(min(stop, self.goal), start, first))

    def take(self, outputs: Sequence[Output], moment: Moment) -> bool:
        """Score the tokens that these positions predict."""
        for output in outputs:
            logprobs = log_softmax(output.logits)
            if output.position == len(self._prompt) - 1:
                self._first = logprobs
            self._score(logprobs, self.tokens[output.position + 1])
        while len(self._scores) == len(self._open[0]):
            self._done.append(wire.Continuation(tokens=tuple(self._scores)))
            self._open.pop(0)
            if not self._open:
                self._finish(moment)
                return True
            self._next()
        return False

    def _next(self) -> None:
        self.tokens = self._prompt + self._open[0]
        self._restart()
        if self._first is not None:
            self._cut = len(self._prompt)

    def _restart(self) -> None:
        """Forget the open continuation's scores, but for what the prompt's end predicts."""
        self._scores = []
        if self._first is not None:
            self._score(self._first, self._open[0][0])

    def _score(self, distribution: NDArray[np.float64], token: int) -> None:
        self._scores.append(
            token_logprob(self._vocabulary, distribution, token, self._alternatives)
        )

    def rewind(self) -> int | None:
        """Back to the end of the prompt for the next continuation."""
        cut, self._cut = self._cut, None
        return cut

    def _finish(self, moment: Moment) -> None:
        moment.emit(
            wire.Scores(
                request_id=self.request_id,
                prompt_tokens=self.prompt_tokens,
                cached_tokens=self.cached_tokens,
                continuations=tuple(self._done),
            )
        )
