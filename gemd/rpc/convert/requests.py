"""Requests of GenerationService: checked, and put into the daemon's own terms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from gemd import wire
from gemd.routing.request import Feedback, Mode, Request, Tier
from gemd.rpc.convert.canvas import spans_of
from gemd.rpc.convert.fields import (
    check_known,
    check_range,
    invalid,
    model_id,
    required_model_id,
    short_text,
    unsupported,
)
from gemd.v1 import generation_pb2 as generation
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import model_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_CANDIDATES = 64
MAX_CONTINUATIONS = 256
MAX_LOGPROBS = 20
MAX_PENALTY_WINDOW = 1 << 24
"""No context is longer, and an engine reserves memory for as many tokens."""
MAX_STOPS = 16
MAX_TEXTS = 1024

_ROLES: Mapping[int, Literal["system", "user", "assistant"]] = {
    generation.Message.ROLE_SYSTEM: "system",
    generation.Message.ROLE_USER: "user",
    generation.Message.ROLE_ASSISTANT: "assistant",
}
_MODES = {
    generation.MODE_UNSPECIFIED: Mode.BALANCED,
    generation.MODE_FAST: Mode.FAST,
    generation.MODE_BALANCED: Mode.BALANCED,
    generation.MODE_BEST: Mode.BEST,
    generation.MODE_EXACT: Mode.EXACT,
}
_PRIORITIES = frozenset(generation.Priority.values())
_TIERS = {model_pb2.TIER_FAST: Tier.FAST, model_pb2.TIER_STRONG: Tier.STRONG}
_POOLINGS: Mapping[int, wire.Pooling | None] = {
    service.EmbedRequest.POOLING_UNSPECIFIED: None,
    service.EmbedRequest.POOLING_MEAN: "mean",
    service.EmbedRequest.POOLING_LAST: "last",
}
_FEEDBACK = {
    service.SendFeedbackRequest.SIGNAL_LIKED: Feedback.LIKED,
    service.SendFeedbackRequest.SIGNAL_DISLIKED: Feedback.DISLIKED,
    service.SendFeedbackRequest.SIGNAL_ACCEPTED: Feedback.ACCEPTED,
    service.SendFeedbackRequest.SIGNAL_EDITED: Feedback.EDITED,
    service.SendFeedbackRequest.SIGNAL_REGENERATED: Feedback.REGENERATED,
}
_Bounds = dict[str, float]
_RANGES: Mapping[str, _Bounds] = {
    "temperature": {"least": 0, "most": 10},
    "top_p": {"above": 0, "most": 1},
    "min_p": {"least": 0, "most": 1},
    "repeat_penalty": {"above": 0, "most": 10},
    "frequency_penalty": {"least": -2, "most": 2},
    "presence_penalty": {"least": -2, "most": 2},
    "penalty_last_n": {"least": -1, "most": MAX_PENALTY_WINDOW},
    "logprobs": {"most": MAX_LOGPROBS},
}
_SCALARS = frozenset({*_RANGES, "top_k", "seed", "max_tokens", "ignore_eos"})


def generate_request(message: service.GenerateRequest) -> Request:
    """A GenerateRequest in the daemon's terms.

    Raises:
        InvalidRequestError: A field is out of range or missing; names its path.
        UnsupportedInputError: Media, tools or an output constraint.

    """
    constraint = message.WhichOneof("constraint")
    if constraint is not None:
        raise unsupported(constraint, "output constraints")
    if message.tools:
        raise unsupported("tools", "tools")
    check_range(message.candidates, field="candidates", most=MAX_CANDIDATES)
    if message.best_of:
        least = message.candidates or 1
        check_range(message.best_of, field="best_of", least=least, most=MAX_CANDIDATES)
    check_known(message.mode, _MODES, field="mode")
    check_priority(message.priority)
    target = message.WhichOneof("target")
    tier = None
    if target == "tier" and message.tier != model_pb2.TIER_UNSPECIFIED:
        check_known(message.tier, _TIERS, field="tier")
        tier = _TIERS[message.tier]
    return Request(
        prompt=_prompt(message, message.WhichOneof("input")),
        sampling=_sampling(message.sampling),
        model=required_model_id(message.model) if target == "model" else None,
        tier=tier,
        mode=_MODES[message.mode],
        candidates=message.candidates or 1,
        best_of=message.best_of,
        watch_canvas=message.watch_canvas,
        spans=spans_of(message.spans),
        thinking=message.thinking if message.HasField("thinking") else None,
    )


def count_request(message: service.CountTokensRequest, *, work_id: str) -> wire.Count:
    """The worker's message for a CountTokensRequest."""
    return wire.Count(
        request_id=work_id,
        prompt=_prompt(message, message.WhichOneof("input")),
        include_tokens=message.include_token_ids,
    )


def optional_model(name: str) -> str | None:
    """The model a request names, or None."""
    return model_id(name) or None


def score_request(message: service.ScoreRequest, *, work_id: str) -> wire.Score:
    """The worker's message for a ScoreRequest, without a deadline."""
    check_range(message.alternatives, field="alternatives", least=0, most=MAX_LOGPROBS)
    check_priority(message.priority)
    which = message.WhichOneof("prompt")
    # Unlike a prompt to answer, the text before a continuation may be empty.
    prompt = (
        wire.Prompt(text=message.text) if which == "text" else _prompt(message, which, "prompt")
    )
    count = len(message.continuations)
    check_range(count, field="continuations", least=1, most=MAX_CONTINUATIONS)
    return wire.Score(
        request_id=work_id,
        prompt=prompt,
        continuations=tuple(
            _continuation(item, f"continuations[{index}]")
            for index, item in enumerate(message.continuations)
        ),
        alternatives=message.alternatives,
    )


