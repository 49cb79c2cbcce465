"""A prediction of memory: where a model's parts lie and what each takes. Values only, bytes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from typing import Final, Literal

CacheType = Literal["f16", "q8_0", "q4_0"]
"""Element type of the KV cache."""

CACHE_BYTES: Final[dict[CacheType, tuple[int, int]]] = {
    "f16": (1, 2),
    "q8_0": (32, 34),
    "q4_0": (32, 18),
}
"""Elements of a block and its bytes, by cache type (ggml's block sizes)."""


class Method(enum.Enum):
    """Where figures come from. Names as in the API."""

    ENGINE = "ENGINE"
    """The engine's own planner computed them."""
    FORMULA = "FORMULA"
    """A formula over the header, or over the profile where there is no header yet."""
    MEASURED = "MEASURED"
    """As the two above, corrected by what was measured here."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model's tensors lie.

    Attributes:
        gpu_layers: Layers on the GPU, counted from the last as llama.cpp counts them: the output
            is one, so that all are the model's layers plus 1. 0 is all in main memory.
        host_experts: Of the layers on the GPU, how many keep the weights of their experts in
            main memory: the first ones of the model.
        cache_type: Element type of keys and values.

    """

    gpu_layers: int = 0
    host_experts: int = 0
    cache_type: CacheType = "f16"


@dataclass(frozen=True, slots=True)
class Parts:
    """Memory on one device by purpose. The names are those of the API's MemoryEstimate.Part."""

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0
    output: int = 0
    projector: int = 0
    overhead: int = 0
    """Driver context, the process itself, allocator slack, and what the prompt cache may take."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, each.name) for each in fields(self))

    def __add__(self, other: Parts) -> Parts:
        """Part by part."""
        return Parts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a worker will hold.

    Attributes:
        host: Of main memory, once it has answered long prompts.
        gpu: Of the GPU that it is placed on; nothing without one.
        host_peak: The most of main memory at any moment, of the load or while text is scored;
            never below `host`. It is what has to be free for the worker.
        gpu_peak: The same of the GPU.
        method: Where the figures come from.

    """

    host: Parts
    gpu: Parts = Parts()
    host_peak: int = 0
    gpu_peak: int = 0
    method: Method = Method.FORMULA

    def __post_init__(self) -> None:
        # Slots and frozen: the peaks are at least the sums, whoever leaves them out.
        object.__setattr__(self, "host_peak", max(self.host_peak, self.host.total))
        object.__setattr__(self, "gpu_peak", max(self.gpu_peak, self.gpu.total))
