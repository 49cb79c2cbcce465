"""All that a worker says to the daemon; answers to requests are `gemd.wire.answers`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gemd.wire.answers import Answer
from gemd.wire.base import ErrorBody, Message

PROTOCOL = 5
"""Raised whenever a message changes; both sides must agree, they are installed together."""


class Hello(Message):
    """The first frame. Sent before any engine is imported."""

    type: Literal["hello"] = "hello"
    protocol: int = PROTOCOL
    pid: int
    engine: str


Phase = Literal["import", "open", "weights", "context", "warmup"]


class Progress(Message):
    """Loading goes on. The stall timeout counts from the last of these."""

    type: Literal["progress"] = "progress"
    phase: Phase
    current: int
    total: int
    """0 if unknown."""


class Ready(Message):
    """The model answers. Said after one token has been decoded, never before."""

    type: Literal["ready"] = "ready"
    engine: str
    engine_version: str
    architecture: str
    context_tokens: int
    train_context_tokens: int
    max_sequences: int
    vocabulary: int
    parameters: int
    has_chat_template: bool
    supports_gpu_offload: bool
    devices: tuple[str, ...]
    """What could compute, as the engine names it; ("CPU",) where it sees no GPU."""
    memory_bytes: dict[str, int]
    """Resident bytes after the warm-up, by device. Of main memory ("CPU") only: what a process
    holds of a GPU is the driver's to say."""
    load_seconds: float
    compute: str = ""
    """The way that an engine with several chose to compute."""
    compute_reason: str = ""
    """Why, in one sentence with its figures."""


class Failed(Message):
    """The load failed for good; the worker ends after this frame."""

    type: Literal["failed"] = "failed"
    error: ErrorBody


class Drained(Message):
    """Nothing runs any more and nothing new is taken."""

    type: Literal["drained"] = "drained"


class Pong(Message):
    """Answer to Ping, with the engine's state at a step boundary."""

    type: Literal["pong"] = "pong"
    nonce: int
    active: int
    waiting: int
    cached_tokens: int


FromWorker = Hello | Progress | Ready | Failed | Answer | Drained | Pong

ToDaemon = Annotated[FromWorker, Field(discriminator="type")]
