"""What a caller hands in, and the proto messages made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from gemd.v1 import generation_pb2, model_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

Role = Literal["system", "user", "assistant"]
Mode = Literal["fast", "balanced", "best", "exact"]
Tier = Literal["fast", "strong"]

_ROLES: dict[str, generation_pb2.Message.Role.ValueType] = {
    "system": generation_pb2.Message.ROLE_SYSTEM,
    "user": generation_pb2.Message.ROLE_USER,
    "assistant": generation_pb2.Message.ROLE_ASSISTANT,
}
_MODES: dict[str, generation_pb2.Mode.ValueType] = {
    "fast": generation_pb2.MODE_FAST,
    "balanced": generation_pb2.MODE_BALANCED,
    "best": generation_pb2.MODE_BEST,
    "exact": generation_pb2.MODE_EXACT,
}
_TIERS: dict[str, model_pb2.Tier.ValueType] = {
    "fast": model_pb2.TIER_FAST,
    "strong": model_pb2.TIER_STRONG,
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. None is the default of the model's profile, and 0 means 0.

    Ranges are checked by the daemon, which answers `InvalidRequestError`; nothing is clamped.
    """

    temperature: float | None = None
    """0 to 10; 0 always takes the likeliest token."""
    top_k: int | None = None
    """Choose among this many likeliest tokens; 0 among all."""
    top_p: float | None = None
    """Choose among the likeliest tokens that together have this probability."""
    min_p: float | None = None
    """Leave out tokens less likely than this share of the likeliest."""
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    penalty_last_n: int | None = None
    """Window of the three penalties in tokens; -1 is the whole context."""
    seed: int | None = None
    logit_bias: Mapping[int, float] | None = None
    """Added to the logits of tokens, by token id."""
    stop: Sequence[str] = ()
    """Texts that end the answer; they are not part of it."""
    max_tokens: int | None = None
    ignore_eos: bool | None = None
    logprobs: int | None = None
    """Alternatives to report for each token; None reports no log-probabilities."""


Conversation = str | Sequence[Message]
"""Messages, oldest first; a plain string is one message of the user."""
Text = str | Sequence[int]
"""A text without a template, or the ids of its tokens."""


def sampling_proto(sampling: Sampling) -> generation_pb2.Sampling:
    """`sampling` with only the fields set that the caller has set."""
    proto = generation_pb2.Sampling(stop=sampling.stop, logit_bias=sampling.logit_bias or {})
    for field in fields(sampling):
        value = getattr(sampling, field.name)
        if field.name not in {"stop", "logit_bias"} and value is not None:
            setattr(proto, field.name, value)
    return proto


def chat_proto(conversation: Conversation) -> generation_pb2.Chat:
    """The conversation as a proto message."""
    messages = (
        [Message("user", conversation)] if isinstance(conversation, str) else list(conversation)
    )
    return generation_pb2.Chat(
        messages=[
            generation_pb2.Message(
                role=_ROLES[message.role], parts=[generation_pb2.Part(text=message.text)]
            )
            for message in messages
        ]
    )


def mode_proto(mode: Mode | None) -> generation_pb2.Mode.ValueType:
    """The enum value; None leaves the choice to the daemon."""
    return generation_pb2.MODE_UNSPECIFIED if mode is None else _MODES[mode]


def tier_proto(tier: Tier) -> model_pb2.Tier.ValueType:
    """The enum value."""
    return _TIERS[tier]


def set_duration(duration: Duration, seconds: float) -> None:
    """Write seconds into a Duration field, which thereby becomes set."""
    duration.FromNanoseconds(round(seconds * 1e9))


def prompt_source(
    prompt: Text | Sequence[Message],
) -> str | Sequence[int] | generation_pb2.Chat:
    """A conversation as proto message; text and token ids as they are."""
    if isinstance(prompt, str):
        return prompt
    messages = [part for part in prompt if isinstance(part, Message)]
    if messages:
        return chat_proto(messages)
    return [part for part in prompt if isinstance(part, int)]
