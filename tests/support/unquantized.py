"""GGUF files with random weights in the shape of Gemma 4, whole and split, and importance matrices.

Files are made with the `gguf` package as far as it can stream; weights are written into the hole
behind the header in pieces, so that a large file takes no memory.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import gguf
import numpy as np

from gemd.footprint.gguf import read_gguf_header
from gemd.footprint.source import open_local
from gemd.worker.quantize.gguf import kernels
from gemd.worker.quantize.gguf.header import Entry, encoded, padded, read_fields
from gemd.worker.quantize.source import Field
from tests.support.gemma4_files import write_header_only

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.gemma4_files import Value

_PIECE: Final = 1 << 20
_LAYERS: Final = 8

DENSE: Final[dict[str, Value]] = {
    "name": "gemma4",
    "block_count": _LAYERS,
    "context_length": 4096,
    "embedding_length": 256,
    "embedding_length_per_layer_input": 64,
    "vocab_size": 512,
    "feed_forward_length": [256] * 4 + [512] * 4,
    "final_logit_softcapping": 30.0,
    "attention.head_count": 4,
    "attention.head_count_kv": 1,
    "attention.key_length": 128,
    "attention.value_length": 128,
    "attention.key_length_swa": 64,
    "attention.value_length_swa": 64,
    "attention.shared_kv_layers": 2,
    "attention.sliding_window": 512,
    "attention.sliding_window_pattern": [True, True, True, False] * 2,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.dimension_count": 128,
    "rope.dimension_count_swa": 64,
    "rope.freq_base": 1000000.0,
    "rope.freq_base_swa": 10000.0,
}
"""As E2B: per-layer embeddings, layers that share keys and values, wider layers at the end."""

EXPERTS: Final[dict[str, Value]] = {
    **DENSE,
    "embedding_length_per_layer_input": 0,
    "feed_forward_length": 288,
    "expert_count": 3,
    "expert_used_count": 2,
    "expert_feed_forward_length": 96,
    "attention.head_count_kv": [2, 2, 2, 1] * 2,
    "attention.shared_kv_layers": 0,
}
"""As 26B-A4B: fused experts, and widths that are no multiple of 256."""

HALF_A_BILLION: Final[dict[str, Value]] = {
    **DENSE,
    "embedding_length": 2048,
    "embedding_length_per_layer_input": 0,
    "vocab_size": 65536,
    "feed_forward_length": 6144,
    "attention.head_count": 8,
    "attention.head_count_kv": [4, 4, 4, 1] * 2,
    "attention.key_length": 512,
    "attention.value_length": 512,
    "attention.key_length_swa": 256,
    "attention.value_length_swa": 256,
    "attention.shared_kv_layers": 0,
}
"""As 31B, smaller: 0.5 B parameters."""


def write_model(path: Path, architecture: Mapping[str, Value], *, seed: int = 1) -> Path:
    """A BF16 file of that shape with Gaussian weights and a vocabulary of two languages."""
    vocabulary = [f"▁слово{n}" if n % 2 else f"word{n}" for n in range(300)]
    write_header_only(path, architecture, "random", vocabulary=vocabulary)
    random = np.random.default_rng(seed)
    header = read_gguf_header(path)
    with path.open("r+b") as file:
        for tensor in header.tensors:
            file.seek(header.data_offset + tensor.offset)
            left = prod(tensor.shape)
            while left:
                count = min(left, _PIECE)
                numbers = random.standard_normal(count, np.float32) * np.float32(0.02)
                file.write(numbers.tobytes() if tensor.type == "F32" else _bf16(numbers))
                left -= count
    return path


def split(path: Path, parts: int) -> Path:
    """The same model in several files, as gguf-split writes them; the path of the first."""
    header = read_gguf_header(path)
    with open_local(path) as source:
        fields = read_fields(source)
    first = path
    for number in range(parts):
        own = header.tensors[
            number * len(header.tensors) // parts : (number + 1) * len(header.tensors) // parts
        ]
        entries, at = [], 0
        for tensor in own:
            entries.append(Entry(tensor.name, tensor.shape, kernels.NUMBERS[tensor.type], at))
            at = padded(at + tensor.nbytes, 32)
        about = [
            Field("split.no", number, 2),
            Field("split.count", parts, 2),
            Field("split.tensors.count", len(header.tensors), 5),
        ]
        part = path.with_name(f"{path.stem}-{number + 1:05d}-of-{parts:05d}.gguf")
        with path.open("rb") as whole, part.open("wb") as file:
            file.write(encoded([*(() if number else fields), *about], entries, alignment=32))
            for tensor in own:
                whole.seek(header.data_offset + tensor.offset)
                file.write(whole.read(tensor.nbytes).ljust(padded(tensor.nbytes, 32), b"\0"))
        first = first if number else part
    return first


def write_importance(path: Path, model: Path, *, seed: int = 2) -> Path:
    """An importance matrix for all matrices of a model but its embeddings."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["random"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    for tensor in read_gguf_header(model).tensors:
        if len(tensor.shape) > 1 and tensor.type == "BF16" and "token_embd" not in tensor.name:
            experts = prod(tensor.shape[2:])
            sums = random.chisquare(1, (experts, tensor.shape[0])).astype(np.float32) * 500
            counts = random.integers(1, 512, (experts, 1)).astype(np.float32)
            # One that no text has reached.
            counts[experts - 1 if experts > 1 else 0 :] *= experts == 1
            writer.add_tensor(f"{tensor.name}.in_sum2", sums)
            writer.add_tensor(f"{tensor.name}.counts", counts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _bf16(numbers: np.ndarray[tuple[int], np.dtype[np.float32]]) -> bytes:
    return (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
