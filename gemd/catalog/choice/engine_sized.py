"""A variant whose memory the engine's own planner has told, for the placement that was asked about.

Pure; the planner's answer is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gemd.footprint.memory import Method

if TYPE_CHECKING:
    from gemd.catalog.choice.values import Reads, Sized
    from gemd.footprint.memory import Parts, Placement, Prediction


@dataclass(frozen=True, slots=True)
class Told:
    """What the engine's planner said of one context; bytes.

    Attributes:
        placement: Of the model.
        context_tokens: Of the context.
        sequences: Requests that it decodes together.
        kv_cache: Of all layers, wherever they are.
        host_compute: Scratch in main memory.
        gpu_compute: Scratch on the GPU.
        output: Logits and the like, in main memory.
        whole: Whether the planner is of the backend that the model is placed on. If not, only the
            cache is the same there.

    """

    placement: Placement
    context_tokens: int
    sequences: int
    kv_cache: int
    host_compute: int
    gpu_compute: int
    output: int
    whole: bool


@dataclass(frozen=True, slots=True)
class EngineSized:
    """The engine's figures where it was asked, the formula's elsewhere.

    Attributes:
        formula: The same variant by formula.
        told: What the engine's planner said.

    """

    formula: Sized
    told: Told

    @property
    def layers(self) -> int:
        """See `Sized`."""
        return self.formula.layers

    @property
    def experts(self) -> bool:
        """See `Sized`."""
        return self.formula.experts

    @property
    def canvas(self) -> int:
        """See `Sized`."""
        return self.formula.canvas

    @property
    def weights_bytes(self) -> int:
        """See `Sized`."""
        return self.formula.weights_bytes

    def reads(self, placement: Placement) -> Reads:
        """See `Sized`."""
        return self.formula.reads(placement)

    def predict(
        self, placement: Placement, *, context_tokens: int, sequences: int, backend: str
    ) -> Prediction:
        """See `Sized`."""
        by_formula = self.formula.predict(
            placement, context_tokens=context_tokens, sequences=sequences, backend=backend
        )
        told = self.told
        asked = (told.placement, told.context_tokens, told.sequences)
        if not told.whole or (placement, context_tokens, sequences) != asked:
            return by_formula
        host = replace(by_formula.host, compute=told.host_compute, output=told.output)
        gpu = replace(by_formula.gpu, compute=told.gpu_compute)
        host, gpu = _with_cache(host, gpu, told.kv_cache)
        # The engine tells what it allocates, rows for scoring included; the formula has those in
        # its peak alone.
        beside = replace(host, compute=by_formula.host.compute)
        peak = by_formula.host_peak - by_formula.host.total + beside.total
        return replace(
            by_formula,
            host=host,
            gpu=gpu,
            host_peak=max(peak, host.total),
            gpu_peak=by_formula.gpu_peak - by_formula.gpu.total + gpu.total,
            method=Method.ENGINE,
        )


def _with_cache(host: Parts, gpu: Parts, total: int) -> tuple[Parts, Parts]:
    """The cache as told, divided as the formula divides it: by the layers on each side."""
    both = host.kv_cache + gpu.kv_cache
    on_gpu = total * gpu.kv_cache // both if both else 0
    return replace(host, kv_cache=total - on_gpu), replace(gpu, kv_cache=on_gpu)
