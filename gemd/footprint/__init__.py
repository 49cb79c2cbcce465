"""How much memory a model will take, read from the header of its file."""

from __future__ import annotations

from gemd.footprint.estimate import Footprint, estimate_gguf
from gemd.footprint.gguf import GgufHeader, OmittedArray, Tensor, read_gguf_header
from gemd.footprint.split import part_paths, read_gguf_model

__all__ = [
    "Footprint",
    "GgufHeader",
    "OmittedArray",
    "Tensor",
    "estimate_gguf",
    "part_paths",
    "read_gguf_header",
    "read_gguf_model",
]
