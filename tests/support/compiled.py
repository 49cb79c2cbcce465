"""``python -m tests.support.compiled``: the Triton kernels compiled for GPUs that are not here.

A process of its own: Triton may warn, and must not be in its interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

_POINTERS: Final = {
    "chosen": "*i64",
    "order": "*i32",
    "bounds": "*i32",
    "packed": "*u32",
    "scale": "*i8",
    "factor": "*fp32",
    "x": "*bf16",
    "arranged": "*bf16",
    "share": "*bf16",
    "out": "*bf16",
}
_DIVISIBLE: Final = {"width", "padded", "inner", "outer", "pairs"}
"""Numbers that are multiples of 16 in the real model, which Triton makes use of."""
HIDDEN, INNER, EXPERTS = 2816, 704, 128


def compile_offline(capability: tuple[int, int], kernels: list[str], size: int) -> dict[str, Any]:
    """Compile kernels in bfloat16 for the real model's shapes, with this architecture's tiles.

    Args:
        capability: Compute capability.
        kernels: Names.
        size: Tokens of an expert on average; see `tiles.bucket`.

    Returns:
        By kernel: «cubin», bytes of machine code; «shared», bytes of shared memory; «ptx», the
        assembly.

    """
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.support.compiled"],
            input=json.dumps({"capability": capability, "kernels": kernels, "size": size}),
            env={**environment, "TRITON_CACHE_DIR": cache},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _main() -> None:
    given = json.load(sys.stdin)
    capability = tuple(given["capability"])
    results = {name: _compile(name, capability, given["size"]) for name in given["kernels"]}
    json.dump(results, sys.stdout)


def _compile(name: str, capability: tuple[int, int], size: int) -> dict[str, Any]:
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
        "assembly": True,
        "experts": EXPERTS,
        "block": 2048,
        **({} if name == "route" else {"tokens": tile.tokens}),
    }
    function = getattr(kernels, name)
    names = list(function.arg_names)
    constants = {key: value for key, value in constants.items() if key in names}
    signature = {
        key: "constexpr" if key in constants else _POINTERS.get(key, "i32") for key in names
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
