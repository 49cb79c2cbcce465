"""A real model with weights of 16 bits, out of a quantized one: what a quantizer starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

_SKIPPED = ("GGUF.", "general.quantization_version", "general.file_type", "general.architecture")
_F16 = 1


def write_f16(source: Path, target: Path, *, layers: int | None = None) -> Path:
    """The model of a GGUF file with all matrices in F16 and the rest in F32; returns `target`.

    Args:
        source: The quantized file.
        target: What is written.
        layers: Only the first so many: it still runs, and talks nonsense.

    """
    reader = gguf.GGUFReader(source)
    fields = reader.fields
    architecture = fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, str(architecture))
    writer.add_file_type(_F16)
    count = f"{architecture}.block_count"
    for field in fields.values():
        if not field.name.startswith(_SKIPPED) and field.name != count:
            _add(writer, field)
    kept = layers or int(fields[count].contents())
    writer.add_uint32(count, kept)
    for tensor in reader.tensors:
        prefix, _, rest = tensor.name.partition(".")
        if prefix == "blk" and int(rest.partition(".")[0]) >= kept:
            continue
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
        kind = np.float16 if len(tensor.shape) > 1 else np.float32
        writer.add_tensor(tensor.name, numbers.astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add(writer: Any, field: Any) -> None:
    kind = field.types[0]
    element = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
    writer.add_key_value(field.name, field.contents(), kind, sub_type=element)
