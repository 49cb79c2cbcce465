"""Orders for the GGUF quantizer, carried out here, and what is in their results."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.footprint.gguf import read_gguf_header
from gemd.wire.quantize import Order, Progress
from gemd.worker.quantize.gguf import GgufSource, make_gguf
from tests.support.unquantized import split

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.wire.quantize import Made


def order(
    source: Path,
    target: Path,
    quantization: str = "Q4_0",
    *,
    importance: Path | None = None,
    discard: bool = False,
    threads: int = 1,
) -> Order:
    """An order for ``r.gguf``."""
    return Order(
        source=str(source),
        target=str(target),
        name="r.gguf",
        quantization=quantization,
        importance_matrix=str(importance or ""),
        discard_source=discard,
        threads=threads,
    )


def made(
    what: Order,
    report: Callable[[Progress], None] = lambda _: None,
    free: Callable[[Path], int] = lambda _: 10**12,
) -> Made:
    """Carry it out here."""
    source = GgufSource(Path(what.source), discard=what.discard_source, kept=Path(what.target))
    try:
        return make_gguf(what, source, report, free=free)
    finally:
        source.close()


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensors(path: Path) -> dict[str, tuple[str, str]]:
    """Type and SHA-256 of every tensor of a file."""
    header, data = read_gguf_header(path), path.read_bytes()
    found = {}
    for tensor in header.tensors:
        at = header.data_offset + tensor.offset
        found[tensor.name] = (
            tensor.type,
            hashlib.sha256(data[at : at + tensor.nbytes]).hexdigest(),
        )
    return found


def parts_of(model: Path, folder: Path) -> Path:
    """A copy of the model in three files."""
    folder.mkdir()
    copy = folder / model.name
    copy.write_bytes(model.read_bytes())
    first = split(copy, 3)
    copy.unlink()
    return first
