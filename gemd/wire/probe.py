"""What daemon and probe say to each other: one JSON line for each question and answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gemd.wire.base import ErrorBody, Message
from gemd.wire.to_worker import CacheType  # noqa: TC001 - pydantic reads it


class Question(Message):
    """A context that is to be planned and not made. Fields as in `Load`."""

    path: str
    context_tokens: int = Field(gt=0)
    max_sequences: int = Field(gt=0)
    cache_type: CacheType = "f16"
    gpu_layers: int = Field(default=0, ge=0)
    host_expert_layers: int = Field(default=0, ge=0)


class Cache(Message):
    """One of the caches of a context: with sliding windows there are two."""

    cells: int
    layers: int
    kv_bytes: int
    """To the 0.01 MiB of llama.cpp's log."""


class Buffer(Message):
    """Scratch of one kind in one type of memory."""

    name: str
    """ggml's: ``CPU``, ``CUDA0``, ``CUDA_Host``."""
    purpose: Literal["compute", "output"]
    size_bytes: int


class Planned(Message):
    """Answer to a question that llama.cpp could plan."""

    caches: tuple[Cache, ...]
    buffers: tuple[Buffer, ...]
    devices: tuple[str, ...]
    """As in `Ready`."""

    @property
    def kv_bytes(self) -> int:
        """Of all caches."""
        return sum(cache.kv_bytes for cache in self.caches)

    def scratch_bytes(self, purpose: Literal["compute", "output"]) -> dict[str, int]:
        """By type of memory."""
        return {each.name: each.size_bytes for each in self.buffers if each.purpose == purpose}


class Answer(Message):
    """One line of the probe. Exactly one of the two is set."""

    planned: Planned | None = None
    error: ErrorBody | None = None
