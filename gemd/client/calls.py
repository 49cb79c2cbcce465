"""Calls of the API as data: where each goes, what it sends, how its answer is read.

Those of the daemon itself are in `gemd.client.daemon_calls`, those about long work in
`gemd.client.operation_calls`.

The async and the sync client make the same calls; they differ only in how they wait.
"""
# ruff: noqa: PLC0415 - what only generations need is loaded with the first of them.

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gemd.client import inputs
from gemd.client.operations import Operation
from gemd.client.resources import Model
from gemd.v1 import (
    generation_pb2,
    generation_service_pb2,
    model_pb2,
    model_service_pb2,
    store_service_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from google.protobuf.message import Message as Proto

    from gemd.client.answers import Embeddings, Scores, TokenCount
    from gemd.client.events import GenerationEvent, LoadEvent

T = TypeVar("T")


@dataclass(frozen=True)
class Unary(Generic[T]):
    """A call with one answer."""

    path: str
    request: Proto
    response: type[Proto]
    convert: Callable[[Any], T]
    retried: bool = True
    """Whether a second attempt after UNAVAILABLE can do no harm."""


@dataclass(frozen=True)
class Stream(Generic[T]):
    """A call with a stream of answers."""

    path: str
    request: Proto
    response: type[Proto]
    convert: Callable[[Any], T | None]
    """None for an answer of a kind newer than this client, which is skipped."""
    commits: Callable[[T], bool]
    """Whether the reader holds something after this answer that a retry would send again."""


def always(_: object) -> bool:
    """Every answer counts."""
    return True


# --- generation -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """What `generate` and `chat` take beside their input."""

    model: str | None = None
    """The model that answers; None leaves the choice to the daemon."""
    tier: inputs.Tier | None = None
    """The tier that answers, instead of a model."""
    mode: inputs.Mode | None = None
    sampling: inputs.Sampling | None = None
    candidates: int = 0
    """How many answers to give; 0 is one. More than one needs a block-diffusion model, as do
    `spans` and `watch_canvas`."""
    best_of: int = 0
    """Write this many answers, rank them and give the best `candidates`; 0 ranks none."""
    spans: inputs.Spans = ()
    """A text with gaps; the answer is that text with them filled."""
    thinking: bool | None = None
    """Whether to reason first; None leaves it to the model's template."""
    watch_canvas: bool = False
    """Ask for the `Canvas` events of every denoising step."""
    background: bool = False
    """Nobody sits before it: requests that somebody waits for go first."""
    request_id: str = ""


def generate(
    source: inputs.Text | generation_pb2.Chat, options: GenerationOptions, client: str
) -> Stream[GenerationEvent]:
    """Answer a conversation, or continue a text or token ids as they are."""
    from gemd.client import events

    if options.model is not None and options.tier is not None:
        raise ValueError("name a model or a tier, not both")
    request = generation_service_pb2.GenerateRequest(
        mode=inputs.mode_proto(options.mode),
        candidates=options.candidates,
        best_of=options.best_of,
        thinking=options.thinking,
        watch_canvas=options.watch_canvas,
        spans=inputs.spans_proto(options.spans),
        priority=inputs.priority_proto(background=options.background),
        request_id=options.request_id,
        client=client,
    )
    if isinstance(source, generation_pb2.Chat):
        request.chat.CopyFrom(source)
    elif isinstance(source, str):
        request.text = source
    else:
        request.tokens.ids.extend(source)
    if options.sampling is not None:
        request.sampling.CopyFrom(inputs.sampling_proto(options.sampling))
    if options.model is not None:
        request.model = options.model
    if options.tier is not None:
        request.tier = inputs.tier_proto(options.tier)
    texts = (events.Delta, events.Draft, events.Canvas)
    return Stream(
        "/gemd.v1.GenerationService/Generate",
        request,
        generation_service_pb2.GenerateResponse,
        events.generation_event,
        commits=lambda event: isinstance(event, texts),
    )


def embed(
    texts: Sequence[str],
    *,
    model: str,
    pooling: inputs.Pooling | None,
    normalize: bool,
    background: bool,
    request_id: str,
    client: str,
) -> Unary[Embeddings]:
    """One vector per text."""
    from gemd.client.answers import Embeddings

    return Unary(
        "/gemd.v1.GenerationService/Embed",
        generation_service_pb2.EmbedRequest(
            model=model,
            texts=inputs.several("texts", texts),
            pooling=inputs.pooling_proto(pooling),
            normalize=normalize,
            priority=inputs.priority_proto(background=background),
            request_id=request_id,
            client=client,
        ),
        generation_service_pb2.EmbedResponse,
        Embeddings.of,
    )


def score(
    prompt: inputs.Text | generation_pb2.Chat,
    continuations: Iterable[inputs.Text],
    *,
    model: str,
    alternatives: int,
    background: bool,
    request_id: str,
    client: str,
) -> Unary[Scores]:
    """Log-probabilities of continuations of one prompt."""
    from gemd.client.answers import Scores

    request = generation_service_pb2.ScoreRequest(
        model=model,
        alternatives=alternatives,
        priority=inputs.priority_proto(background=background),
        request_id=request_id,
        client=client,
    )
    if isinstance(prompt, generation_pb2.Chat):
        request.chat.CopyFrom(prompt)
    elif isinstance(prompt, str):
        request.text = prompt
    else:
        request.tokens.ids.extend(prompt)
    for continuation in inputs.several("continuations", continuations):
        if isinstance(continuation, str):
            request.continuations.add(text=continuation)
        else:
            request.continuations.add().tokens.ids.extend(continuation)
    return Unary(
        "/gemd.v1.GenerationService/Score",
        request,
        generation_service_pb2.ScoreResponse,
        Scores.of,
    )


def count_tokens(
    source: inputs.Text | generation_pb2.Chat, model: str, *, include_token_ids: bool
) -> Unary[TokenCount]:
    """Tokens of a prompt as the model would read it."""
    from gemd.client.answers import TokenCount

    request = generation_service_pb2.CountTokensRequest(
        model=model, include_token_ids=include_token_ids
    )
    if isinstance(source, generation_pb2.Chat):
        request.chat.CopyFrom(source)
    elif isinstance(source, str):
        request.text = source
    else:
        request.tokens.ids.extend(source)
    return Unary(
        "/gemd.v1.GenerationService/CountTokens",
        request,
        generation_service_pb2.CountTokensResponse,
        TokenCount.of,
    )


def send_feedback(request_id: str, signal: inputs.Signal, candidate: int) -> Unary[bool]:
    """Tell what became of an answer."""
    return Unary(
        "/gemd.v1.GenerationService/SendFeedback",
        generation_service_pb2.SendFeedbackRequest(
            request_id=request_id, candidate=candidate, signal=inputs.signal_proto(signal)
        ),
        generation_service_pb2.SendFeedbackResponse,
        lambda response: bool(response.recorded),
        # One answer is one lesson: a second attempt could count it twice.
        retried=False,
    )


# --- models -----------------------------------------------------------------------------


def list_models(states: Iterable[str], page_token: str) -> Unary[tuple[list[Model], str]]:
    """One page of models."""
    numbers = [model_pb2.Model.State.Value(f"STATE_{state}") for state in states]
    return Unary(
        "/gemd.v1.ModelService/ListModels",
        model_service_pb2.ListModelsRequest(page_token=page_token, states=numbers),
        model_service_pb2.ListModelsResponse,
        lambda page: ([Model.of(one) for one in page.models], page.next_page_token),
    )


def get_model(name: str) -> Unary[Model]:
    """One model."""
    return Unary(
        "/gemd.v1.ModelService/GetModel",
        model_service_pb2.GetModelRequest(name=name),
        model_service_pb2.GetModelResponse,
        lambda response: Model.of(response.model),
    )


def load(
    model: str,
    *,
    context_length: int | None,
    allow_cpu: bool,
    clear_failure: bool,
    background: bool,
    client: str,
) -> Stream[LoadEvent]:
    """Make a model warm: waiting and loading, and the READY model last."""
    return Stream(
        "/gemd.v1.ModelService/LoadModel",
        model_service_pb2.LoadModelRequest(
            model=model,
            context_length=context_length,
            allow_cpu=allow_cpu,
            clear_failure=clear_failure,
            priority=inputs.priority_proto(background=background),
            client=client,
        ),
        model_service_pb2.LoadModelResponse,
        _load_event,
        commits=always,
    )


def _load_event(proto: model_service_pb2.LoadModelResponse) -> LoadEvent | None:
    from gemd.client import events

    kind = proto.WhichOneof("event")
    if kind == "queued":
        return events.queued(proto.queued)
    if kind == "loading":
        return events.loading(proto.loading)
    return Model.of(proto.ready) if kind == "ready" else None


def unload(model: str, drain_timeout: float | None) -> Unary[Model]:
    """Make a model cold."""
    request = model_service_pb2.UnloadModelRequest(model=model)
    if drain_timeout is not None:
        inputs.set_duration(request.drain_timeout, drain_timeout)
    return Unary(
        "/gemd.v1.ModelService/UnloadModel",
        request,
        model_service_pb2.UnloadModelResponse,
        lambda response: Model.of(response.model),
    )


def pin(model: str, *, pinned: bool) -> Unary[Model]:
    """Pin a model, or take the pin away."""
    return Unary(
        "/gemd.v1.ModelService/PinModel",
        model_service_pb2.PinModelRequest(model=model, pinned=pinned),
        model_service_pb2.PinModelResponse,
        lambda response: Model.of(response.model),
    )


# --- files ------------------------------------------------------------------------------


def pull(
    model: str, *, variant: str, force: bool, accept_licence: bool, source: str, revision: str
) -> Unary[Operation]:
    """Fetch a model; a running pull of the same model is joined."""
    return Unary(
        "/gemd.v1.StoreService/PullModel",
        store_service_pb2.PullModelRequest(
            model=model,
            variant=variant,
            force=force,
            accept_licence=accept_licence,
            source=source,
            revision=revision,
            # Lets the daemon recognise a second attempt of the same pull.
            request_id=str(uuid.uuid4()),
        ),
        store_service_pb2.PullModelResponse,
        lambda response: Operation.of(response.operation),
    )


def delete(model: str, *, variant: str, force: bool) -> Unary[Operation]:
    """Remove a model's files."""
    return Unary(
        "/gemd.v1.StoreService/DeleteModel",
        store_service_pb2.DeleteModelRequest(model=model, variant=variant, force=force),
        store_service_pb2.DeleteModelResponse,
        lambda response: Operation.of(response.operation),
        retried=False,
    )
