"""A few layers and tokens of a real model: it runs as the whole one does, for a seventh or less.

It talks nonsense, but nonsense that depends on what stands before. Whoever asks only whether two
ways to an answer end at the same one needs no more.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from typing import TYPE_CHECKING

from gemd.footprint import read_gguf_header
from gemd.footprint.source import open_local
from gemd.footprint.types import TENSOR_TYPES
from gemd.worker.quantize.gguf.header import (
    ALIGNMENT,
    Entry,
    Packed,
    encoded,
    padded,
    read_fields,
)
from tests.support.models import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from gemd.worker.quantize.source import Field

FOLDER = CACHE / "short"
"""Where they stay; what `shortened` writes otherwise than before needs another name."""

SMOLLM2 = ((5, 29), 8192)
"""Layers and tokens. With its first layers alone, any prompt is answered with commas. With these
every token of a prompt tells, and sums that are rounded otherwise tell no more than in the whole
model: logits that spread by 3.6 differ by 0.33 at most, there 2.3 and 0.36."""

GEMMA3 = (tuple(range(12, 18)), 10_240)
"""Five sliding layers and a global one, each in its own place. Sums that are rounded otherwise
change which of two tokens is first by up to 0.5 of a logit, and what is lost by 18 (0.2 and 3 in
the whole model)."""

_KINDS = {element.name: kind for kind, element in TENSOR_TYPES.items()}
_BY_TOKEN = {f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type")}
_HEADS = {"token_embd.weight", "output.weight"}


def shortened(path: Path, *, layers: Sequence[int], tokens: int) -> Path:
    """A file with so much of this model, made once per machine.

    Args:
        path: A file of the store, which its hash is the name of.
        layers: Which ones, in order.
        tokens: How many of the first ones; those of single bytes have to be among them.

    """
    named = "-".join(map(str, (*layers, tokens)))
    target = FOLDER / f"{path.stem[:16]}-{named}.gguf"
    if not target.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        # Several test processes may be at it; they write the same.
        part = target.with_suffix(f".{os.getpid()}")
        with part.open("wb") as file:
            file.writelines(_pieces(path, layers, tokens))
        part.replace(target)
    return target


def _pieces(path: Path, layers: Sequence[int], tokens: int) -> Iterator[bytes]:
    """The header, and then each tensor with the padding behind it."""
    header = read_gguf_header(path)
    parts = []
    for tensor in header.tensors:
        name = _named(tensor.name, layers)
        if name is None:
            continue
        shape, size = tensor.shape, tensor.nbytes
        if tensor.name in _HEADS:
            size = size // shape[1] * tokens
            shape = (shape[0], tokens)
        parts.append((name, tensor, shape, size))
    ends = [0, *itertools.accumulate(padded(size, ALIGNMENT) for *_, size in parts)]
    entries = [
        Entry(name, shape, _KINDS[tensor.type], offset)
        for (name, tensor, shape, _), offset in zip(parts, ends, strict=False)
    ]
    architecture = header.metadata["general.architecture"]
    numbers = {f"{architecture}.block_count": len(layers), f"{architecture}.vocab_size": tokens}
    with open_local(path) as source:
        fields = _cut(read_fields(source), tokens, numbers)
        yield encoded(fields, entries, alignment=ALIGNMENT)
        for _, tensor, _, size in parts:
            yield source.read_at(header.data_offset + tensor.offset, size)
            yield bytes(padded(size, ALIGNMENT) - size)


def _named(name: str, layers: Sequence[int]) -> str | None:
    """What a tensor is called among these layers; None where it belongs to another one."""
    prefix, _, rest = name.partition(".")
    if prefix != "blk":
        return name
    number, _, rest = rest.partition(".")
    return f"blk.{layers.index(int(number))}.{rest}" if int(number) in layers else None


def _cut(fields: Sequence[Field], tokens: int, numbers: Mapping[str, int]) -> Iterator[Field]:
    """The same without what is said of other layers and of later tokens."""
    known: set[object] = set()
    for field in fields:
        value = numbers.get(field.key, field.value)
        if isinstance(value, Packed):
            assert field.key.startswith(("tokenizer.", "general.")), f"{field.key}: by layer?"
            if field.key in _BY_TOKEN:
                value = list(itertools.islice(value, tokens))
            if field.key == "tokenizer.ggml.tokens":
                known.update(value)
            if field.key == "tokenizer.ggml.merges":
                # llama.cpp drops characters that are merged into a token that is not there.
                value = [merge for merge in value if str(merge).replace(" ", "") in known]
        yield dataclasses.replace(field, value=value)
