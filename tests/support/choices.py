"""Questions for the choice of weights: models of a few numbers, and machines to put them on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gemd.catalog import HubSource, Profile, RepositorySource, Variant
from gemd.catalog.choice import Candidate, Engines, Limits, Question, Reads, Wishes, memory_of
from gemd.footprint.memory import Parts, Placement, Prediction
from gemd.hardware import DeviceKind, Gpu, Inventory, Processor

if TYPE_CHECKING:
    from collections.abc import Sequence

GIB = 2**30
ENGINES = Engines(frozenset({"llama", "diffusion"}), frozenset({"llama", "diffusion"}))


@dataclass(frozen=True)
class Simple:
    """A model of equal layers: every byte of it is known without a formula.

    Attributes:
        layer: Bytes of one layer's dense weights.
        expert: Bytes of one layer's experts.
        layers: How many.
        cell: KV bytes of one layer for one token of one sequence, at 16 bits.
        canvas: Tokens of a canvas; 0 for an autoregressive model.

    """

    layer: int
    expert: int = 0
    layers: int = 10
    cell: int = 64
    canvas: int = 0

    @property
    def experts(self) -> bool:
        """Whether there are any."""
        return bool(self.expert)

    @property
    def weights_bytes(self) -> int:
        """All of them."""
        return self.layers * (self.layer + self.expert)

    def predict(
        self,
        placement: Placement,
        *,
        context_tokens: int,
        sequences: int,
        backend: str,
    ) -> Prediction:
        """Weights and cache where the placement says; nothing else."""
        on_gpu = min(placement.gpu_layers, self.layers)
        away = placement.host_experts if on_gpu else self.layers
        bits = {"f16": 16, "q8_0": 8, "q4_0": 4}[placement.cache_type]
        cache = self.cell * context_tokens * sequences * bits // 16
        stays = max(0, away - (self.layers - on_gpu))
        gpu_weights = on_gpu * (self.layer + self.expert) - stays * self.expert
        return Prediction(
            host=Parts(
                weights=self.weights_bytes - gpu_weights, kv_cache=(self.layers - on_gpu) * cache
            ),
            gpu=Parts(weights=gpu_weights, kv_cache=on_gpu * cache),
        )

    def reads(self, placement: Placement) -> Reads:
        """All weights, experts too."""
        predicted = self.predict(placement, context_tokens=1, sequences=1, backend="cuda")
        return Reads(predicted.gpu.weights, predicted.host.weights)


def candidate(
    model: str,
    sized: Simple,
    *,
    quality: int = 1,
    roles: tuple[str, ...] = ("strong",),
    variant: str = "q4_0",
    engine: str = "llama",
    **fields: Any,
) -> Candidate:
    """A variant of that size."""
    several = engine == "diffusion"
    form = Variant.model_validate(
        {
            "id": variant,
            "quantization": variant.upper(),
            "engine": engine,
            "file_name": "" if several else f"{model}-{variant}.gguf",
            "size_bytes": sized.weights_bytes,
            "sources": [
                RepositorySource(repository="a/b", files=("*",))
                if several
                else HubSource(repository="a/b", file="c.gguf")
            ],
            **fields,
        }
    )
    profile = Profile.model_validate(
        {
            "id": model,
            "display_name": model,
            "family": "test",
            "quality": quality,
            "roles": roles,
            "context_tokens": 131_072,
            "variants": [form],
        }
    )
    return Candidate(profile, form, sized)


def gpu(size_gib: float, **fields: Any) -> Gpu:
    """An NVIDIA GPU of that size without a display, 1 TB/s."""
    usual: dict[str, Any] = {
        "device": "gpu0",
        "name": "Test GPU",
        "vendor": "nvidia",
        "kind": DeviceKind.DISCRETE_GPU,
        "capacity_bytes": int(size_gib * GIB),
        "architecture": "8.9",
        "bandwidth_bytes_per_s": 10**12,
        "features": frozenset({"bf16", "fp8"}),
        "backends": ("cuda", "vulkan"),
        "drives_display": False,
    }
    return Gpu(**(usual | fields))


def machine(*gpus: Gpu, ram_gib: float = 64, **fields: Any) -> Inventory:
    """A machine with these GPUs, 50 GB/s of main memory."""
    usual: dict[str, Any] = {
        "name": "Test CPU",
        "architecture": "x86_64",
        "cores": 8,
        "ram_bytes": int(ram_gib * GIB),
        "bandwidth_bytes_per_s": 50 * 10**9,
    }
    return Inventory(Processor(**(usual | fields)), gpus)


@dataclass(frozen=True)
class Asked:
    """A question in the making."""

    on: Inventory
    limits: Limits = field(default_factory=Limits)
    engines: Engines = ENGINES
    wishes: Wishes = field(default_factory=Wishes)

    def question(self, candidates: Sequence[Candidate]) -> Question:
        """The question about these candidates."""
        return Question(
            self.on, memory_of(self.on, self.limits), candidates, self.wishes, self.engines
        )
