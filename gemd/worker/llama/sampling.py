"""How one request draws its tokens, and what the model thought of them."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_cpp import llama_cpp as c

from gemd import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gemd.worker.llama.binding import Context
    from gemd.worker.llama.vocabulary import Vocabulary

_COLDEST = 1e-6
"""Temperatures below it are greedy: logits divided by less overflow to infinities, whose
differences are no numbers."""

_SEEDS = 0xFFFFFFFF
"""llama.cpp takes 32 bits and reads this value itself as «draw one»."""


class Sampler:
    """The sampler chain of one answer.

    The order is llama.cpp's: logit bias, penalties, top-k, top-p, min-p, temperature,
    draw. The penalties look at the prompt as well as at the answer.

    Args:
        vocabulary: Of the model.
        sampling: What the request asked for, defaults filled in.
        history: Tokens before the first draw.
        context_tokens: The longest history that there can be.

    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        sampling: wire.Sampling,
        history: Sequence[int],
        *,
        context_tokens: int,
    ) -> None:
        self._chain: Any = None
        bias = dict(sampling.logit_bias)
        if sampling.ignore_eos:
            bias |= dict.fromkeys(vocabulary.end_of_generation, -np.inf)
        penalised = sampling.penalty_last_n != 0 and (
            sampling.repeat_penalty != 1
            or sampling.frequency_penalty != 0
            or sampling.presence_penalty != 0
        )
        temperature = sampling.temperature or 0.0
        greedy = temperature < _COLDEST
        if greedy and not bias and not penalised:
            # Plain greedy needs no candidate array: numpy finds the maximum faster.
            return
        self._chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        if bias:
            self._add(_logit_bias(vocabulary.size, bias))
        if penalised:
            window = sampling.penalty_last_n
            self._add(
                c.llama_sampler_init_penalties(
                    vocabulary.size,
                    context_tokens if window < 0 else min(window, context_tokens),
                    sampling.repeat_penalty,
                    sampling.frequency_penalty,
                    sampling.presence_penalty,
                )
            )
        if greedy:
            self._add(c.llama_sampler_init_greedy())
        else:
            self._add(c.llama_sampler_init_top_k(sampling.top_k))
            self._add(c.llama_sampler_init_top_p(sampling.top_p, 1))
            self._add(c.llama_sampler_init_min_p(sampling.min_p, 1))
            self._add(c.llama_sampler_init_temp(temperature))
            seed = int.from_bytes(os.urandom(4)) if sampling.seed is None else sampling.seed
            self._add(c.llama_sampler_init_dist(seed % _SEEDS))
        if penalised:
            for token in history if window < 0 else history[-window:]:
                c.llama_sampler_accept(self._chain, token)

    def _add(self, sampler: Any) -> None:
        c.llama_sampler_chain_add(self._chain, sampler)

    def draw(self, context: Context, index: int, row: NDArray[np.float32]) -> int:
        """The next token.

        Args:
            context: That decoded it.
            index: Of the token in the batch whose logits these are.
            row: The logits, shape (vocabulary,).

        """
        if self._chain is None:
            return int(row.argmax())
        return int(c.llama_sampler_sample(self._chain, context.handle, index))

    def close(self) -> None:
        """Free the chain."""
        if self._chain is not None:
            c.llama_sampler_free(self._chain)
            self._chain = None


def _logit_bias(size: int, bias: dict[int, float]) -> Any:
    entries = (c.llama_logit_bias * len(bias))()
    for entry, (token, value) in zip(entries, bias.items(), strict=True):
        entry.token = token
        entry.bias = value
    return c.llama_sampler_init_logit_bias(
        size, len(bias), ctypes.cast(entries, c.llama_logit_bias_p)
    )


def log_softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural logarithms of the model's own probabilities: temperature 1, no filter."""
    shifted = row.astype(np.float64) - float(row.max())
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def token_logprob(
    vocabulary: Vocabulary, distribution: NDArray[np.float64], token: int, alternatives: int
) -> wire.TokenLogprob:
    """What a distribution says of a token, and its best `alternatives`.

    Args:
        vocabulary: Of the model.
        distribution: Log-probabilities, shape (vocabulary,), as `log_softmax` gives them.
        token: The one that was drawn or given.
        alternatives: How many of the best to report.

    """
    logprob = distribution[token]
    count = min(alternatives, len(distribution))
    best: list[int] = []
    if count:
        chosen = np.argpartition(distribution, -count)[-count:]
        best = chosen[np.argsort(-distribution[chosen], kind="stable")].tolist()
    return wire.TokenLogprob(
        token=token,
        piece=_shown(vocabulary, token),
        logprob=float(logprob),
        rank=int((distribution > logprob).sum()),
        entropy=_entropy(distribution),
        top=tuple(
            wire.Alternative(token=t, piece=_shown(vocabulary, t), logprob=float(distribution[t]))
            for t in best
        ),
    )


def _entropy(distribution: NDArray[np.float64]) -> float:
    # A banned token has -inf, and 0 · -inf counts as 0.
    possible = distribution[distribution > -np.inf]
    return float(-(np.exp(possible) * possible).sum())


def _shown(vocabulary: Vocabulary, token: int) -> bytes:
    return vocabulary.piece(token) or vocabulary.text(token).encode()