def embed_request(message: service.EmbedRequest, *, work_id: str) -> wire.Embed:
    """The worker's message for an EmbedRequest."""
    check_range(len(message.texts), field="texts", least=1, most=MAX_TEXTS)
    for index, text in enumerate(message.texts):
        if not text:
            raise invalid(f"texts[{index}]", f"texts[{index}] must not be empty")
    check_known(message.pooling, _POOLINGS, field="pooling")
    check_priority(message.priority)
    return wire.Embed(
        request_id=work_id,
        texts=tuple(message.texts),
        pooling=_POOLINGS[message.pooling],
        normalize=message.normalize if message.HasField("normalize") else True,
    )


def feedback(message: service.SendFeedbackRequest) -> tuple[str, int, Feedback]:
    """Whose answer, which of its candidates, and what became of it."""
    identity = short_text(message.request_id, field="request_id")
    if not identity:
        raise invalid("request_id", "request_id must be set", why="feedback is about a request")
    check_range(message.candidate, field="candidate", most=MAX_CANDIDATES - 1)
    if message.signal == service.SendFeedbackRequest.SIGNAL_UNSPECIFIED:
        raise invalid("signal", "signal must be set: what became of the answer")
    check_known(message.signal, _FEEDBACK, field="signal")
    return identity, message.candidate, _FEEDBACK[message.signal]


def check_priority(priority: generation.Priority.ValueType) -> None:
    """Raise InvalidRequestError for a priority that this version does not know."""
    check_known(priority, _PRIORITIES, field="priority")


def in_background(priority: generation.Priority.ValueType) -> bool:
    """Whether others go first; see `gemd.residency.hold.Ticket.rank`."""
    return priority == generation.PRIORITY_BACKGROUND


def client_name(
    message: service.GenerateRequest | service.ScoreRequest | service.EmbedRequest,
) -> str:
    """How the calling program calls itself."""
    return short_text(message.client, field="client")


def request_id(
    message: service.GenerateRequest | service.ScoreRequest | service.EmbedRequest,
) -> str:
    """The client's own id of the request; empty if it gave none."""
    return short_text(message.request_id, field="request_id")


def _prompt(
    message: service.GenerateRequest | service.CountTokensRequest | service.ScoreRequest,
    which: str | None,
    oneof: str = "input",
) -> wire.Prompt:
    match which:
        case "chat":
            return wire.Prompt(chat=_chat(message.chat))
        case "text":
            if not message.text:
                raise invalid(
                    "text", "text must not be empty", why="there is nothing to go on from"
                )
            return wire.Prompt(text=message.text)
        case "tokens":
            if not message.tokens.ids:
                raise invalid("tokens.ids", "tokens.ids must not be empty")
            return wire.Prompt(tokens=tuple(message.tokens.ids))
        case _:
            raise invalid(oneof, f"{oneof} must be set: chat, text or tokens")


def _chat(chat: generation.Chat) -> tuple[wire.ChatMessage, ...]:
    if not chat.messages:
        raise invalid("chat.messages", "chat.messages must not be empty")
    return tuple(
        _chat_message(message, index, f"chat.messages[{index}]")
        for index, message in enumerate(chat.messages)
    )


def _chat_message(message: generation.Message, index: int, field: str) -> wire.ChatMessage:
    if message.role == generation.Message.ROLE_TOOL:
        raise unsupported(f"{field}.role", "results of tools")
    if message.role not in _ROLES:
        raise invalid(f"{field}.role", f"{field}.role must be set: system, user or assistant")
    if message.role == generation.Message.ROLE_SYSTEM and index:
        raise invalid(f"{field}.role", f"{field}.role: only the first message may be of the system")
    texts: list[str] = []
    for number, part in enumerate(message.parts):
        if part.WhichOneof("content") == "media":
            raise unsupported(f"{field}.parts[{number}].media", "images and sound")
        texts.append(part.text)
    text = "".join(texts)
    if not text:
        raise invalid(f"{field}.parts", f"{field}.parts must hold text", why="the prompt is empty")
    return wire.ChatMessage(role=_ROLES[message.role], text=text)


def _sampling(message: generation.Sampling) -> dict[str, Any]:
    # One walk over the few fields that are set, instead of a question for each of a dozen:
    # this is ahead of the first token.
    given: dict[str, Any] = {field.name: value for field, value in message.ListFields()}
    values = {name: value for name, value in given.items() if name in _SCALARS}
    for name, value in values.items():
        if name in _RANGES:
            check_range(value, field=f"sampling.{name}", **_RANGES[name])
    if "min_p" in values:
        # 1 means «only tokens as likely as the likeliest»; the worker wants less than 1.
        values["min_p"] = min(values["min_p"], math.nextafter(1.0, 0.0))
    values["logit_bias"] = dict(given.get("logit_bias", {}))
    for token, bias in values["logit_bias"].items():
        check_range(bias, field=f"sampling.logit_bias[{token}]", least=-100, most=100)
    values["stop"] = _stops(given.get("stop", ()))
    return values


def _stops(given: Sequence[str]) -> tuple[str, ...]:
    check_range(len(given), field="sampling.stop", most=MAX_STOPS)
    for index, text in enumerate(given):
        if not text:
            raise invalid(f"sampling.stop[{index}]", f"sampling.stop[{index}] must not be empty")
    return tuple(given)


def _continuation(message: service.Continuation, field: str) -> str | tuple[int, ...]:
    match message.WhichOneof("content"):
        case "text" if message.text:
            return message.text
        case "tokens" if message.tokens.ids:
            return tuple(message.tokens.ids)
        case _:
            raise invalid(field, f"{field} must hold text or tokens")
