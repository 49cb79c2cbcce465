"""What the scripted engine can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


class Script(Common):
    """How to answer one Generate; the ``_at`` fields count tokens from 0."""

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


def script_of(prompt: wire.Prompt) -> Script:
    """The script in a prompt, or one that repeats the prompt's words.

    Raises:
        InvalidRequestError: The prompt starts like a script and is none.

    """
    text = text_of(prompt)
    if text.lstrip().startswith("{"):
        try:
            return Script.model_validate_json(text)
        except ValidationError as error:
            raise InvalidRequestError("the prompt is no script", why=str(error)) from None
    return Script(tokens=tuple(words(text)))
