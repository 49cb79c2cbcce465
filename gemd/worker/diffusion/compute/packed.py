"""Layers whose weights stay in NVFP4: a linear layer, and the experts of a layer.

They hold memory and say which arithmetic they go through; `gemd.worker.diffusion.compute.paths`
has the arithmetics. Both start with memory that is not written yet, which the loader fills in
place, and take the place of transformers' own modules in the decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch import nn

from gemd.worker.diffusion.compute.nvfp4 import BLOCK, PER_BYTE
from gemd.worker.diffusion.compute.reference import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GATE_AND_UP: Final = 2


class Arithmetic(Protocol):
    """One way to compute with packed weights."""

    name: str

    def experts(
        self,
        module: PackedExperts,
        hidden: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        """See `PackedExperts.forward`."""
        ...

    def linear(self, module: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        """Rows times the matrix; shape (rows, columns) to (rows, out)."""
        ...


class _Packed(nn.Module):
    """Buffers that keep their types whatever the module is converted to.

    ``module.to(torch.bfloat16)`` would otherwise turn scales into bfloat16, and packed weights
    into something that no code here reads. It changes what is computed in, and nothing else.

    Attributes:
        dtype: What is computed in.
        arithmetic: How. `use_path` sets it.

    """

    def __init__(self, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.arithmetic: Arithmetic = REFERENCE

    def _weights(
        self,
        names: tuple[str, str, str],
        shape: Sequence[int],
        groups: int,
        device: torch.device | None,
    ) -> None:
        *outer, rows, columns = shape
        assert columns % BLOCK == 0, "a row is made of whole blocks"
        assert rows % groups == 0, "groups of rows are equally large"
        kinds: tuple[tuple[tuple[int, ...], torch.dtype], ...] = (
            ((*outer, rows, columns // PER_BYTE), torch.uint8),
            ((*outer, rows, columns // BLOCK), torch.float8_e4m3fn),
            ((*outer, groups), torch.float32),
        )
        for name, (size, dtype) in zip(names, kinds, strict=True):
            self.register_buffer(name, torch.empty(size, dtype=dtype, device=device))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:  # noqa: ARG002, FBT001, FBT002 - torch's signature; nothing is below
        # A conversion leaves integers alone, so buffers pass through it as integers.
        plain = {
            torch.uint8: torch.uint8,
            torch.float8_e4m3fn: torch.uint8,
            torch.float32: torch.int32,
        }
        for name, buffer in self._buffers.items():
            assert buffer is not None
            self._buffers[name] = fn(buffer.view(plain[buffer.dtype])).view(buffer.dtype)
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self


class PackedLinear(_Packed):
    """A linear layer without bias.

    Args:
        in_features: Columns; whole blocks of 16.
        out_features: Rows.
        groups: Of rows, each with a global scale of its own.
        dtype: What is computed in.
        device: Where; None for torch's default.

    Attributes:
        weight_packed: uint8, shape (out, in / 2).
        weight_scale: float8_e4m3fn, shape (out, in / 16).
        global_scale: Of each group of rows, a factor; float32, shape (groups,).

    """

    weight_packed: torch.Tensor
    weight_scale: torch.Tensor
    global_scale: torch.Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        groups: int = 1,
        dtype: torch.dtype,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(dtype=dtype)
        self.in_features, self.out_features = in_features, out_features
        names = ("weight_packed", "weight_scale", "global_scale")
        self._weights(names, (out_features, in_features), groups, device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (..., in) to (..., out), in the type of what comes in."""
        rows = x.reshape(-1, self.in_features).to(self.dtype)
        out = self.arithmetic.linear(self, rows)
        return out.view(*x.shape[:-1], self.out_features).to(x.dtype)


class PackedExperts(_Packed):
    """The experts of one layer, each a gated MLP: down(gelu(gate(x)) * up(x)).

    Args:
        experts: How many.
        hidden: Of the residual stream; whole blocks of 16.
        intermediate: Of an expert; whole blocks of 16.
        dtype: What is computed in.
        device: Where; None for torch's default.

    Attributes:
        gate_up_packed: uint8, shape (experts, 2 x intermediate, hidden / 2); gate's rows first.
        gate_up_scale: float8_e4m3fn, shape (experts, 2 x intermediate, hidden / 16).
        gate_up_global: float32, shape (experts, 2): of gate's rows, of up's.
        down_packed: uint8, shape (experts, hidden, intermediate / 2).
        down_scale: float8_e4m3fn, shape (experts, hidden, intermediate / 16).
        down_global: float32, shape (experts, 1).

    """

    gate_up_packed: torch.Tensor
    gate_up_scale: torch.Tensor
    gate_up_global: torch.Tensor
    down_packed: torch.Tensor
    down_scale: torch.Tensor
    down_global: torch.Tensor

    def __init__(
        self,
        experts: int,
        hidden: int,
        intermediate: int,
        *,
        dtype: torch.dtype,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(dtype=dtype)
        self.num_experts, self.hidden_dim, self.intermediate_dim = experts, hidden, intermediate
        gate_up = (experts, GATE_AND_UP * intermediate, hidden)
        names = ("gate_up_packed", "gate_up_scale", "gate_up_global")
        self._weights(names, gate_up, GATE_AND_UP, device)
        names = ("down_packed", "down_scale", "down_global")
        self._weights(names, (experts, hidden, intermediate), 1, device)

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """What the chosen experts make of each token, weighted and added up.

        Args:
            hidden_states: Shape (tokens, hidden).
            top_k_index: Experts of each token, int64; shape (tokens, k).
            top_k_weights: Of each of them; shape (tokens, k).

        Returns:
            Shape (tokens, hidden), in the type of what comes in.

        """
        rows = hidden_states.to(self.dtype)
        out = self.arithmetic.experts(self, rows, top_k_index, top_k_weights)
        return out.to(hidden_states.dtype)
