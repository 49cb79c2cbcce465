"""What a generation streams, as plain values.

Every one has the proto message it was made from under `raw`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.errors import failure
from gemd.client.protos import enum_word, model_id, optional, seconds
from gemd.client.resources import Model

if TYPE_CHECKING:
    from gemd.client.errors import GemdClientError
    from gemd.v1 import generation_pb2, generation_service_pb2, model_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The request waits for its turn."""

    raw: model_pb2.Queued = field(repr=False, compare=False)
    model: str
    position: int
    """1 is next."""
    reason: str
    """Such as ``WORKER_BUSY``."""
    estimated_wait: float | None
    """Seconds, if known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """A model is being made warm."""

    raw: model_pb2.Loading = field(repr=False, compare=False)
    model: str
    phase: str
    """Such as ``READING_WEIGHTS``."""
    current: int
    """Bytes while reading weights, otherwise a count."""
    total: int
    """0 if unknown."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """Who answers has been decided, and by which way."""

    raw: generation_pb2.Routed = field(repr=False, compare=False)
    model: str
    tier: str
    strategy: str
    """``DIRECT``, ``DRAFT``, ``DRAFT_AND_CHECK`` or ``SPECULATE``."""
    reason: str
    explanation: str
    drafter: str
    """The model that drafts; empty if none does."""
    checker: str
    """The model that scores the draft; empty if none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A model begins to work on the request."""

    raw: generation_pb2.Started = field(repr=False, compare=False)
    request_id: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    context_length: int
    seed: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely one token was, natural logarithm."""

    token_id: int
    token: bytes
    logprob: float
    alternatives: tuple[tuple[int, bytes, float], ...]
    """Id, bytes and log-probability of the likeliest tokens in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """New text of the answer, always whole characters."""

    raw: generation_pb2.Delta = field(repr=False, compare=False)
    candidate: int
    text: str
    reasoning_text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """One denoising step of a block-diffusion model: a picture, no part of the answer."""

    raw: generation_pb2.Canvas = field(repr=False, compare=False)
    candidate: int
    canvas: int
    step: int
    max_steps: int
    text: str
    text_offsets: tuple[int, ...]
    """Where the text of each position begins, in bytes of UTF-8."""
    confidence: tuple[float, ...]
    """How sure the model is of each position, from 0 to 1."""
    accepted: int
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Provisional text that is still to be checked."""

    raw: generation_pb2.Draft = field(repr=False, compare=False)
    candidate: int
    model: str
    text: str
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The draft has been judged."""

    raw: generation_pb2.Resolved = field(repr=False, compare=False)
    candidate: int
    resolution: str
    """``KEPT``, ``CONTINUED`` or ``REPLACED``."""
    kept_bytes: int
    """How much of the draft's text stays, in bytes of UTF-8 from its beginning."""
    kept_tokens: int
    reason: str
    explanation: str
    failure: GemdClientError | None
    """What went wrong, if a model failed on the way and another one took over."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a candidate used."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    denoising_steps: int
    """Of a block-diffusion model; 0 for others."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that a candidate took; None where it does not apply."""

    queued: float | None
    load: float | None
    first_token: float | None
    prefill: float | None
    decode: float | None
    total: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A candidate is complete."""

    raw: generation_pb2.Finished = field(repr=False, compare=False)
    candidate: int
    finish_reason: str
    """``STOP``, ``STOP_STRING``, ``MAX_TOKENS``, ``CONTEXT_FULL`` or ``CANCELLED``."""
    stop: str
    """The stop string that ended it, if one did."""
    usage: Usage
    timings: Timings
    model: str
    """The one that wrote the answer, or its last part."""
    tier: str
    strategy: str
    """``DIRECT``, ``DRAFT``, ``DRAFT_AND_CHECK`` or ``SPECULATE``."""
    reason: str
    """Why this way, as a stable code."""
    explanation: str
    drafter: str
    """The model that drafted; empty if none did."""
    checker: str
    """The model that scored the draft; empty if none did."""
    resolution: str
    """``KEPT``, ``CONTINUED`` or ``REPLACED``; ``UNSPECIFIED`` if there was no draft."""
    draft_risk: float | None
    """Estimated risk that the draft was not good enough, 0 to 1; None if there was none. It is a
    probability once `Routing.basis` is ``CALIBRATED``, and only orders drafts until then."""
    drafted_tokens: int
    """Of the draft; with ``SPECULATE``, those that were evaluated ahead of the answer."""
    accepted_tokens: int
    """Of these, those that are part of the answer."""
    rank: int
    """Place among the ranked candidates, from 1; 0 if they were not ranked."""
    score: float | None
    """What it was ranked by; higher is better."""
    energy_joules: float | None
    filled_spans: tuple[str, ...]
    """Texts of the gaps, in the order of the request; empty unless it had some."""


GenerationEvent = Queued | Loading | Routed | Started | Delta | Canvas | Draft | Resolved | Finished
LoadEvent = Queued | Loading | Model
"""What a load streams; the READY model is the last."""


def queued(proto: model_pb2.Queued) -> Queued:
    """Convert the proto message."""
    return Queued(
        raw=proto,
        model=model_id(proto.model),
        position=proto.position,
        reason=proto.reason,
        estimated_wait=seconds(proto, "estimated_wait"),
    )


def loading(proto: model_pb2.Loading) -> Loading:
    """Convert the proto message."""
    return Loading(
        raw=proto,
        model=model_id(proto.model),
        phase=enum_word(proto, "phase"),
        current=proto.current,
        total=proto.total,
        message=proto.message,
    )


def _routed(proto: generation_pb2.Routed) -> Routed:
    return Routed(
        raw=proto,
        model=model_id(proto.route.model),
        tier=enum_word(proto.route, "tier"),
        strategy=enum_word(proto.route, "strategy"),
        reason=proto.route.reason,
        explanation=proto.route.explanation,
        drafter=model_id(proto.route.drafter),
        checker=model_id(proto.route.checker),
    )


def _started(proto: generation_pb2.Started) -> Started:
    return Started(
        raw=proto,
        request_id=proto.request_id,
        model=model_id(proto.model),
        prompt_tokens=proto.prompt_tokens,
        cached_tokens=proto.cached_tokens,
        context_length=proto.context_length,
        seed=proto.seed,
    )


def token_logprob(proto: generation_pb2.TokenLogprob) -> TokenLogprob:
    """Convert the proto message."""
    return TokenLogprob(
        token_id=proto.token_id,
        token=proto.token,
        logprob=proto.logprob,
        alternatives=tuple(
            (other.token_id, other.token, other.logprob) for other in proto.alternatives
        ),
    )


def _delta(proto: generation_pb2.Delta) -> Delta:
    return Delta(
        raw=proto,
        candidate=proto.candidate,
        text=proto.text,
        reasoning_text=proto.reasoning_text,
        token_ids=tuple(proto.token_ids),
        logprobs=tuple(token_logprob(one) for one in proto.logprobs),
    )


def _canvas(proto: generation_pb2.Canvas) -> Canvas:
    return Canvas(
        raw=proto,
        candidate=proto.candidate,
        canvas=proto.canvas,
        step=proto.step,
        max_steps=proto.max_steps,
        text=proto.text,
        text_offsets=tuple(proto.text_offsets),
        confidence=tuple(proto.confidence),
        accepted=proto.accepted,
        last=proto.last,
    )


def _draft(proto: generation_pb2.Draft) -> Draft:
    return Draft(
        raw=proto,
        candidate=proto.candidate,
        model=model_id(proto.model),
        text=proto.text,
        last=proto.last,
    )


def _resolved(proto: generation_pb2.Resolved) -> Resolved:
    return Resolved(
        raw=proto,
        candidate=proto.candidate,
        resolution=enum_word(proto, "resolution"),
        kept_bytes=proto.kept_bytes,
        kept_tokens=proto.kept_tokens,
        reason=proto.reason,
        explanation=proto.explanation,
        failure=failure(proto.failure) if proto.HasField("failure") else None,
    )


def _finished(proto: generation_pb2.Finished) -> Finished:
    usage, timings, route = proto.usage, proto.timings, proto.route
    return Finished(
        raw=proto,
        candidate=proto.candidate,
        finish_reason=enum_word(proto, "finish_reason"),
        stop=proto.stop,
        usage=Usage(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            denoising_steps=usage.denoising_steps,
        ),
        timings=Timings(
            queued=seconds(timings, "queued"),
            load=seconds(timings, "load"),
            first_token=seconds(timings, "first_token"),
            prefill=seconds(timings, "prefill"),
            decode=seconds(timings, "decode"),
            total=seconds(timings, "total"),
        ),
        model=model_id(route.model),
        tier=enum_word(route, "tier"),
        strategy=enum_word(route, "strategy"),
        reason=route.reason,
        explanation=route.explanation,
        drafter=model_id(route.drafter),
        checker=model_id(route.checker),
        resolution=enum_word(route, "resolution"),
        draft_risk=optional(route, "draft_risk"),
        drafted_tokens=route.drafted_tokens,
        accepted_tokens=route.accepted_tokens,
        rank=proto.rank,
        score=optional(proto, "score"),
        energy_joules=optional(proto, "energy_joules"),
        filled_spans=tuple(proto.filled_spans),
    )


_CONVERTERS = {
    "queued": queued,
    "loading": loading,
    "routed": _routed,
    "started": _started,
    "delta": _delta,
    "canvas": _canvas,
    "draft": _draft,
    "resolved": _resolved,
    "finished": _finished,
}


def generation_event(proto: generation_service_pb2.GenerateResponse) -> GenerationEvent | None:
    """The event in a message of the stream; None for a kind newer than this client."""
    kind = proto.WhichOneof("event")
    if kind is None:
        return None
    converted: GenerationEvent = _CONVERTERS[kind](getattr(proto, kind))  # type: ignore[operator]
    # The table's values take different messages; the oneof's name says which.
    return converted
