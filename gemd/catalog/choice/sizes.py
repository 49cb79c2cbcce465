"""The memory and the reads of a variant, from its header or from its profile. Pure; bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from gemd.catalog.choice.values import Reads
from gemd.footprint.diffusion import (
    DiffusionShape,
    diffusion_shape,
    predict_diffusion,
)
from gemd.footprint.predict import predict_gguf
from gemd.footprint.shape import profile_shape

if TYPE_CHECKING:
    from gemd.catalog.choice.values import Sized
    from gemd.catalog.profile import Profile
    from gemd.catalog.variant import Formats, Variant
    from gemd.footprint.memory import Placement, Prediction
    from gemd.footprint.predict import Backend
    from gemd.footprint.shape import GgufShape


@dataclass(frozen=True, slots=True)
class GgufSized:
    """A GGUF model in a llama.cpp worker.

    Attributes:
        shape: Of the file, or of the profile while nobody has the file.
        expert_share: Of a mixture's experts, the part that one token uses.
        prompt_cache_bytes: What the worker may keep of prompts outside its cache.

    """

    shape: GgufShape
    expert_share: float = 1.0
    prompt_cache_bytes: int = 0

    canvas = 0

    @property
    def layers(self) -> int:
        """Of the model, without the output."""
        return len(self.shape.weights.layers)

    @property
    def experts(self) -> bool:
        """Whether layers have experts that can stay in main memory."""
        return any(layer.experts for layer in self.shape.weights.layers)

    @property
    def weights_bytes(self) -> int:
        """All tensors."""
        return self.shape.weights.total

    def predict(
        self, placement: Placement, *, context_tokens: int, sequences: int, backend: str
    ) -> Prediction:
        """The memory it takes."""
        known: Backend = "cuda" if backend == "cpu" else cast("Backend", backend)
        return predict_gguf(
            self.shape,
            context_tokens=context_tokens,
            max_sequences=sequences,
            placement=placement,
            prompt_cache_bytes=self.prompt_cache_bytes,
            backend=known,
        )

    def reads(self, placement: Placement) -> Reads:
        """What one token reads: every dense weight, the experts it is routed to, the output.

        Rows of the input's embedding are a few kilobytes and count as nothing.
        """
        weights = self.shape.weights
        gpu = host = 0
        # The output is the first to go to a GPU; as `predict_gguf` has it.
        first = max(0, self.layers + 1 - placement.gpu_layers)
        for index, layer in enumerate(weights.layers):
            experts = int(layer.experts * self.expert_share)
            if index < first:
                host += layer.dense + experts
            elif index < placement.host_experts:
                host += experts
                gpu += layer.dense
            else:
                gpu += layer.dense + experts
        output = weights.output + (weights.embedding if weights.tied else 0)
        if placement.gpu_layers > 0:
            return Reads(gpu + output, host)
        return Reads(gpu, host + output)


@dataclass(frozen=True, slots=True)
class DiffusionSized:
    """A block-diffusion model in a worker.

    Attributes:
        shape: Of the model.

    """

    shape: DiffusionShape

    experts = False
    """Its experts are all read in every step: none of them can stay in main memory."""

    @property
    def layers(self) -> int:
        """Of the model."""
        return self.shape.layers

    @property
    def canvas(self) -> int:
        """Tokens of a canvas."""
        return self.shape.canvas

    @property
    def weights_bytes(self) -> int:
        """All that is loaded."""
        return self.shape.weights

    def predict(
        self,
        placement: Placement,
        *,
        context_tokens: int,
        sequences: int,
        backend: str,  # noqa: ARG002 -- that is NVIDIA's, or the processor's
    ) -> Prediction:
        """The memory it takes."""
        return predict_diffusion(
            self.shape,
            context_tokens=context_tokens,
            sequences=sequences,
            gpu=placement.gpu_layers > 0,
        )

    def reads(self, placement: Placement) -> Reads:
        """What one pass over the canvas reads: all weights, and the embedding once more.

        A canvas of 256 tokens that are each routed to 8 of 128 experts uses nearly all of them.
        The head and the soft embeddings are two readings of one table.
        """
        every = self.shape.weights + self._embedding_bytes
        return Reads(every, 0) if placement.gpu_layers > 0 else Reads(0, every)

    @property
    def _embedding_bytes(self) -> int:
        return self.shape.vocabulary * self.shape.hidden * self.shape.element_bytes


def profile_sized(profile: Profile, variant: Variant, *, prompt_cache_bytes: int) -> Sized | None:
    """The memory of a variant as its profile describes it; None if it does not.

    Args:
        profile: The model.
        variant: Of it.
        prompt_cache_bytes: What a worker may keep of prompts outside its cache.

    """
    if variant.formats is not None:
        return _diffusion(profile, variant.formats)
    if variant.weights is None or not profile.architecture:
        return None
    shape = profile_shape(profile.architecture, variant.weights.model_dump())
    return GgufSized(shape, expert_share(profile), prompt_cache_bytes)


def expert_share(profile: Profile) -> float:
    """Of a mixture's experts, the part that one token uses; 1 for a dense model."""
    used = profile.architecture.get("expert_used_count")
    count = profile.architecture.get("expert_count")
    if isinstance(used, int) and isinstance(count, int) and 0 < used <= count:
        return used / count
    return 1.0


def _diffusion(profile: Profile, formats: Formats) -> DiffusionSized:
    return DiffusionSized(diffusion_shape(profile.architecture, formats.model_dump()))
