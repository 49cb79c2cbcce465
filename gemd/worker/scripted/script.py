"""What the scripted engine can be told."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from gemd import wire  # noqa: TC001 - pydantic evaluates the annotations below
from gemd.errors import InvalidRequestError
from gemd.worker.scripted.tokens import text_of, words

Stall = Literal["event", "c", "gil"]
"""How to hang: waiting in Python, in C without the interpreter lock, in C holding it."""


class Common(BaseModel):
    """Faults that a load and an answer share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stall: Stall = "event"
    exit_code: int = 3
    signal: int | None = None
    """Crash by this signal instead of by `exit_code`."""
    error: wire.ErrorBody | None = None
    """The domain error of `fail_at`."""
    noise: tuple[str, ...] = ()
    """Lines for standard error, written first of all."""
    stdout: tuple[str, ...] = ()
    """The same for standard output."""


class LoadScript(Common):
    """How to load; the ``_at`` fields count progress steps from 0."""

    compute: str = ""
    """Of `wire.Ready`; its reason is that the script says so."""
    pooling: wire.Pooling = "mean"
    """The way that the model was made for."""
    steps: int = 1
    step_seconds: float = 0.0
    allocate_mib: int = 0
    cell_bytes: int = 0
    """To allocate for each token of the context, anew with every Resize."""
    resize_seconds: float = 0.0
    resize_error: wire.ErrorBody | None = None
    """Refuse every Resize with this; ENGINE_CRASHED ends the process too."""
    stall_at: int | None = None
    fail_at: int | None = None
    crash_at: int | None = None
    raise_at: int | None = None
    """An exception that is no domain error."""
    ignore_drain: bool = False
    ignore_sigterm: bool = False
    report_environment: bool = False
    """Write the environment and the open descriptors to standard error."""


class Scored(Common):
    """How to answer one Score; the ``_at`` fields count its continuations from 0."""

    logprobs: tuple[tuple[float, ...], ...] = Field(default=((-0.1,),), min_length=1)
    """Of the tokens of each continuation. The last figure stands for the tokens that follow, the
    last list for the continuations that do."""
    entropy: float = 0.5
    """Of every token."""
    seconds: float = 0.0
    """How long it takes."""
    stall_at: int | None = None
    fail_at: int | None = None
    crash_at: int | None = None
    raise_at: int | None = None

    @field_validator("logprobs")
    @classmethod
    def _figures(cls, lists: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if not all(lists):
            raise ValueError("a list of log-probabilities is empty")
        return lists


class Script(Common):
    """How to answer one Generate; the ``_at`` fields count tokens from 0.

    What is said goes on behind an `answer_prefix`: behind as much of it as these tokens begin with.
    """

    tokens: tuple[str, ...] = ()
    count: int | None = None
    """That many numbered tokens instead of `tokens`."""
    candidates: tuple[tuple[str, ...], ...] = ()
    """Tokens of each candidate; those beyond say `tokens`."""
    reasoning: tuple[str, ...] = ()
    """Tokens of reasoning before the answer, unless the request wants no thinking."""
    fill: tuple[str, ...] = ()
    """Texts for the gaps of a request with spans; gaps beyond keep what stands there."""
    canvas_steps: int = Field(default=0, ge=0)
    """Denoising steps before each token of the answer, which is a canvas of its own then."""
    canvas_seconds: float = 0.0
    """Between two of them."""
    trace: wire.Trace | None = None
    accepted: int | None = Field(default=None, ge=0)
    """Tokens of a draft that count as equal; by default as many as are. They take no time."""
    score: Scored | None = None
    """How to answer a Score of this prompt; by default with hashes."""
    token_seconds: float = 0.0
    prefill_seconds: float = 0.0
    stall_at: int | None = None
    fail_at: int | None = None
    crash_at: int | None = None
    raise_at: int | None = None
    garbage_at: int | None = None
    """Write bytes that are no frame."""
    wrong_identity_at: int | None = None
    """Write a frame of another worker."""


class Play(BaseModel):
    """One prompt, and what each of several models makes of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, Script]
    """By the id of the model; one that is not named repeats the prompt's words."""
    again: dict[str, Script] = Field(default_factory=dict)
    """What they make of a conversation that goes on behind this prompt; those that are not named
    do as in `models`."""


def script_of(prompt: wire.Prompt, model: str) -> Script:
    """The script in a prompt, or one that repeats the prompt's words.

    A `Play` holds for all turns that follow it, a `Script` for the turn that it stands in.

    Args:
        prompt: Its text, or a message of a chat, may be a script.
        model: Who is asked.

    Raises:
        InvalidRequestError: The prompt starts like a script and is none.

    """
    text = text_of(prompt)
    found = _script_in(text)
    later = False
    if found is None and prompt.chat is not None:
        earlier = (_play_in(turn.text) for turn in reversed(prompt.chat[:-1]))
        found = next((play for play in earlier if play is not None), None)
        later = found is not None
    if isinstance(found, Play):
        found = (found.again if later else {}).get(model) or found.models.get(model)
    return found or Script(tokens=tuple(words(text)))


def _script_in(text: str) -> Script | Play | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return _EITHER.validate_json(text)
    except ValidationError as error:
        raise InvalidRequestError("the prompt is no script", why=str(error)) from None


def _play_in(text: str) -> Play | None:
    # Of an earlier turn: an answer may begin like a script and be none.
    try:
        found = _script_in(text)
    except InvalidRequestError:
        return None
    return found if isinstance(found, Play) else None


_EITHER: Final[TypeAdapter[Script | Play]] = TypeAdapter(Script | Play)
