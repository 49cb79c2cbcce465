"""Events and answers of GenerationService. The hot path: one small message per Delta."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gemd.residency.states import LoadStep, Waiting
from gemd.routing.cascade import Resolution
from gemd.routing.decide import Strategy
from gemd.routing.request import Tier
from gemd.rpc.convert.fields import duration, error_detail, model_name
from gemd.v1 import generation_pb2 as generation
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import model_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd import wire
    from gemd.routing.cascade import Began, Drafted, Ended, Settled, Way

TIERS: Mapping[Tier, model_pb2.Tier.ValueType] = {
    Tier.NONE: model_pb2.TIER_UNSPECIFIED,
    Tier.FAST: model_pb2.TIER_FAST,
    Tier.STRONG: model_pb2.TIER_STRONG,
}
RESOLUTIONS: Mapping[Resolution, generation.Resolved.Resolution.ValueType] = {
    Resolution.KEPT: generation.Resolved.RESOLUTION_KEPT,
    Resolution.CONTINUED: generation.Resolved.RESOLUTION_CONTINUED,
    Resolution.REPLACED: generation.Resolved.RESOLUTION_REPLACED,
}
STRATEGIES: Mapping[Strategy, generation.Route.Strategy.ValueType] = {
    Strategy.DIRECT: generation.Route.STRATEGY_DIRECT,
    Strategy.DRAFT: generation.Route.STRATEGY_DRAFT,
    Strategy.DRAFT_AND_CHECK: generation.Route.STRATEGY_DRAFT_AND_CHECK,
    Strategy.SPECULATE: generation.Route.STRATEGY_SPECULATE,
}
_FINISH_REASONS: Mapping[wire.FinishReason, generation.Finished.FinishReason.ValueType] = {
    "stop": generation.Finished.FINISH_REASON_STOP,
    "stop_string": generation.Finished.FINISH_REASON_STOP_STRING,
    "max_tokens": generation.Finished.FINISH_REASON_MAX_TOKENS,
    "context_full": generation.Finished.FINISH_REASON_CONTEXT_FULL,
    "cancelled": generation.Finished.FINISH_REASON_CANCELLED,
}
_PHASES: Mapping[str, model_pb2.Loading.Phase.ValueType] = {
    "import": model_pb2.Loading.PHASE_STARTING,
    "open": model_pb2.Loading.PHASE_READING_WEIGHTS,
    "weights": model_pb2.Loading.PHASE_READING_WEIGHTS,
    "context": model_pb2.Loading.PHASE_PREPARING,
    "warmup": model_pb2.Loading.PHASE_WARMING_UP,
}


def queued(waiting: Waiting) -> model_pb2.Queued:
    """A place in the waiting line."""
    wait = waiting.estimated_wait_s
    return model_pb2.Queued(
        model=model_name(waiting.model),
        position=waiting.position,
        reason=waiting.reason.value,
        estimated_wait=None if wait is None else duration(wait),
    )


def loading(step: LoadStep) -> model_pb2.Loading:
    """Progress of a load."""
    return model_pb2.Loading(
        model=model_name(step.model),
        phase=_PHASES.get(step.phase, model_pb2.Loading.PHASE_UNSPECIFIED),
        current=step.current,
        total=step.total,
    )


def progress(update: Waiting | LoadStep) -> service.GenerateResponse:
    """What happens before a model begins."""
    if isinstance(update, Waiting):
        return service.GenerateResponse(queued=queued(update))
    return service.GenerateResponse(loading=loading(update))


def route(way: Way) -> generation.Route:
    """The way a request takes, or took."""
    made = generation.Route(
        strategy=STRATEGIES[way.strategy],
        model=model_name(way.model),
        tier=TIERS[way.tier],
        reason=way.reason,
        explanation=way.explanation,
    )
    if way.strategy is not Strategy.DIRECT or way.checker:
        made.drafter = model_name(way.drafter) if way.drafter else ""
        made.checker = model_name(way.checker) if way.checker else ""
        made.drafted_tokens = way.drafted_tokens
        made.accepted_tokens = way.accepted_tokens
        if way.resolution is not None:
            made.resolution = RESOLUTIONS[way.resolution]
        if way.risk is not None:
            made.draft_risk = way.risk
    return made


def routed(way: Way) -> service.GenerateResponse:
    """The way has been decided."""
    return service.GenerateResponse(routed=generation.Routed(route=route(way)))


def started(began: Began, *, request_id: str) -> service.GenerateResponse:
    """A model begins."""
    return service.GenerateResponse(
        started=generation.Started(
            request_id=request_id,
            model=model_name(began.model),
            tier=TIERS[began.tier],
            prompt_tokens=began.message.prompt_tokens,
            cached_tokens=began.message.cached_tokens,
            context_length=began.context_tokens,
            seed=began.seed,
        )
    )


def drafted(event: Drafted) -> service.GenerateResponse:
    """Provisional text."""
    return service.GenerateResponse(
        draft=generation.Draft(
            model=model_name(event.model),
            text=event.text,
            last=event.last,
        )
    )


def settled(event: Settled) -> service.GenerateResponse:
    """What becomes of the draft."""
    return service.GenerateResponse(
        resolved=generation.Resolved(
            resolution=RESOLUTIONS[event.resolution],
            kept_bytes=len(event.kept.encode()),
            kept_tokens=event.kept_tokens,
            reason=event.reason,
            explanation=event.explanation,
            failure=None if event.failure is None else error_detail(event.failure),
        )
    )


def delta(message: wire.Delta) -> service.GenerateResponse:
    """New text."""
    made = generation.Delta(
        text=message.text,
        token_ids=message.tokens,
        logprobs=[_logprob(item) for item in message.logprobs],
    )
    # Each keyword of a constructor costs, and most answers need neither of these.
    if message.candidate:
        made.candidate = message.candidate
    if message.reasoning_text:
        made.reasoning_text = message.reasoning_text
    return service.GenerateResponse(delta=made)


def finished(ended: Ended) -> service.GenerateResponse:
    """A candidate is complete."""
    message, times = ended.message, ended.times
    first = times.first_text
    made = generation.Finished(
        candidate=message.candidate,
        finish_reason=_FINISH_REASONS[message.reason],
        stop=message.stop_string or "",
        usage=generation.Usage(
            prompt_tokens=message.prompt_tokens,
            cached_tokens=message.cached_tokens,
            completion_tokens=message.completion_tokens,
            reasoning_tokens=message.reasoning_tokens,
            denoising_steps=message.trace.steps if message.trace else 0,
        ),
        timings=generation.Timings(
            queued=duration(times.queued),
            load=duration(times.load) if times.load else None,
            first_token=None if first is None else duration(first),
            prefill=duration(times.prefill),
            decode=duration(times.decode),
            total=duration(times.total),
        ),
        route=route(ended.way),
        filled_spans=message.filled_spans,
        rank=ended.rank,
    )
    if ended.score is not None:
        made.score = ended.score
    return service.GenerateResponse(finished=made)


def scores(message: wire.Scores, *, model: str) -> service.ScoreResponse:
    """Scores of continuations."""
    return service.ScoreResponse(
        scores=[_continuation_score(item) for item in message.continuations],
        model=model_name(model),
        prompt_tokens=message.prompt_tokens,
        cached_tokens=message.cached_tokens,
    )


def embeddings(message: wire.Embeddings, *, model: str) -> service.EmbedResponse:
    """Embeddings of texts."""
    return service.EmbedResponse(
        embeddings=[
            service.Embedding(values=vector, tokens=tokens)
            for vector, tokens in zip(message.vectors, message.tokens, strict=True)
        ],
        model=model_name(model),
    )


def counted(
    message: wire.Counted, *, model: str, context_length: int
) -> service.CountTokensResponse:
    """The length of a prompt."""
    return service.CountTokensResponse(
        count=message.count,
        token_ids=message.tokens,
        model=model_name(model),
        context_length=context_length,
    )


def _continuation_score(item: wire.Continuation) -> service.ContinuationScore:
    return service.ContinuationScore(
        sum_logprob=math.fsum(token.logprob for token in item.tokens),
        token_count=len(item.tokens),
        tokens=[_logprob(token) for token in item.tokens],
        greedy_match=not any(token.rank for token in item.tokens),
    )


def _logprob(item: wire.TokenLogprob) -> generation.TokenLogprob:
    return generation.TokenLogprob(
        token_id=item.token,
        token=item.piece,
        logprob=item.logprob,
        rank=item.rank,
        entropy=item.entropy,
        alternatives=[
            generation.TokenLogprob.Alternative(
                token_id=other.token, logprob=other.logprob, token=other.piece
            )
            for other in item.top
        ],
    )
