"""The least that decodes: llama.cpp's low-level API and a loop, nothing around it.

One sequence or several in one batch, the next token by numpy's argmax or by llama.cpp's
greedy sampler, and for several sequences one shared cache or a split one.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from typing import Any

import numpy as np
from lines import Stream, serve
from llama_cpp import __version__ as version
from llama_cpp import llama_cpp as c

BATCH = 512


@c.llama_log_callback
def _silent(level: int, text: bytes, data: Any) -> None:
    """llama.cpp's log goes nowhere."""


class Loop:
    """A model and its contexts, made when they are first asked for."""

    def __init__(self, path: str, *, context_tokens: int, threads: int) -> None:
        c.llama_log_set(_silent, ctypes.c_void_p(0))
        c.llama_backend_init()
        self._model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
        self._vocabulary = c.llama_model_get_vocab(self._model)
        self._size = c.llama_vocab_n_tokens(self._vocabulary)
        self._context_tokens = context_tokens
        self._threads = threads
        self._batch = c.llama_batch_init(BATCH, 0, 1)
        self._greedy = c.llama_sampler_init_greedy()
        self._contexts: dict[tuple[int, bool], Any] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request of the bench."""
        if "text" in request:
            return {"tokens": self.tokenize(request["text"])}
        sampler, _, cache = request["variant"].partition(" ")
        began = time.monotonic()
        streams = self.run(
            request["prompts"],
            request["tokens"],
            argmax=sampler == "argmax",
            unified=cache != "split",
        )
        return {"submitted": began, "streams": streams}

    def tokenize(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        data = text.encode()
        tokens = (c.llama_token * (len(data) + 16))()
        count = c.llama_tokenize(
            self._vocabulary, data, len(data), tokens, len(tokens), False, False
        )
        return list(tokens[:count])

    def run(
        self, prompts: list[list[int]], tokens: int, *, argmax: bool, unified: bool
    ) -> list[Stream]:
        """Read all prompts in one decode, then one token of each per decode."""
        context = self._context(len(prompts), unified=unified)
        indices = self._read(context, prompts)
        streams: list[Stream] = [[] for _ in prompts]
        for number in range(tokens):
            drawn = self._draw(context, indices, argmax=argmax)
            now = time.monotonic()
            for stream in streams:
                stream.append((now, 1))
            if number < tokens - 1:
                indices = self._step(context, drawn, number + len(prompts[0]))
        return streams

    def _context(self, sequences: int, *, unified: bool) -> Any:
        context = self._contexts.get((sequences, unified))
        if context is None:
            params = c.llama_context_default_params()
            params.n_ctx = self._context_tokens
            params.n_batch = params.n_ubatch = BATCH
            params.n_seq_max = sequences
            params.n_outputs_max = 64
            params.n_threads = params.n_threads_batch = self._threads
            params.kv_unified = unified
            params.no_perf = True
            context = c.llama_init_from_model(self._model, params)
            self._contexts[sequences, unified] = context
        c.llama_memory_clear(c.llama_get_memory(context), True)
        return context

    def _read(self, context: Any, prompts: list[list[int]]) -> list[int]:
        """Evaluate all prompts; where in the batch the last tokens are."""
        batch, indices, at = self._batch, [], 0
        for sequence, prompt in enumerate(prompts):
            for position, token in enumerate(prompt):
                self._put(at, token, position, sequence, wanted=position == len(prompt) - 1)
                at += 1
            indices.append(at - 1)
        batch.n_tokens = at
        _evaluate(context, batch)
        return indices

    def _draw(self, context: Any, indices: list[int], *, argmax: bool) -> list[int]:
        if argmax:
            shape = (len(indices), self._size)
            logits = np.ctypeslib.as_array(c.llama_get_logits(context), shape=shape)
            return logits.argmax(axis=1).tolist()
        return [c.llama_sampler_sample(self._greedy, context, index) for index in indices]

    def _step(self, context: Any, drawn: list[int], position: int) -> list[int]:
        for sequence, token in enumerate(drawn):
            self._put(sequence, token, position, sequence, wanted=True)
        self._batch.n_tokens = len(drawn)
        _evaluate(context, self._batch)
        return list(range(len(drawn)))

    def _put(self, at: int, token: int, position: int, sequence: int, *, wanted: bool) -> None:
        batch = self._batch
        batch.token[at] = token
        batch.pos[at] = position
        batch.n_seq_id[at] = 1
        batch.seq_id[at][0] = sequence
        batch.logits[at] = wanted


def _evaluate(context: Any, batch: Any) -> None:
    if c.llama_decode(context, batch):
        raise RuntimeError("llama_decode failed")


def main() -> None:
    """Serve the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--context-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    loop = Loop(given.model, context_tokens=given.context_tokens, threads=given.threads)
    serve(f"llama-cpp-python {version}", loop.answer)


if __name__ == "__main__":
    main()
