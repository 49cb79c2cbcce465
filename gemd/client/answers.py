"""What the calls that do not stream answer with, beside resources."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.events import Finished, Resolved, Started, TokenLogprob, token_logprob
from gemd.client.protos import model_id

if TYPE_CHECKING:
    from gemd.v1 import generation_service_pb2


@dataclass(frozen=True, slots=True)
class Answer:
    """One candidate of a generation that has ended, collected from its events."""

    text: str
    reasoning_text: str
    started: Started | None
    """The start of the model that wrote it, or its last part."""
    finished: Finished
    draft: str = ""
    """What was drafted, whatever became of it; empty if nothing was."""
    resolved: Resolved | None = None
    """What became of the draft; None if there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """One vector per text, in the order of the texts."""

    vectors: tuple[tuple[float, ...], ...]
    tokens: tuple[int, ...]
    """Token count of each text."""
    model: str
    """Vectors of different models cannot be compared."""
    raw: generation_service_pb2.EmbedResponse = field(repr=False, compare=False)

    @classmethod
    def of(cls, proto: generation_service_pb2.EmbedResponse) -> Embeddings:
        """Convert the proto message."""
        return cls(
            vectors=tuple(tuple(one.values) for one in proto.embeddings),
            tokens=tuple(one.tokens for one in proto.embeddings),
            model=model_id(proto.model),
            raw=proto,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuationScore:
    """How likely one continuation is."""

    sum_logprob: float
    """In nats; divide by `token_count` to compare different lengths."""
    token_count: int
    tokens: tuple[TokenLogprob, ...]
    greedy_match: bool
    """Whether greedy decoding would have written just this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores in the order of the continuations."""

    scores: tuple[ContinuationScore, ...]
    model: str
    prompt_tokens: int
    cached_tokens: int
    raw: generation_service_pb2.ScoreResponse = field(repr=False, compare=False)

    @classmethod
    def of(cls, proto: generation_service_pb2.ScoreResponse) -> Scores:
        """Convert the proto message."""
        return cls(
            scores=tuple(
                ContinuationScore(
                    sum_logprob=one.sum_logprob,
                    token_count=one.token_count,
                    tokens=tuple(token_logprob(token) for token in one.tokens),
                    greedy_match=one.greedy_match,
                )
                for one in proto.scores
            ),
            model=model_id(proto.model),
            prompt_tokens=proto.prompt_tokens,
            cached_tokens=proto.cached_tokens,
            raw=proto,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """How many tokens a prompt has, as the model would read it."""

    count: int
    model: str
    context_length: int
    token_ids: tuple[int, ...]
    """Empty unless asked for."""
    raw: generation_service_pb2.CountTokensResponse = field(repr=False, compare=False)

    @classmethod
    def of(cls, proto: generation_service_pb2.CountTokensResponse) -> TokenCount:
        """Convert the proto message."""
        return cls(
            count=proto.count,
            model=model_id(proto.model),
            context_length=proto.context_length,
            token_ids=tuple(proto.token_ids),
            raw=proto,
        )
