"""``python -m tests.support.compiled``: the Triton kernels compiled for GPUs that are not here.

A process of its own: Triton may warn, and must not be in its interpreter.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from tests.support import apart

_POINTERS: Final = {
    "chosen": "*i64",
    "order": "*i32",
    "bounds": "*i32",
    "packed": "*u32",
    "scale": "*i8",
    "factor": "*fp32",
}
_OF_THE_MODEL: Final = {"x", "arranged", "share", "out"}
"""Arrays of the type that is computed in."""
_DIVISIBLE: Final = {"width", "padded", "inner", "outer", "pairs"}
"""Numbers that are multiples of 16 in the real model, which Triton makes use of."""
HIDDEN, INNER, EXPERTS = 2816, 704, 128


def compile_offline(
    capability: tuple[int, int], kernels: list[str], size: int, form: str = "bf16"
) -> dict[str, Any]:
    """Compile kernels for the real model's shapes, with this architecture's tiles.

    Args:
        capability: Compute capability.
        kernels: Names.
        size: Tokens of an expert on average; see `tiles.bucket`.
        form: What is computed in: bf16, fp16 or fp32.

    Returns:
        By kernel: «cubin», bytes of machine code; «shared», bytes of shared memory; «ptx», the
        assembly.

    """
    given = {"capability": capability, "kernels": kernels, "size": size, "form": form}
    found: dict[str, Any] = apart.compiling("compiled", given)
    return found


def _main() -> None:
    given = json.load(sys.stdin)
    capability = tuple(given["capability"])
    results = {
        name: _compile(name, capability, given["size"], given["form"]) for name in given["kernels"]
    }
    json.dump(results, sys.stdout)


def _compile(name: str, capability: tuple[int, int], size: int, form: str) -> dict[str, Any]:
    import triton  # noqa: PLC0415 - may be missing where this module is imported
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415 - as above
    from triton.compiler import ASTSource  # noqa: PLC0415 - as above

    from gemd.worker.diffusion.compute import kernels  # noqa: PLC0415 - as above
    from gemd.worker.diffusion.compute.tiles import tile_for  # noqa: PLC0415 - as above

    tile = tile_for(capability, size)
    columns = INNER if name == "down" else HIDDEN
    constants = {
        "rows": tile.rows,
        "columns": 1024 if name == "route" else tile.columns,
        "hopper": capability[0] == 9,
        "aligned": 4 if name == "down" else 16,
        "whole": columns % tile.columns == 0,
        "assembly": form == "bf16",
        "experts": EXPERTS,
        "block": 2048,
        **({} if name == "route" else {"tokens": tile.tokens}),
    }
    function = getattr(kernels, name)
    names = list(function.arg_names)
    constants = {key: value for key, value in constants.items() if key in names}
    pointers = _POINTERS | dict.fromkeys(_OF_THE_MODEL, f"*{form}")
    signature = {
        key: "constexpr" if key in constants else pointers.get(key, "i32") for key in names
    }
    divisible = [["tt.divisibility", 16]]
    attributes = {
        (place,): divisible
        for place, key in enumerate(names)
        if key in _DIVISIBLE or signature[key].startswith("*")
    }
    source = ASTSource(function, signature, constants, attributes)
    major, minor = capability
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", 10 * major + minor, 32),
        options={"num_warps": tile.warps, "num_stages": tile.stages},
    )
    return {
        "cubin": len(compiled.asm["cubin"]),
        "shared": compiled.metadata.shared,
        "ptx": compiled.asm["ptx"],
    }


if __name__ == "__main__":
    _main()
