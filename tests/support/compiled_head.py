"""``python -m tests.support.compiled_head``: the head's kernels compiled for GPUs not here.

A process of its own, as in `compiled`. With the real model's sizes, for which Triton's arguments
are multiples of 16, and with a vocabulary that is none.
"""

from __future__ import annotations

import json
import sys
from typing import Final

from tests.support import apart

TYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""Triton's names, and torch's."""
_POINTERS: Final = {
    "temperatures": "*fp32",
    "uniforms": "*fp32",
    "partial": "*fp32",
    "likeliest": "*i32",
    "summary": "*fp32",
    "columns": "*fp32",
    "mixture": "*fp32",
    "fixed": "*u8",
    "tokens": "*i64",
}
_OF_THE_MODEL: Final = {"logits", "chances", "embedding", "scale", "soft"}
_DIVISIBLE: Final = {"vocabulary", "slices", "hidden"}


def compile_head(
    capability: tuple[int, int], types: list[str], *, whole: bool = True
) -> dict[str, dict[str, int]]:
    """Compile the kernels of the head.

    Args:
        capability: Compute capability.
        types: Of the model; see `TYPES`.
        whole: Whether the sizes are multiples of 16.

    Returns:
        By kernel and type: «cubin», bytes of machine code; «shared», bytes of shared memory.

    """
    given = {"capability": capability, "types": types, "whole": whole}
    found: dict[str, dict[str, int]] = apart.compiling("compiled_head", given)
    return found


def _main() -> None:
    given = json.load(sys.stdin)
    capability = tuple(given["capability"])
    found = {
        f"{name} {form}": _compile(name, capability, form, whole=given["whole"])
        for name in ("survey", "decide", "weigh", "blend")
        for form in given["types"]
    }
    json.dump(found, sys.stdout)


def _compile(name: str, capability: tuple[int, int], form: str, *, whole: bool) -> dict[str, int]:
    import triton  # noqa: PLC0415 - may be missing where this module is imported
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415 - as above
    from triton.compiler import ASTSource  # noqa: PLC0415 - as above

    from gemd.worker.diffusion import fused_head  # noqa: PLC0415 - as above
    from gemd.worker.diffusion.compute import head_kernels  # noqa: PLC0415 - as above

    function = getattr(head_kernels, name)
    names = list(function.arg_names)
    block = fused_head.COLUMNS if name == "blend" else fused_head.SLICE
    constants = {"block": block, **({"room": 64} if "room" in names else {})}
    signature = {
        key: "constexpr"
        if key in constants
        else f"*{form}"
        if key in _OF_THE_MODEL
        else "fp32"
        if key == "softcap"
        else _POINTERS.get(key, "i32")
        for key in names
    }
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, key in enumerate(names)
        if signature[key].startswith("*") or (whole and key in _DIVISIBLE)
    }
    warps = fused_head.DECIDING_WARPS if name == "decide" else fused_head.WARPS
    major, minor = capability
    compiled = triton.compile(
        ASTSource(function, signature, constants, attributes),
        target=GPUTarget("cuda", 10 * major + minor, 32),
        options={"num_warps": warps},
    )
    return {"cubin": len(compiled.asm["cubin"]), "shared": compiled.metadata.shared}


if __name__ == "__main__":
    _main()
