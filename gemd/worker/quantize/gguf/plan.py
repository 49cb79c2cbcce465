"""Which type every tensor gets: llama.cpp's own answer, from a file without weights.

`llama_model_quantize` is asked with `dry_run` on a header with a hole behind it, and says in its
log what it would do: the mixtures depend on layer, width, architecture and on whether there is an
importance matrix, and its rules for them have no other interface. What it says is also the order
in which its own file has the tensors.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

from llama_cpp import llama_cpp as c

from gemd.errors import BadModelFileError, InvalidRequestError
from gemd.worker.quantize.files import full
from gemd.worker.quantize.gguf import kernels
from gemd.worker.quantize.gguf.header import (
    ALIGNMENT,
    ALIGNMENT_KEY,
    U32,
    Entry,
    encoded,
    padded,
)
from gemd.worker.quantize.gguf.importance import EMBEDDINGS
from gemd.worker.quantize.source import Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from gemd.worker.quantize.gguf.importance import Importance
    from gemd.worker.quantize.source import SourceTensor, TensorSource

MIXTURES: Final = {
    name: int(getattr(c, f"LLAMA_FTYPE_{'ALL' if name == 'F32' else 'MOSTLY'}_{name}"))
    for name in (
        *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0"),
        *("Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4_MOE"),
        *("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS"),
        *("Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
        *("TQ2_0", "TQ1_0"),
    )
}
"""llama.cpp's number of a mixture (`llama_ftype`), by its name."""

_TWIN: Final = "plan.gguf"
_QUANTIZATION_VERSION: Final = 2
_OWN_KEYS: Final = ("general.quantization_version", "general.file_type")
_NEED_IMPORTANCE: Final = ("IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S")
"""What llama.cpp refuses to write without one (`tensor_requires_imatrix`), and so do we: ggml ends
the process where some of them meet none."""
_LINE: Final = re.compile(
    r"\]\s+(\S+)\s+- \[[^\]]*\], type =\s*(\S+), size =\s*[\d.]+ MiB(?: ->\s*[\d.]+ MiB \((\S+)\))?"
)
_FALLBACKS: Final = re.compile(r"WARNING: (\d+) of \d+ tensor\(s\) required fallback")
_NEEDS_IMPORTANCE: Final = "will require an imatrix"


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the result.

    Attributes:
        tensor: As the source has it.
        kind: ggml's name of the type that it gets.
        offset: From the beginning of the file, in bytes.
        size_bytes: Without the padding behind it.

    """

    tensor: SourceTensor
    kind: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole file, but for the weights.

    Attributes:
        header: Its first bytes, up to the first tensor.
        tensors: In the order of the file.
        fallbacks: Tensors that are too narrow for the type their mixture has for them.
        size_bytes: Of the file.

    """

    header: bytes
    tensors: tuple[PlannedTensor, ...]
    fallbacks: int
    size_bytes: int


def plan_of(
    source: TensorSource, quantization: str, importance: Importance | None, folder: Path
) -> Plan:
    """What a file of this mixture is going to be.

    Args:
        source: The model.
        quantization: One of `MIXTURES`.
        importance: An importance matrix; other types are chosen with one.
        folder: Takes a file of the header's size for a moment.

    Raises:
        InvalidRequestError: There is no such mixture, or it needs an importance matrix.
        BadModelFileError: llama.cpp does not know such a model.
        DiskFullError: There is no room for the header.

    """
    number = mixture(quantization)
    tensors, fields = source.tensors(), list(source.metadata())
    twin = folder / _TWIN
    try:
        _write_twin(twin, fields, tensors)
        log = _dry_run(twin, number, weighted=importance is not None)
    finally:
        twin.unlink(missing_ok=True)
    kinds = _kinds(log, tensors)
    _check_importance(quantization, kinds, tensors, importance, log)
    fallbacks = _FALLBACKS.search(log)
    by_name = {tensor.name: tensor for tensor in tensors}
    typed = [(by_name[name], kind) for name, kind in kinds.items()]
    return _laid_out(fields, number, typed, int(fallbacks[1]) if fallbacks else 0)


def mixture(quantization: str) -> int:
    """llama.cpp's number of a mixture.

    Raises:
        InvalidRequestError: It has none of that name.

    """
    if quantization not in MIXTURES:
        raise InvalidRequestError(
            f"there is no quantization {quantization!r}",
            why=f"llama.cpp has {', '.join(MIXTURES)}",
            metadata={"field": "quantization", "quantization": quantization},
        )
    return MIXTURES[quantization]


