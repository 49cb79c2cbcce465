"""From a request to the answers that are to be written; on the preparation thread."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from gemd.errors import ContextTooLongError, InvalidRequestError
from gemd.worker.diffusion.answer import Answer
from gemd.worker.diffusion.infill import lay_out
from gemd.worker.diffusion.request import (
    Task,
    bias_of,
    check_order,
    check_sampling,
    filters_of,
    schedule_of,
)
from gemd.worker.diffusion.writer import Writer
from gemd.worker.prompting.reasoning import Splitter

if TYPE_CHECKING:
    from gemd import wire
    from gemd.worker.diffusion.checkpoint import SamplerDefaults
    from gemd.worker.diffusion.infill import Layout
    from gemd.worker.diffusion.vocabulary import Vocabulary
    from gemd.worker.prompting.prompt import PromptBuilder

SEED_BITS = 63


class Preparation:
    """Builds answers, where templates and tokenizers may take time.

    Args:
        builder: Of prompts.
        vocabulary: Of the model.
        defaults: How the model wants to be sampled.
        context_tokens: That prompt and answer share; changed when the cache is.
        canvas_tokens: Of a canvas.

    """

    def __init__(
        self,
        builder: PromptBuilder,
        vocabulary: Vocabulary,
        defaults: SamplerDefaults,
        *,
        context_tokens: int,
        canvas_tokens: int,
    ) -> None:
        self._builder = builder
        self._vocabulary = vocabulary
        self._defaults = defaults
        self.context_tokens = context_tokens
        self._canvas_tokens = canvas_tokens

    def answers(self, request: wire.Generate, arrived: float) -> list[Answer]:
        """One answer for each candidate.

        Raises:
            GemdError: The input cannot be used.

        """
        task = self._task(request, arrived)
        return [
            Answer(
                task,
                candidate,
                Writer(
                    Splitter(self._vocabulary, task.prompt),
                    ends=task.ends,
                    stop=request.sampling.stop,
                    limit=task.limit,
                    limit_reason=task.limit_reason,
                ),
                pieces=self._vocabulary,
                canvas_tokens=self._canvas_tokens,
                vocabulary=self._vocabulary.size,
            )
            for candidate in range(request.candidates)
        ]

    def _task(self, request: wire.Generate, arrived: float) -> Task:
        sampling = request.sampling
        check_order(request)
        check_sampling(sampling)
        self._builder.check_tokens(sampling.logit_bias, field="sampling.logit_bias")
        prompt = self._builder.build(
            request.prompt, limit=self.context_tokens - 1, thinking=request.thinking
        )
        layout = self._layout(request) if request.spans else None
        if layout is not None:
            prompt += layout.head
            self._check_room(prompt)
        room = self.context_tokens - len(prompt)
        most = sampling.max_tokens
        seconds = request.deadline_seconds
        ends = self._vocabulary.end_of_generation
        return Task(
            request=request,
            prompt=tuple(prompt),
            schedule=schedule_of(self._defaults, sampling.temperature),
            filters=filters_of(sampling),
            bias=bias_of(sampling, ends),
            ends=frozenset() if sampling.ignore_eos else ends,
            limit=room if most is None else min(room, most),
            limit_reason="context_full" if most is None or most > room else "max_tokens",
            seed=secrets.randbits(SEED_BITS) if sampling.seed is None else sampling.seed,
            arrived=arrived,
            deadline=None if seconds is None else arrived + seconds,
            layout=layout,
        )

    def _layout(self, request: wire.Generate) -> Layout:
        sampling = request.sampling
        for name, used in (
            ("sampling.stop", bool(sampling.stop)),
            ("sampling.max_tokens", sampling.max_tokens is not None),
            ("sampling.ignore_eos", sampling.ignore_eos),
        ):
            if used:
                raise InvalidRequestError(
                    f"{name} cannot be set together with spans",
                    why="a text with gaps ends where its last span does",
                    advice=("set max_tokens of the spans",),
                    metadata={"field": name},
                )
        return lay_out(
            request.spans,
            tokenize=self._builder.continued,
            vocabulary=self._vocabulary,
            canvas_tokens=self._canvas_tokens,
        )

    def _check_room(self, prompt: list[int]) -> None:
        limit = max(0, self.context_tokens - self._canvas_tokens)
        if len(prompt) > limit:
            raise ContextTooLongError(
                f"the prompt with the text before the first gap has {len(prompt)} tokens, "
                f"{limit} fit",
                why=f"the context of {self.context_tokens} has to hold it and a canvas of "
                f"{self._canvas_tokens}",
                advice=("shorten the prompt", "raise context_tokens in the settings"),
                metadata={"field": "input", "prompt_tokens": len(prompt), "limit": limit},
            )
