"""What a caller hands in, and the proto messages made of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, TypeVar

from gemd.v1 import generation_pb2, generation_service_pb2, model_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

Role = Literal["system", "user", "assistant"]
Mode = Literal["fast", "balanced", "best", "exact"]
Tier = Literal["fast", "strong"]
Pooling = Literal["mean", "last"]
"""How the vectors of a text's tokens become one: their mean, or the last token's."""
Signal = Literal["liked", "disliked", "accepted", "edited", "regenerated"]
"""What became of an answer: praised or not, taken over as it is, taken over and changed much, or
asked for once more."""

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
    A value that its field cannot even hold, such as a negative count, is a `ValueError` here.
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


_SAMPLING_FIELDS = tuple(field.name for field in fields(Sampling))


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of a text that the model is to write."""

    max_tokens: int = 0
    """The most tokens it may take, up to 256; 0 leaves it to the daemon."""
    initial_text: str = ""
    """What stands there now, if it is to be edited rather than written."""


T = TypeVar("T")

Spans = Sequence[str | Gap]
"""A text with gaps: what stays as it is, and what the model fills, in order."""
Conversation = str | Sequence[Message]
"""Messages, oldest first; a plain string is one message of the user."""
Text = str | Sequence[int]
"""A text without a template, or the ids of its tokens."""


def sampling_proto(sampling: Sampling) -> generation_pb2.Sampling:
    """`sampling` with only the fields set that the caller has set.

    Raises:
        ValueError: A value does not go into its field.

    """
    proto = generation_pb2.Sampling()
    for name in _SAMPLING_FIELDS:
        value = getattr(sampling, name)
        if value is None:
            continue
        try:
            if name == "stop":
                # A single string would be taken for a list of its letters.
                proto.stop.extend([value] if isinstance(value, str) else value)
            elif name == "logit_bias":
                proto.logit_bias.update(value)
            else:
                setattr(proto, name, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"sampling.{name} cannot be {value!r}: {error}") from None
    return proto


def chat_proto(conversation: Conversation) -> generation_pb2.Chat:
    """The conversation as a proto message.

    Raises:
        ValueError: A message has a role that there is not.
        TypeError: One of them is no `Message`.

    """
    messages = (
        [Message("user", conversation)] if isinstance(conversation, str) else list(conversation)
    )
    for index, message in enumerate(messages):
        if not isinstance(message, Message):
            raise TypeError(f"messages[{index}] is {message!r}, and has to be a Message")
        if message.role not in _ROLES:
            raise ValueError(f"a message's role is {message.role!r}; it can be {', '.join(_ROLES)}")
    return generation_pb2.Chat(
        messages=[
            generation_pb2.Message(
                role=_ROLES[message.role], parts=[generation_pb2.Part(text=message.text)]
            )
            for message in messages
        ]
    )


def several(what: str, given: Iterable[T]) -> Iterable[T]:
    """A list that a caller may have forgotten around its one text.

    Raises:
        TypeError: It is one text, which would be taken for a list of its letters.

    """
    if isinstance(given, str | bytes):
        raise TypeError(f"{what} are a list of texts, not one text")
    return given


def spans_proto(spans: Spans) -> list[generation_pb2.CanvasSpan]:
    """The stretches of a text with gaps.

    Raises:
        ValueError: A gap's `max_tokens` is no number that the field can hold.
        TypeError: All of it is one string, which would be taken for a list of its letters, or a
            stretch is neither text nor gap.

    """
    if isinstance(spans, str):
        raise TypeError("spans are a list of texts and gaps, not one text")
    return [_span_proto(span, index) for index, span in enumerate(spans)]


def _span_proto(span: str | Gap, index: int) -> generation_pb2.CanvasSpan:
    if isinstance(span, str):
        return generation_pb2.CanvasSpan(fixed_text=span)
    if not isinstance(span, Gap):
        raise TypeError(f"spans[{index}] is {span!r}, and has to be a text or a Gap")
    try:
        free = generation_pb2.CanvasSpan.Free(
            max_tokens=span.max_tokens, initial_text=span.initial_text
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"spans[{index}] cannot be {span!r}: {error}") from None
    return generation_pb2.CanvasSpan(free=free)


def mode_proto(mode: Mode | None) -> generation_pb2.Mode.ValueType:
    """The enum value; None leaves the choice to the daemon.

    Raises:
        ValueError: There is no such mode.

    """
    if mode is None:
        return generation_pb2.MODE_UNSPECIFIED
    if mode not in _MODES:
        raise ValueError(f"the mode is {mode!r}; it can be {', '.join(_MODES)}")
    return _MODES[mode]


def pooling_proto(
    pooling: Pooling | None,
) -> generation_service_pb2.EmbedRequest.Pooling.ValueType:
    """The enum value; None leaves it to the model.

    Raises:
        ValueError: There is no such pooling.

    """
    word = "UNSPECIFIED" if pooling is None else pooling.upper()
    return generation_service_pb2.EmbedRequest.Pooling.Value(f"POOLING_{word}")


def priority_proto(*, background: bool) -> generation_pb2.Priority.ValueType:
    """The enum value; whatever is not in the background is left to the daemon."""
    if background:
        return generation_pb2.PRIORITY_BACKGROUND
    return generation_pb2.PRIORITY_UNSPECIFIED


def signal_proto(
    signal: Signal,
) -> generation_service_pb2.SendFeedbackRequest.Signal.ValueType:
    """The enum value.

    Raises:
        ValueError: There is no such signal.

    """
    return generation_service_pb2.SendFeedbackRequest.Signal.Value(f"SIGNAL_{signal.upper()}")


def tier_proto(tier: Tier) -> model_pb2.Tier.ValueType:
    """The enum value."""
    return _TIERS[tier]


def set_duration(duration: Duration, seconds: float) -> None:
    """Write seconds into a Duration field, which thereby becomes set.

    Raises:
        ValueError: They are not finite, or more than the field holds.

    """
    if not math.isfinite(seconds):
        raise ValueError(f"a time of {seconds} s has no end to be told; give a number of seconds")
    duration.FromNanoseconds(round(seconds * 1e9))


def prompt_source(
    prompt: Text | Sequence[Message],
) -> str | Sequence[int] | generation_pb2.Chat:
    """A conversation as proto message; text and token ids as they are.

    Raises:
        TypeError: It is neither; nothing of it is left out in silence.

    """
    if isinstance(prompt, str):
        return prompt
    messages = [part for part in prompt if isinstance(part, Message)]
    if messages and len(messages) == len(prompt):
        return chat_proto(messages)
    ids = [part for part in prompt if isinstance(part, int)]
    if len(ids) != len(prompt):
        raise TypeError("a prompt is a string, messages only, or token ids only")
    return ids
