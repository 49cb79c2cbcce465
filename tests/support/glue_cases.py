"""What the kernels between a layer's products are checked with: shapes, weights, inputs.

Transformers' modules compute in float32 with weights and inputs that the case's type has: that is
the truth for every type.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

SLOTS, ROOM = 4, 9
"""Of the cache: slots, and tokens before a canvas."""
VOCABULARY: Final = 50


@dataclass(frozen=True)
class Case:
    """Shapes of a model, and how much is computed with it.

    Attributes:
        hidden: Columns.
        rows: Canvases.
        canvas: Tokens of each.
        heads: Of queries.
        kv_heads: Of keys.
        width: Of a head.
        experts: How many.
        k: Of a token.
        full: Whether the layer sees everything, and so has no projection for values.
        dtype: Name of the type that is computed in.

    """

    hidden: int
    rows: int
    canvas: int
    heads: int
    kv_heads: int
    width: int
    experts: int
    k: int
    full: bool = False
    dtype: str = "float32"


_GROUPED = Case(67, 3, 5, 4, 2, 16, 5, 2)
_EIGHT = Case(301, 1, 3, 8, 1, 64, 12, 8, full=True)
CASES: Final = {
    "two queries to a key": _GROUPED,
    "eight queries to a key": _EIGHT,
    "one token": Case(40, 1, 1, 2, 1, 32, 1, 1),
    "heads in groups of two": Case(131, 2, 4, 6, 2, 32, 8, 3, full=True),
    "odd halves of heads": Case(5, 2, 2, 3, 3, 6, 3, 3),
    **{
        f"{name}, {dtype}": replace(case, dtype=dtype)
        for name, case in {"two queries": _GROUPED, "eight queries": _EIGHT}.items()
        for dtype in ("bfloat16", "float16")
    },
}


REAL: Final = {
    "sliding": Case(2816, 2, 256, 16, 8, 256, 128, 8, dtype="bfloat16"),
    "full": Case(2816, 2, 256, 16, 2, 512, 128, 8, full=True, dtype="bfloat16"),
}
"""The real model's, but for the experts' own width; for a GPU."""


class Given:
    """A case's layer, random weights and inputs.

    Args:
        case: Of shapes.
        device: Where all of it is.

    Attributes:
        case: Of shapes.
        device: Where all of it is.
        dtype: That is computed in.
        truth: Transformers' layer in float32, with numbers that the type has.
        layer: The same in the type.
        eps: Of norms.
        config: Of the model.
        theirs: Transformers' module.

    """

    def __init__(self, case: Case, device: str = "cpu") -> None:
        from transformers.models.diffusion_gemma import (  # noqa: PLC0415 - slow
            modeling_diffusion_gemma as theirs,
        )

        self.case = case
        self.device = device
        self.dtype: torch.dtype = getattr(torch, case.dtype)
        self._generator = torch.Generator().manual_seed(case.hidden)
        self.config = _config(case)
        self.eps: float = self.config.rms_norm_eps
        self.theirs: Any = theirs
        self.truth = self.filled(theirs.DiffusionGemmaDecoderTextLayer(self.config, int(case.full)))
        self.layer = copy.deepcopy(self.truth).to(self.dtype)

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return self.case.rows * self.case.canvas

    def filled(self, module: Any) -> Any:
        """With random weights that the case's type has, in float32."""
        with torch.no_grad():
            for tensor in [*module.parameters(), *module.buffers()]:
                noise = self.random(*tensor.shape)
                scale = tensor.dim() < 2
                value = 1 + 0.3 * noise if scale else noise / math.sqrt(tensor.shape[-1])
                tensor.copy_(value.to(self.dtype))
        return module.to(self.device).eval()

    def random(self, *shape: int) -> torch.Tensor:
        """In the case's type."""
        return torch.randn(shape, generator=self._generator).to(self.device, self.dtype)

    def integers(self, most: int, *shape: int) -> torch.Tensor:
        """From 0 on, up to and without `most`."""
        return torch.randint(0, most, shape, generator=self._generator).to(self.device)

    def rotary(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines for each token, as transformers makes them; shape (tokens, width)."""
        made = self.theirs.DiffusionGemmaTextRotaryEmbedding(self.config).to(self.device)
        positions = self.integers(1000, 1, self.tokens)
        cos, sin = made(self.random(1), positions, self.config.layer_types[int(self.case.full)])
        return cos[0], sin[0]

    def slots(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Different ones for each row, in no order, and what stands in each."""
        slots = torch.randperm(SLOTS, generator=self._generator)[: self.case.rows]
        return slots.int().to(self.device), self.integers(ROOM + 1, self.case.rows).int()

    def cache(self) -> torch.Tensor:
        """Full of numbers."""
        case = self.case
        return self.random(2, SLOTS, case.kv_heads, ROOM + case.canvas, case.width)


def _config(case: Case) -> Any:
    from transformers import DiffusionGemmaTextConfig  # noqa: PLC0415 - slow

    config = DiffusionGemmaTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=case.hidden,
        intermediate_size=case.hidden + 6,
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        num_attention_heads=case.heads,
        num_key_value_heads=case.kv_heads,
        num_global_key_value_heads=case.kv_heads,
        head_dim=case.width,
        global_head_dim=case.width,
        num_experts=case.experts,
        top_k_experts=case.k,
        moe_intermediate_size=24,
        sliding_window=64,
    )
    config._attn_implementation = "sdpa"
    config._experts_implementation = "eager"
    return config
