"""``python -m tests.support.compiled_attention``: attention compiled for GPUs that are not here.

A process of its own, as in `compiled`.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import torch

from tests.support import apart

TYPES: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
SHAPES: Final = {
    "sliding": {"heads": 16, "kv_heads": 8, "width": 256, "capacity": 1023 + 256 + 256},
    "full": {"heads": 16, "kv_heads": 2, "width": 512, "capacity": 32_768 + 256},
}
"""Of the real model's layers."""
CANVAS: Final = 256
_POINTERS: Final = {
    "slots": "*i32",
    "first": "*i32",
    "stored": "*i32",
    "most": "*fp32",
    "total": "*fp32",
    "sums": "*fp32",
}


def compile_attention(capability: tuple[int, int], dtypes: list[str]) -> dict[str, Any]:
    """Compile what the layers of the real model need.

    Args:
        capability: Compute capability.
        dtypes: Names of torch's types.

    Returns:
        By kind of layer and type, as «full bfloat16», and «combine» before it for the kernel that
        adds up: «cubin», bytes of machine code; «shared», bytes of shared memory; «ptx», the
        assembly.

    """
    given = {"capability": capability, "dtypes": dtypes}
    found: dict[str, Any] = apart.compiling("compiled_attention", given)
    return found


def _main() -> None:
    from gemd.worker.diffusion.compute import attention  # noqa: PLC0415 - needs Triton

    given = json.load(sys.stdin)
    capability = tuple(given["capability"])
    found = {}
    for dtype in given["dtypes"]:
        for name, shape in SHAPES.items():
            blocks = attention.blocks_for(capability, shape["width"], getattr(torch, dtype))
            splits = attention.splits_for(blocks, canvas=CANVAS, **_without(shape, "kv_heads"))
            constants = {
                **_without(shape, "capacity"),
                "part": blocks.part,
                "queries": blocks.queries,
                "keys": blocks.keys,
                "splits": splits,
                # Launches make a constant of a number that is 1.
                **({"slot_count": 1} if name == "sliding" else {}),
            }
            found[f"{name} {dtype}"] = _compile(
                attention.attention, capability, dtype, constants, blocks.warps, blocks.stages
            )
            if splits > 1:
                constants = {"width": shape["width"], "splits": splits, "block": attention.LINES}
                found[f"combine {name} {dtype}"] = _compile(
                    attention.combine, capability, dtype, constants, attention.COMBINING_WARPS, 2
                )
    json.dump(found, sys.stdout)


def _without(shape: dict[str, int], key: str) -> dict[str, int]:
    return {name: value for name, value in shape.items() if name != key}


def _compile(
    function: Any,
    capability: tuple[int, int],
    dtype: str,
    constants: dict[str, int],
    warps: int,
    stages: int,
) -> dict[str, Any]:
    import triton  # noqa: PLC0415 - may be missing where this module is imported
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415 - as above
    from triton.compiler import ASTSource  # noqa: PLC0415 - as above

    names = list(function.arg_names)
    pointers = _POINTERS | dict.fromkeys(("query", "cache", "out"), f"*{TYPES[dtype]}")
    if "query" in names and constants["splits"] > 1:
        pointers["out"] = "*fp32"
    signature = {
        key: "constexpr" if key in constants else pointers.get(key, "i32") for key in names
    }
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, key in enumerate(names)
        if signature[key].startswith("*") or key in {"canvas", "capacity", "lines"}
    }
    major, minor = capability
    compiled = triton.compile(
        ASTSource(function, signature, constants, attributes),
        target=GPUTarget("cuda", 10 * major + minor, 32),
        options={"num_warps": warps, "num_stages": stages},
    )
    return {
        "cubin": len(compiled.asm["cubin"]),
        "shared": compiled.metadata.shared,
        "ptx": compiled.asm["ptx"],
    }


if __name__ == "__main__":
    _main()
