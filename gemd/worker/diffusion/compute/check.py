"""Whether a path computes what the reference does, on the weights at hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear
from gemd.worker.diffusion.compute.paths import packed_modules
from gemd.worker.diffusion.compute.reference import REFERENCE

if TYPE_CHECKING:
    from torch import nn

BOUNDS: Final = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Largest error of a layer relative to the reference, as norms. Both round at different places:
the reference rounds each weight and what lies between the two halves of an expert, a fused path
only what lies between. In float32, sums may be made in any order, and that is all."""

TOKENS: Final = 40
"""No multiple of any tile."""
_EXPERTS_OF_A_TOKEN: Final = 4


def error_of(decoder: nn.Module) -> tuple[float, float]:
    """How far the path in use is from the reference.

    By layer, not by what the model says in the end: there, another rounding lets routers choose
    other experts, and correct paths differ as much as wrong ones.

    Returns:
        The largest relative error among one module of each shape, and the bound it has to keep.

    """
    worst, bound = 0.0, BOUNDS[torch.bfloat16]
    seen = set()
    for module in packed_modules(decoder):
        shapes = tuple(tuple(buffer.shape) for buffer in module.buffers())
        if shapes in seen:
            continue
        seen.add(shapes)
        bound = BOUNDS[module.dtype]
        error = _error(module)
        worst = error if math.isnan(error) else max(worst, error)
        if not worst <= bound:
            break
    return worst, bound


@torch.inference_mode()
def _error(module: PackedExperts | PackedLinear) -> float:
    arguments = _input(module)
    arithmetic = module.arithmetic
    try:
        ours = module(*arguments).float()
        module.arithmetic = REFERENCE
        theirs = module(*arguments).float()
    finally:
        module.arithmetic = arithmetic
    return float((ours - theirs).norm() / theirs.norm().clamp(min=torch.finfo(torch.float32).tiny))


def _input(module: PackedExperts | PackedLinear) -> tuple[torch.Tensor, ...]:
    """The same numbers each time, whatever the device, and nobody else's random state."""
    generator = torch.Generator().manual_seed(0)
    device = next(module.buffers()).device
    if isinstance(module, PackedLinear):
        x = torch.randn(TOKENS, module.in_features, generator=generator)
        return (x.to(device, module.dtype),)
    x = torch.randn(TOKENS, module.hidden_dim, generator=generator)
    k = min(_EXPERTS_OF_A_TOKEN, module.num_experts)
    scores = torch.rand(TOKENS, module.num_experts, generator=generator)
    weights, chosen = scores.topk(k)
    return x.to(device, module.dtype), chosen.to(device), weights.to(device, module.dtype)
