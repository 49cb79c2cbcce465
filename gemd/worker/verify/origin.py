"""What a GGUF file was made from, by the path that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.worker.quantize.source import TensorSource


def gguf_source(path: Path) -> TensorSource:
    """The unquantized weights, with the names and shapes that the GGUF file has.

    Args:
        path: A GGUF file, the first of a split one, or a directory with a Gemma 4 checkpoint.

    Raises:
        GemdError: It is not there, or nothing of the kind.

    """
    if path.is_dir():
        # Reads whole tokenizers; most sources are files.
        from gemd.worker.quantize.gemma4 import Gemma4Source  # noqa: PLC0415 - as said

        return Gemma4Source(path)
    from gemd.worker.quantize.gguf.source import GgufSource  # noqa: PLC0415 - as above

    return GgufSource(path)
