"""Measures the weights of the GGUF variants of Gemma 4's profiles.

A tool, run by hand: ``python -m tests.catalog.measure_profiles`` prints a `[variants.weights]`
table for each; with ``--json`` one document, which a test compares with the profiles.

llama.cpp itself is asked: a dry run of its quantizer on a header-only file of the profile's
own `[architecture]` names the element type of every tensor, and with it the bytes. Nothing is
downloaded, and nothing but a header is written.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gguf
import llama_cpp.llama_cpp as binding

from gemd.catalog import Catalog, HubSource
from gemd.footprint.gguf import read_gguf_header
from gemd.footprint.types import TENSOR_TYPES
from tests.support.gemma4_files import GEMMA4, PROFILES, architecture_of, write_header_only

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.catalog import Variant
    from gemd.footprint.gguf import Tensor
    from tests.support.gemma4_files import Value

GROUPS: Final = ("embedding", "per_layer_embedding", "experts", "output", "rest")

_LINE: Final = re.compile(
    r"\]\s+(\S+)\s+- \[[^\]]*\], type =\s*(\S+), size =\s*[\d.]+ MiB"
    r"(?: ->\s*[\d.]+ MiB \((\S+)\))?"
)
"""What the quantizer says about a tensor: its name, its type, and the new type if there is one."""
_TYPES: Final = {each.name.lower(): each for each in TENSOR_TYPES.values()}


def group_of(tensor: str) -> str:
    """The group of a profile's `weights` that a tensor belongs to."""
    if tensor == "token_embd.weight":
        return "embedding"
    if tensor == "per_layer_token_embd.weight":
        return "per_layer_embedding"
    if not tensor.startswith("blk."):
        return "output"
    return "experts" if "_exps." in tensor else "rest"


def groups_of(tensors: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Bytes by group of tensors that are given by name and size."""
    found = dict.fromkeys(GROUPS, 0)
    for name, nbytes in tensors:
        found[group_of(name)] += nbytes
    return found


def measure(variant: Variant, architecture: Mapping[str, Value], folder: Path) -> dict[str, int]:
    """Bytes by group of a Gemma 4 of that architecture, quantized as the variant says.

    Args:
        variant: Its quantization and its publisher count.
        architecture: As in the profile.
        folder: For the header.

    """
    file = folder / "header.gguf"
    write_header_only(file, architecture, variant.id, unused_keys=_keeps_unused_keys(variant))
    types = _plan(file, variant.quantization)
    return groups_of(
        (tensor.name, _nbytes(tensor, types[tensor.name]))
        for tensor in read_gguf_header(file).tensors
    )


def _keeps_unused_keys(variant: Variant) -> bool:
    """Whether the publisher converted the checkpoint whole; Google's own files are without."""
    [source] = variant.sources
    assert isinstance(source, HubSource)
    return not source.repository.startswith("google/")


def _nbytes(tensor: Tensor, kind: str) -> int:
    element = _TYPES[kind]
    elements = 1
    for length in tensor.shape:
        elements *= length
    return elements // element.block * element.nbytes


def _plan(file: Path, quantization: str) -> dict[str, str]:
    """The element type that llama.cpp would give each tensor of the file, in lower case."""
    said: list[str] = []

    @binding.llama_log_callback  # type: ignore[untyped-decorator] # the binding has no types
    def log(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        said.append(text.decode("utf-8", "replace"))

    parameters = binding.llama_model_quantize_default_params()
    parameters.ftype = int(gguf.LlamaFileType[f"MOSTLY_{quantization}"])
    parameters.dry_run = True
    parameters.nthread = 1
    binding.llama_log_set(log, None)
    try:
        code = binding.llama_model_quantize(
            bytes(file), bytes(file.with_suffix(".out")), ctypes.byref(parameters)
        )
    finally:
        binding.llama_log_set(binding.llama_log_callback(), None)
    text = "".join(said)
    assert code == 0, text[-2000:]
    return {name: (new or old).lower() for name, old, new in _LINE.findall(text)}


def measure_all() -> dict[str, dict[str, dict[str, int]]]:
    """Bytes by profile, variant and group."""
    catalog = Catalog.load(PROFILES)
    with tempfile.TemporaryDirectory() as name:
        return {
            profile: {
                variant.id: measure(variant, architecture_of(profile), Path(name))
                for variant in catalog.resolve(profile).variants
            }
            for profile in GEMMA4
        }


def main() -> None:
    """Prints what was measured, as tables for the profiles or as JSON."""
    measured = measure_all()
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps(measured))
        return
    for profile, variants in measured.items():
        for variant, groups in variants.items():
            sys.stdout.write(f"# {profile} {variant}: {sum(groups.values())} bytes\n")
            sys.stdout.write("[variants.weights]\n")
            sys.stdout.writelines(f"{group} = {size}\n" for group, size in groups.items() if size)


if __name__ == "__main__":
    main()
