"""From a request to the task that answers it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gemd import wire
from gemd.errors import InvalidRequestError, UnsupportedInputError
from gemd.worker.llama.embedding import Embedding
from gemd.worker.llama.generation import Generation
from gemd.worker.llama.pooling import pooling_of
from gemd.worker.llama.scoring import Scoring

if TYPE_CHECKING:
    from collections.abc import Sized

    from gemd.worker.llama.tasks import Task
    from gemd.worker.llama.vocabulary import Vocabulary
    from gemd.worker.prompting.prompt import PromptBuilder


class Preparation:
    """Builds tasks on the preparation thread, where templates and tokenizers may take time.

    Args:
        builder: Of prompts.
        vocabulary: Of the model.
        context_tokens: Of the cache.
        pooling: What the model's file says of it; see `pooling_of`.
        speculates: Whether tokens can be taken back, so that a draft is of use.

    """

    def __init__(
        self,
        builder: PromptBuilder,
        vocabulary: Vocabulary,
        *,
        context_tokens: int,
        pooling: str,
        speculates: bool,
    ) -> None:
        self._builder = builder
        self._vocabulary = vocabulary
        self._context = context_tokens
        self._pooling = pooling
        self._speculates = speculates

    def task(self, request: wire.Generate | wire.Score | wire.Embed, arrived: float) -> Task:
        """The task of a request.

        Raises:
            GemdError: The input cannot be used.

        """
        seconds = request.deadline_seconds
        deadline = None if seconds is None else arrived + seconds
        match request:
            case wire.Generate():
                return self._generation(request, deadline, arrived)
            case wire.Score():
                return self._scoring(request, deadline, arrived)
            case wire.Embed():
                return self._embedding(request, deadline, arrived)

    def _generation(
        self, request: wire.Generate, deadline: float | None, arrived: float
    ) -> Generation:
        _check_no_canvas(request)
        _check_order(request)
        prompt = self._builder.build(
            request.prompt, limit=self._context - 1, thinking=request.thinking
        )
        self._check_bias(request.sampling)
        prefix = self._answer(
            request.answer_prefix, limit=self._context - 1 - len(prompt), field="answer_prefix"
        )
        draft = self._answer(request.draft, limit=sys.maxsize, field="draft")
        return Generation(
            request,
            prompt,
            self._vocabulary,
            prefix=prefix,
            # More than the context holds is never reached.
            draft=draft[: self._context] if self._speculates else (),
            limit=self._context,
            deadline=deadline,
            arrived=arrived,
        )

    def _answer(self, given: str | tuple[int, ...], *, limit: int, field: str) -> list[int]:
        """Token ids of what a request says of its answer; none if it says nothing."""
        return self._builder.continuation(given, limit=limit, field=field) if given else []

    def _check_bias(self, sampling: wire.Sampling) -> None:
        self._builder.check_tokens(sampling.logit_bias, field="sampling.logit_bias")

    def _scoring(self, request: wire.Score, deadline: float | None, arrived: float) -> Scoring:
        _check_given(request.continuations, field="continuations")
        prompt = self._builder.build(request.prompt, limit=self._context - 1)
        continuations = [
            self._builder.continuation(given, limit=self._context - len(prompt))
            for given in request.continuations
        ]
        return Scoring(
            request, prompt, continuations, self._vocabulary, deadline=deadline, arrived=arrived
        )

    def _embedding(self, request: wire.Embed, deadline: float | None, arrived: float) -> Embedding:
        _check_given(request.texts, field="texts")
        pooling = pooling_of(request.pooling, self._pooling)
        texts = [self._builder.document(text, limit=self._context) for text in request.texts]
        return Embedding(request, texts, pooling=pooling, deadline=deadline, arrived=arrived)


def _check_no_canvas(request: wire.Generate) -> None:
    """Refuse what only a block-diffusion model can do; the daemon should not have sent it."""
    for field, asked in (
        ("spans", bool(request.spans)),
        ("watch_canvas", request.watch_canvas),
        ("candidates", request.candidates > 1),
    ):
        if asked:
            raise UnsupportedInputError(
                f"{field} cannot be used with this model",
                why="it writes one token after another and has no canvas",
                metadata={"field": field},
            )


def _check_order(request: wire.Generate) -> None:
    """Refuse reasoning that would have to come before an answer that has begun."""
    if request.answer_prefix and request.thinking:
        raise InvalidRequestError(
            "thinking cannot be asked for together with answer_prefix",
            why="reasoning comes before the answer, and the answer has begun",
            metadata={"field": "thinking"},
        )


def _check_given(items: Sized, *, field: str) -> None:
    if not items:
        raise InvalidRequestError(
            f"{field} is empty", why="there is nothing to answer", metadata={"field": field}
        )