def _laid_out(
    fields: list[Field], number: int, tensors: Sequence[tuple[SourceTensor, str]], fallbacks: int
) -> Plan:
    """The header of the result, and a place for every tensor behind it."""
    alignment = _alignment(fields)
    values = (_QUANTIZATION_VERSION, number)
    own = [Field(key, value, U32) for key, value in zip(_OWN_KEYS, values, strict=True)]
    entries, sizes, at = [], [], 0
    for tensor, kind in tensors:
        size = prod(tensor.shape[1:]) * kernels.row_bytes(kind, tensor.shape[0])
        entries.append(Entry(tensor.name, _trimmed(tensor.shape), kernels.NUMBERS[kind], at))
        sizes.append(size)
        at = padded(at + size, alignment)
    kept = [field for field in fields if field.key not in _OWN_KEYS]
    header = encoded([*kept, *own], entries, alignment=alignment)
    return Plan(
        header,
        tuple(
            PlannedTensor(tensor, kind, len(header) + entry.offset, size)
            for (tensor, kind), entry, size in zip(tensors, entries, sizes, strict=True)
        ),
        fallbacks,
        len(header) + at,
    )


def _alignment(fields: Iterable[Field]) -> int:
    for field in fields:
        if field.key == ALIGNMENT_KEY and isinstance(field.value, int):
            return field.value
    return ALIGNMENT


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without sizes of one at the end, which ggml does not count as dimensions."""
    last = max((at for at, size in enumerate(shape) if size > 1), default=0)
    return shape[: last + 1]


def _write_twin(path: Path, fields: list[Field], tensors: Sequence[SourceTensor]) -> None:
    alignment, entries, at = _alignment(fields), [], 0
    for tensor in tensors:
        entries.append(Entry(tensor.name, tensor.shape, kernels.NUMBERS[tensor.kind], at))
        size = prod(tensor.shape[1:]) * kernels.row_bytes(tensor.kind, tensor.shape[0])
        at = padded(at + size, alignment)
    header = encoded(fields, entries, alignment=alignment)
    try:
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + at)
    except OSError as error:
        raise full(error, path, len(header)) or error from None


def _dry_run(path: Path, number: int, *, weighted: bool) -> str:
    """What llama.cpp says that it would do.

    Raises:
        BadModelFileError: It refuses the model.

    """
    params = c.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.dry_run = number, 1, True
    # Whether there is one decides about types; what is in it does not.
    nothing = (c.llama_model_imatrix_data * 1)()
    if weighted:
        params.imatrix = nothing
    _LOG.clear()
    c.llama_log_set(_CALLBACK, ctypes.c_void_p(0))
    failed = c.llama_model_quantize(os.fsencode(path), b"", ctypes.byref(params))
    text = "".join(_LOG)
    _LOG.clear()
    if failed:
        said = [line.strip() for line in text.splitlines() if "error" in line or "fail" in line]
        raise BadModelFileError(
            "llama.cpp cannot quantize this model",
            why="; ".join(said[-2:]) or "it gave no reason",
            advice=("gemctl list",),
            metadata={"mixture": number},
        )
    return text


def _kinds(log: str, tensors: Sequence[SourceTensor]) -> dict[str, str]:
    """Types by name, in llama.cpp's order."""
    kinds = {name: (new or old).upper() for name, old, new in _LINE.findall(log)}
    known = kernels.NUMBERS.keys()
    if set(kinds) != {tensor.name for tensor in tensors} or not known >= set(kinds.values()):
        raise BadModelFileError(
            f"llama.cpp's plan names {len(kinds)} tensors, and the model has {len(tensors)}",
            why="its log cannot be read, or some of its types are not known here: "
            f"{', '.join(sorted(set(kinds.values()) - known)) or 'none'}",
            advice=("pip install --force-reinstall llama-cpp-python==0.3.36",),
            metadata={"planned": len(kinds), "tensors": len(tensors)},
        )
    return kinds


def _check_importance(
    quantization: str,
    kinds: dict[str, str],
    tensors: Sequence[SourceTensor],
    importance: Importance | None,
    log: str,
) -> None:
    if importance is None:
        lacking = [_NEEDS_IMPORTANCE] if _NEEDS_IMPORTANCE in log else []
    else:
        # All of it is looked at now: a matrix of another model must not end the work in its midst.
        without = [
            tensor
            for tensor in tensors
            if kinds[tensor.name] != tensor.kind
            and importance.of(tensor.name, tensor.shape) is None
        ]
        lacking = [
            tensor.name
            for tensor in without
            if _needs_importance(quantization, tensor.name, kinds[tensor.name])
        ]
    if lacking:
        raise InvalidRequestError(
            f"{quantization} needs an importance matrix",
            why="there is none"
            if importance is None
            else f"the one given says nothing about {lacking[0]} ({len(lacking)} such tensors)",
            advice=("gemctl quantize MODEL --to Q4_K_M",),
            metadata={"field": "importance_matrix", "quantization": quantization},
        )


def _needs_importance(quantization: str, name: str, kind: str) -> bool:
    if name in {*EMBEDDINGS, "output.weight"}:
        return False
    return kind in _NEED_IMPORTANCE or (kind == "Q2_K" and quantization == "Q2_K_S")


_LOG: Final[list[str]] = []


def _note(_level: int, text: bytes, _: object) -> None:
    _LOG.append(text.decode("utf-8", "replace"))


# llama.cpp keeps it for the life of the process; once collected, it is a jump into freed memory.
_CALLBACK: Final[Any] = c.llama_log_callback(_note)
