"""``python -m tests.support.glue_compiled``: the small kernels compiled for GPUs that are not here.

A process of its own: Triton may warn, and must not be in its interpreter.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from tests.support import apart

HIDDEN: Final = 2816
_NAMES: Final = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_INTEGERS: Final = {"slots": "*i32", "stored": "*i32", "index": "*i64", "tokens": "*i64"}
_FLOATS: Final = {"router_scale": "*fp32", "weights": "*fp32"}
"""Of these types, whatever the model's own is."""
_NUMBERS: Final = ("canvas", "slot_count", "capacity")
_ROW: Final = {"width": HIDDEN, "block": 4096}
_SLIDING: Final = {"heads": 16, "kv_heads": 8, "width": 256, "group": 8, "block": 128}
_FULL: Final = {"heads": 16, "kv_heads": 2, "width": 512, "group": 2, "block": 256}
KERNELS: Final[dict[str, tuple[str, dict[str, Any], int]]] = {
    "norm": ("norm", _ROW, 8),
    "norm without a weight": ("norm", {**_ROW, "weight": None}, 8),
    "heads of sliding layers": ("queries_keys", _SLIDING, 4),
    "heads of full layers": ("queries_keys", _FULL, 2),
    "after_attention": ("after_attention", _ROW, 8),
    "after_experts": ("after_experts", {**_ROW, "k": 8}, 8),
    "gated": ("gated", {"width": 2112, "block": 1024}, 4),
    "chosen": ("chosen", {"experts": 128, "k": 8, "block": 128, "places": 8}, 1),
    "conditioned": ("conditioned", _ROW, 8),
    "conditioned by nothing": ("conditioned", {**_ROW, "signal": None}, 8),
}
"""By what is compiled: the kernel, what it is compiled for (the real model's shapes), and warps."""


def compile_glue(capability: tuple[int, int], dtype: str) -> dict[str, Any]:
    """Compile all of `KERNELS`.

    Args:
        capability: Compute capability.
        dtype: The model's type, by its name in torch.

    Returns:
        By name of `KERNELS`: «cubin», bytes of machine code; «shared», bytes of shared memory;
        «ptx», the assembly.

    """
    found: dict[str, Any] = apart.compiling(
        "glue_compiled", {"capability": capability, "dtype": dtype}
    )
    return found


def _main() -> None:
    given = json.load(sys.stdin)
    major, minor = given["capability"]
    json.dump(
        {name: _compile(name, 10 * major + minor, given["dtype"]) for name in KERNELS}, sys.stdout
    )


def _compile(name: str, architecture: int, dtype: str) -> dict[str, Any]:
    import triton  # noqa: PLC0415 - may be missing where this module is imported
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415 - as above
    from triton.compiler import ASTSource  # noqa: PLC0415 - as above

    from gemd.worker.diffusion.compute import glue_heads, glue_kernels  # noqa: PLC0415 - as above

    kernel, constants, warps = KERNELS[name]
    module = glue_heads if kernel == "queries_keys" else glue_kernels
    function = getattr(module, kernel)
    names = list(function.arg_names)
    signature = {key: _type(key, constants, dtype) for key in names}
    divisible = [["tt.divisibility", 16]]
    attributes = {
        (place,): divisible
        for place, key in enumerate(names)
        if signature[key].startswith("*") or key.endswith("_stride")
    }
    compiled = triton.compile(
        ASTSource(function, signature, dict(constants), attributes),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": warps},
    )
    return {
        "cubin": len(compiled.asm["cubin"]),
        "shared": compiled.metadata.shared,
        "ptx": compiled.asm["ptx"],
    }


def _type(key: str, constants: dict[str, Any], dtype: str) -> str:
    if key in constants:
        return "constexpr"
    if key == "eps":
        return "fp32"
    if key in _NUMBERS or key.endswith("_stride"):
        return "i32"
    return (_INTEGERS | _FLOATS).get(key, f"*{_NAMES[dtype]}")


if __name__ == "__main__":
    _main()
