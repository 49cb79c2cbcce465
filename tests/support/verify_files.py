"""GGUF files for the verifier: real ones, what is known of them, and ways to damage them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import gguf
import numpy as np

from gemd.footprint import read_gguf_header
from gemd.wire.quantize import TENSOR_LIST, TENSORS, MadeTensor
from gemd.wire.verify import Examine, Examined, WantedFile
from gemd.worker.verify.examination import examine
from tests.support.llama_quantizer import oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from pathlib import Path

    from gemd.footprint import Tensor

PLENTY = 64 * 2**30


@dataclass(frozen=True)
class Pair:
    """A model in F16, and what llama.cpp makes of it."""

    source: Path
    folder: Path

    def quantized(self, kind: str) -> Path:
        """The result, made once; in a process of its own."""
        path = self.folder / f"{kind}.gguf"
        if not path.exists():
            oracle(self.source, path, kind)
        return path


def sha256(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def order_for(path: Path, **more: object) -> Examine:
    """An order about a GGUF file whose size and hash are said to be what they are."""
    file = WantedFile(
        name=path.name, path=str(path), size_bytes=path.stat().st_size, sha256=sha256(path)
    )
    values = {
        "path": str(path),
        "engine": "llama",
        "files": (file,),
        "quantization": "Q4_0",
        "memory_bytes": PLENTY,
        "windows": 1,
    }
    return Examine.model_validate(values | with_list(path, more))


def with_list(path: Path, fields: Mapping[str, object]) -> dict[str, object]:
    """Fields of an order; its `tensors`, if they are said, are put into a file beside the model."""
    tensors = fields.get("tensors")
    if tensors is None:
        return dict(fields)
    file = path.with_name(f"{path.name}.{TENSORS}")
    file.write_bytes(TENSOR_LIST.dump_json(cast("tuple[MadeTensor, ...]", tensors)))
    return {**fields, "tensors": str(file)}


def looked_at(order: Examine) -> Examined:
    """What the verifier says, in this process."""
    return examine(order, lambda _: None)


def verdicts(found: Examined) -> dict[str, bool]:
    """Whether each check passed, in their order."""
    return {each.check: each.passed for each in found.checks}


def plan_of(path: Path) -> tuple[MadeTensor, ...]:
    """The tensors of a file, as its quantizer would have reported them."""
    header, data = read_gguf_header(path), path.read_bytes()
    return tuple(
        MadeTensor(
            name=tensor.name,
            kind=tensor.type,
            shape=tensor.shape,
            file=path.name,
            offset=header.data_offset + tensor.offset,
            size_bytes=tensor.nbytes,
            sha256=hashlib.sha256(
                data[header.data_offset + tensor.offset :][: tensor.nbytes]
            ).hexdigest(),
        )
        for tensor in header.tensors
    )


def damaged(
    path: Path, target: Path, damage: Callable[[Callable[[str], memoryview]], None]
) -> Path:
    """A copy of a file in which `damage` has changed bytes of tensors, which it gets by name."""
    data = bytearray(path.read_bytes())
    header = read_gguf_header(path)
    tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in header.tensors}

    def of(name: str) -> memoryview:
        start = header.data_offset + tensors[name].offset
        return memoryview(data)[start : start + tensors[name].nbytes]

    damage(of)
    target.write_bytes(data)
    return target


def without(path: Path, target: Path, names: Container[str]) -> Path:
    """A copy of a file without some of its tensors; the header knows nothing of them."""
    reader = gguf.GGUFReader(path)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        element = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=element)
    for tensor in reader.tensors:
        if tensor.name not in names:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
