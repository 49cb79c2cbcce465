"""Layers with NVFP4 weights, and the ways to multiply with them.

============ =====================================================================
nvfp4         the format, and weights as numbers
packed        the layers that take the place of transformers' own
reference     weights unpacked for as long as they are multiplied with, any device
unpacked      a layer unpacked as a whole, then torch's grouped product
decode        how kernels decode weights in registers (Triton)
kernels       routing, the experts' two halves, layers without experts (Triton)
fused         how these kernels are launched
glue          what lies between the products of a layer, a launch each (Triton)
glue_kernels  its kernels for whole rows
glue_heads    its kernel for queries and keys
attention     of canvases over the cache, lengths on the device (Triton)
head_kernels  what the head does beside its two products (Triton)
tiles         sizes of their tiles by architecture (pure)
tuning        better ones, by measurement
paths         which of the ways a device can go, and switching between them
check         whether a way computes what the reference does
choice        the fastest way, by measurement
============ =====================================================================
"""

from __future__ import annotations

from gemd.worker.diffusion.compute.choice import Choice, choose_path
from gemd.worker.diffusion.compute.nvfp4 import dequantize
from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear
from gemd.worker.diffusion.compute.paths import available_paths, use_path
from gemd.worker.diffusion.compute.tuning import tune

__all__ = [
    "Choice",
    "PackedExperts",
    "PackedLinear",
    "available_paths",
    "choose_path",
    "dequantize",
    "tune",
    "use_path",
]
