"""How much memory a model will take, read from the header of its file."""

from __future__ import annotations

from gemd.footprint.checkpoint import (
    SafetensorsIndex,
    checkpoint_headers,
    read_checkpoint,
    safetensors_index,
)
from gemd.footprint.diffusion import (
    DiffusionShape,
    diffusion_shape,
    predict_diffusion,
    weights_by_headers,
)
from gemd.footprint.diffusion_files import read_diffusion
from gemd.footprint.gguf import (
    GgufHeader,
    OmittedArray,
    Tensor,
    gguf_header,
    read_gguf_header,
)
from gemd.footprint.memory import CacheType, Method, Parts, Placement, Prediction
from gemd.footprint.predict import predict_gguf
from gemd.footprint.safetensors import (
    SafetensorsHeader,
    read_safetensors_header,
    safetensors_header,
)
from gemd.footprint.shape import GgufShape, gguf_shape, profile_shape
from gemd.footprint.source import LocalSource, RemoteSource, Source, open_local
from gemd.footprint.split import part_paths, read_gguf_model
from gemd.footprint.twin import sparse_twin
from gemd.footprint.weights import LayerWeights, Weights, weights_of

__all__ = [
    "CacheType",
    "DiffusionShape",
    "GgufHeader",
    "GgufShape",
    "LayerWeights",
    "LocalSource",
    "Method",
    "OmittedArray",
    "Parts",
    "Placement",
    "Prediction",
    "RemoteSource",
    "SafetensorsHeader",
    "SafetensorsIndex",
    "Source",
    "Tensor",
    "Weights",
    "checkpoint_headers",
    "diffusion_shape",
    "gguf_header",
    "gguf_shape",
    "open_local",
    "part_paths",
    "predict_diffusion",
    "predict_gguf",
    "profile_shape",
    "read_checkpoint",
    "read_diffusion",
    "read_gguf_header",
    "read_gguf_model",
    "read_safetensors_header",
    "safetensors_header",
    "safetensors_index",
    "sparse_twin",
    "weights_by_headers",
    "weights_of",
]
