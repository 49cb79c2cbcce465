"""Layers with NVFP4 weights for tests: filled at random, with every kind of code and scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear

if TYPE_CHECKING:
    from torch import nn

Scales = Literal["usual", "extreme"]
Routing = Literal["random", "one expert", "one row each"]

EXTREME = (0x00, 0x01, 0x07, 0x08, 0x38, 0x7E, 0x81, 0xFE)
"""Scales by their bits: 0, the smallest subnormal and the largest, the smallest normal number, 1,
448, and the negatives of the smallest and the largest number."""


def fill(module: nn.Module, generator: torch.Generator, scales: Scales = "usual") -> None:
    """Write random codes, scales and global scales, different ones for each group of rows.

    Args:
        module: Has packed weights.
        generator: Of everything.
        scales: «usual» are up to 2; «extreme» ones are drawn from `EXTREME`, and the global scales
            are powers of two, small enough for float16.

    """
    for buffer in module.buffers():
        if buffer.dtype == torch.uint8:
            buffer.copy_(torch.randint(0, 256, buffer.shape, generator=generator))
        elif buffer.dtype == torch.float32:
            powers = torch.randint(-14, -10, buffer.shape, generator=generator)
            usual = torch.rand(buffer.shape, generator=generator) * 0.05 + 0.01
            buffer.copy_(usual if scales == "usual" else 2.0**powers)
        elif scales == "usual":
            buffer.copy_(torch.rand(buffer.shape, generator=generator) * 2)
        else:
            bits = torch.tensor(EXTREME, dtype=torch.uint8)
            drawn = torch.randint(0, len(EXTREME), buffer.shape, generator=generator)
            buffer.copy_(bits[drawn].view(torch.float8_e4m3fn))


def experts_of(
    generator: torch.Generator,
    *,
    experts: int = 4,
    hidden: int = 48,
    inner: int = 32,
    dtype: torch.dtype = torch.float32,
    scales: Scales = "usual",
) -> PackedExperts:
    """Experts at random."""
    module = PackedExperts(experts, hidden, inner, dtype=dtype)
    fill(module, generator, scales)
    return module


def linear_of(
    generator: torch.Generator,
    *,
    columns: int = 48,
    rows: int = 32,
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
    scales: Scales = "usual",
) -> PackedLinear:
    """A linear layer at random."""
    module = PackedLinear(columns, rows, groups=groups, dtype=dtype)
    fill(module, generator, scales)
    return module


def routed(
    generator: torch.Generator, *, tokens: int, experts: int, k: int, routing: Routing = "random"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which experts each token goes to, and with which weights; both of shape (tokens, k).

    «one expert» sends every token to the last one first, so that many have no rows; «one row each»
    gives as many experts as there are pairs a single row.
    """
    chosen = torch.rand(tokens, experts, generator=generator).topk(k).indices
    if routing == "one expert":
        chosen = torch.arange(experts - 1, experts - 1 - k, -1).expand(tokens, k).contiguous()
    elif routing == "one row each":
        chosen = (torch.arange(tokens * k) % experts).view(tokens, k)
    return chosen, torch.rand(tokens, k, generator=generator) + 0.1


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of norms."""
    difference = (ours.double() - theirs.double()).norm()
    return float(difference / theirs.double().norm())
