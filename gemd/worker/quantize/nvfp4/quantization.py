"""What config.json of an NVFP4 checkpoint says about its weights. Pure.

The table is compressed-tensors' ``QuantizationConfig``. Whoever reads it takes every linear layer
for packed that no pattern of ``ignore`` matches, so that list has to cover what was left out,
whatever else the checkpoint holds, and must not match anything that was packed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from gemd.worker.quantize.nvfp4.layout import BLOCK, Pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gemd.worker.quantize.nvfp4.layout import Job

FORMAT: Final = "nvfp4-pack-quantized"

_PATTERNS: Final = (
    r"re:.*\.self_attn\..*",
    r"re:.*\.router\..*",
    r"re:.*\.mlp\..*",
    r"re:.*self_conditioning.*",
    r"re:.*vision_tower.*",
    r"re:.*embed_vision.*",
)
_HEAD: Final = "lm_head"
"""A linear layer that has no tensor of its own."""
_TABLE: Final = "embed_tokens"
_MATRIX: Final = 2


def described(config: Mapping[str, Any], jobs: Sequence[Job]) -> dict[str, Any]:
    """The config.json of the result.

    Args:
        config: That of the source.
        jobs: All that were done.

    """
    parts = {
        key: _in_bf16(value) if isinstance(value, dict) else value for key, value in config.items()
    }
    return {**_in_bf16(parts), "dtype": "bfloat16", "quantization_config": _quantization(jobs)}


def _in_bf16(table: Mapping[str, Any]) -> dict[str, Any]:
    """With every type that it names replaced; the second key is that of transformers before 5."""
    types = {key: "bfloat16" for key in ("dtype", "torch_dtype") if key in table}
    return {**table, **types}


def _quantization(jobs: Sequence[Job]) -> dict[str, Any]:
    return {
        "config_groups": {
            "group_0": {
                "format": FORMAT,
                "input_activations": None,
                "output_activations": None,
                "targets": ["Linear"],
                "weights": {
                    "dynamic": False,
                    "group_size": BLOCK,
                    "num_bits": 4,
                    "scale_dtype": "torch.float8_e4m3fn",
                    "strategy": "tensor_group",
                    "symmetric": True,
                    "type": "float",
                },
            }
        },
        "format": FORMAT,
        "ignore": list(ignored(jobs)),
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }


def ignored(jobs: Sequence[Job]) -> tuple[str, ...]:
    """Names and patterns of linear layers that are in bf16: each matches one, and none that is not.

    Patterns, and not names alone, where they are true: readers call modules by other names than
    the checkpoint does, and a pattern holds for those too.
    """
    packed = {path for job in jobs if isinstance(job, Pack) for path in job.paths}
    left = list(_left(jobs))
    found = [_HEAD]
    for pattern in _PATTERNS:
        expression = re.compile(pattern.removeprefix("re:"))
        hits = [path for path in left if expression.match(path)]
        if hits and not any(expression.match(path) for path in packed):
            found.append(pattern)
            left = [path for path in left if path not in hits]
    return (*found, *left)


def _left(jobs: Sequence[Job]) -> Iterator[str]:
    """Paths of linear layers that stay as they are."""
    for job in jobs:
        if isinstance(job, Pack):
            continue
        path, _, field = job.part.tensor.rpartition(".")
        linear = field == "weight" and len(job.part.shape) == _MATRIX
        if linear and not path.endswith(_TABLE) and path != _HEAD:
            yield path
