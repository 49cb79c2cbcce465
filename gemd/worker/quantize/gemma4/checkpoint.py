"""A Gemma 4 checkpoint in safetensors as a source of tensors for a GGUF file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemd.worker.fields import read_optional_fields
from gemd.worker.quantize.gemma4.census import refuse, take_census
from gemd.worker.quantize.gemma4.config import read_config
from gemd.worker.quantize.gemma4.metadata import (
    architecture_fields,
    general_fields,
    read_template,
    suppressed,
    tokenizer_fields,
)
from gemd.worker.quantize.gemma4.names import ROPE_FREQS, rotary_factors
from gemd.worker.quantize.gemma4.shards import Shards
from gemd.worker.quantize.gemma4.tokenizer import SETTINGS, read_vocabulary
from gemd.worker.quantize.gguf import kernels
from gemd.worker.quantize.source import SourceTensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from gemd.worker.quantize.gemma4.census import Stored
    from gemd.worker.quantize.source import Field


class Gemma4Source:
    """A `TensorSource` over the text model of a checkpoint; see `is_gemma4`.

    What belongs to images and sound is left out. One tensor comes from no file: the factors of the
    rotary frequencies, whose `SourceTensor.file` is empty.

    Args:
        directory: With config.json, tokenizer.json and the weights; files may be links.
        discard: Remove each file of weights when it is used up, and of a link its target.
        kept: Where the headers of files that are removed are kept until the last one is, so that
            a later try can go on; without such a directory all files are removed with the last.

    Raises:
        ModelNotFoundError: There is no config.json, or there are no weights.
        BadModelFileError: It is no whole Gemma 4, its tokenizer is another model's, or it is
            quantized already.

    """

    def __init__(self, directory: Path, *, discard: bool = False, kept: Path | None = None) -> None:
        model, config = read_config(directory)
        settings = read_optional_fields(directory / SETTINGS)
        generation = read_optional_fields(directory / "generation_config.json")
        vocabulary = read_vocabulary(directory, settings, config)
        self._shards = Shards(directory, kept if discard else None)
        census = take_census(self._shards.headers, model, len(vocabulary.tokens))
        if census.problems:
            raise refuse(directory, census.problems)
        self._left_out = census.left_out
        self._factors = np.array(rotary_factors(model), np.float32)
        self._stored = {stored.name: stored for stored in census.stored}
        self._tensors = (
            SourceTensor(ROPE_FREQS, (len(self._factors),), "F32", ""),
            *(_source_tensor(stored) for stored in census.stored),
        )
        self._fields = (
            *general_fields(directory, generation, self._tensors),
            *architecture_fields(model),
            *(suppressed(generation, vocabulary) if model.unified else ()),
            *tokenizer_fields(vocabulary, read_template(directory, settings)),
        )
        self._discard = discard
        self._keeps = kept is not None
        self._unused = {stored.file for stored in census.stored}

    @property
    def left_out(self) -> Mapping[str, int]:
        """Bytes of the checkpoint that do not go into the file, by the part of the model."""
        return self._left_out

    def metadata(self) -> tuple[Field, ...]:
        """See `TensorSource`. The types of the result are the writer's to say."""
        return self._fields

    def tensors(self) -> tuple[SourceTensor, ...]:
        """See `TensorSource`: in the order of the files and their data."""
        return self._tensors

    def rows(self, tensor: SourceTensor, start: int, count: int) -> NDArray[np.float32]:
        """See `TensorSource`. What has been read leaves the page cache."""
        width = tensor.shape[0]
        if tensor.name == ROPE_FREQS:
            return self._factors.reshape(-1, width)[start : start + count]
        stored = self._stored[tensor.name]
        row = kernels.row_bytes(stored.stored, width)
        data = self._shards.read(stored.file, stored.offset + start * row, count * row)
        return kernels.widened(stored.stored, data).reshape(count, width)

    def used_up(self, file: str) -> None:
        """See `TensorSource`.

        Raises:
            BadModelFileError: The file has been written to since it was opened.

        """
        if not file:
            return
        self._shards.release(file)
        self._unused.discard(file)
        if not self._discard:
            return
        if not self._unused:
            self._shards.discard_all()
        elif self._keeps:
            self._shards.discard(file)

    def close(self) -> None:
        """See `TensorSource`."""
        self._shards.close()


def _source_tensor(stored: Stored) -> SourceTensor:
    return SourceTensor(stored.name, stored.shape[::-1], stored.kind, stored.file)
