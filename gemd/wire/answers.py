"""What a worker says about one request, and what that is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gemd.wire.base import ErrorBody, Message

if TYPE_CHECKING:
    from gemd.errors import GemdError


class Started(Message):
    """The request has a sequence; its prompt is about to be evaluated."""

    type: Literal["started"] = "started"
    request_id: str
    prompt_tokens: int
    cached_tokens: int
    """Leading tokens of the prompt, and of the `answer_prefix` behind it, whose KV was kept from an
    earlier request."""


class Alternative(Message):
    """A token that could have stood in a place, and its log-probability."""

    token: int
    piece: bytes
    """The token's own bytes, which may be part of a character; a control token's name."""
    logprob: float


class TokenLogprob(Message):
    """One place: its token and the best alternatives, natural logarithm, temperature 1."""

    token: int
    piece: bytes
    """As in Alternative."""
    logprob: float
    rank: int
    """0 where the token was the model's own first choice."""
    entropy: float
    """Of the whole distribution, in nats."""
    top: tuple[Alternative, ...] = ()
    """Best first; the token itself is one of them if it is good enough."""


class Delta(Message):
    """Text that is final: complete UTF-8, no part of a possible stop string."""

    type: Literal["delta"] = "delta"
    request_id: str
    candidate: int = 0
    text: str
    reasoning_text: str = ""
    """Of the model's reasoning, which is no part of the answer."""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class Canvas(Message):
    """One denoising step: a picture of work in progress. Some may be left out."""

    type: Literal["canvas"] = "canvas"
    request_id: str
    candidate: int = 0
    canvas: int
    """Of the answer, from 0."""
    step: int
    """From 1."""
    max_steps: int
    text: str
    text_offsets: tuple[int, ...]
    """Where the text of each position begins, in bytes of UTF-8."""
    confidence: tuple[float, ...]
    """By position: probability of the token that stands there, at temperature 1."""
    accepted: int
    """Positions that were accepted at this step."""
    last: bool
    """Whether it was the canvas's last step."""


class Trace(Message):
    """What denoising tells of an answer's quality, over its positions before the end.

    Entropies are of the distribution at temperature 1, in nats: at the temperature of the
    schedule they are near 0 in the end whatever the answer is worth.
    """

    canvases: int
    steps: int
    """Of all canvases together."""
    max_steps: int
    """The most that they could have had."""
    capped: int
    """Canvases that ended because they had no more steps, and not because they had settled."""
    positions: int
    """Before the end of the answer, all canvases together."""
    first_entropy_mean: float
    first_entropy_q90: float
    first_entropy_max: float
    """At the first step: what the model believes before it has seen any of its own words."""
    last_entropy_mean: float
    last_entropy_q90: float
    last_entropy_max: float
    late_entropy_area: float
    """Mean entropy over the last quarter of the steps, times that share of `max_steps`."""
    flips: float
    """How often the likeliest token of a position changed, on average."""
    late_flips: float
    """The same within the last three steps."""
    margin_q10: float
    """Of the first over the second token's probability at the last step: the least sure tenth."""


FinishReason = Literal["stop", "stop_string", "max_tokens", "context_full", "cancelled"]


class Finished(Message):
    """The last frame of a candidate, and where `last` says so of a request that ran."""

    type: Literal["finished"] = "finished"
    request_id: str
    candidate: int = 0
    last: bool = True
    reason: FinishReason
    stop_string: str | None = None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    """That were drawn; of an `answer_prefix` none was."""
    queue_seconds: float
    """From reading the frame to the first prompt token's evaluation."""
    prefill_seconds: float
    decode_seconds: float
    reasoning_tokens: int = 0
    """Of `completion_tokens`."""
    filled_spans: tuple[str, ...] = ()
    """Texts of the free spans, in the order of the request."""
    trace: Trace | None = None
    """Of the diffusion engine."""
    drafted_tokens: int = 0
    """Of the request's `draft`, those that were put to evaluation."""
    accepted_tokens: int = 0
    """Of those, how many equalled what was drawn in their places."""


class RequestFailed(Message):
    """The request ended with an error; the worker goes on."""

    type: Literal["request_failed"] = "request_failed"
    request_id: str
    error: ErrorBody

    @classmethod
    def of(cls, request_id: str, error: GemdError) -> RequestFailed:
        """From the error itself."""
        return cls(request_id=request_id, error=ErrorBody.of(error))


class Continuation(Message):
    """One continuation, token by token."""

    tokens: tuple[TokenLogprob, ...]


class Scores(Message):
    """Answer to Score, in the order of its continuations."""

    type: Literal["scores"] = "scores"
    request_id: str
    prompt_tokens: int
    cached_tokens: int
    continuations: tuple[Continuation, ...]


class Embeddings(Message):
    """Answer to Embed, in the order of its texts."""

    type: Literal["embeddings"] = "embeddings"
    request_id: str
    vectors: tuple[tuple[float, ...], ...]
    tokens: tuple[int, ...]
    """Token count of each text."""


class Counted(Message):
    """Answer to Count."""

    type: Literal["counted"] = "counted"
    request_id: str
    count: int
    tokens: tuple[int, ...] = ()
    """The ids, if they were asked for."""


class Resized(Message):
    """Answer to Resize. Said after one token has been decoded in the new context."""

    type: Literal["resized"] = "resized"
    request_id: str
    context_tokens: int
    """What requests get now; takes the place of the one in Ready."""
    memory_bytes: dict[str, int]
    """As in Ready, and in its place."""


Answer = (
    Started | Delta | Canvas | Finished | RequestFailed | Scores | Embeddings | Counted | Resized
)
"""What belongs to one request; has its ``request_id``."""
