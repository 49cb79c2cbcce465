"""From a folder of files to a decoder with weights on its device.

Encoder and decoder are one stack of layers in this architecture, but for one scalar in each layer;
so one module tree is filled, and the encoder's scalars lie beside it. The vision tower stays in the
file. Packed weights stay packed: bytes go from the file through a few megabytes of main memory to
the place where they are computed with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from gemd.errors import BadModelFileError
from gemd.worker.diffusion.checkpoint.census import check, take_census
from gemd.worker.diffusion.checkpoint.config import read_config
from gemd.worker.diffusion.checkpoint.files import Weights, read_headers, staging_memory
from gemd.worker.diffusion.checkpoint.names import ENCODER_SCALARS
from gemd.worker.diffusion.checkpoint.skeleton import allocate, empty_decoder, tree_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from transformers import DiffusionGemmaConfig
    from transformers.models.diffusion_gemma.modeling_diffusion_gemma import (
        DiffusionGemmaDecoderModel,
    )

    from gemd.footprint.safetensors import SafetensorsHeader
    from gemd.worker.diffusion.checkpoint.census import Census, Stored
    from gemd.worker.diffusion.checkpoint.defaults import SamplerDefaults
    from gemd.worker.diffusion.checkpoint.names import Slot
    from gemd.worker.diffusion.checkpoint.quantization import Layout

_TYPES: Final = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "U8": torch.uint8,
    # Copied as bytes: not every device has arithmetic for it.
    "F8_E4M3": torch.uint8,
}
_REPORTS: Final = 200
"""How often progress is told, at most: there are 35,000 tensors."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model that can be computed with.

    Attributes:
        config: Of the model; its vision part is transformers' default, not this model's.
        decoder: With all weights on the device; its embedding is also the head.
        encoder_scalars: By layer, what the encoder has in place of the decoder's `layer_scalar`;
            shape (1,).
        defaults: How the model wants to be sampled.
        layout: Names and types of what was stored.
        parameters: Of the text model; a packed weight counts as one.

    """

    config: DiffusionGemmaConfig
    decoder: DiffusionGemmaDecoderModel
    encoder_scalars: tuple[torch.Tensor, ...]
    defaults: SamplerDefaults
    layout: Layout
    parameters: int


def load_checkpoint(
    directory: Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checkpoint:
    """Read a checkpoint of DiffusionGemma, plain or in one of the two NVFP4 layouts.

    Args:
        directory: With config.json and the weights.
        device: Where the weights go.
        dtype: What is computed in; None for what the checkpoint says, which is bf16 for NVFP4.
        progress: Called with the bytes that are loaded and all that will be, from the start to the
            end; None for no such calls.

    Raises:
        ModelNotFoundError: There is no configuration, or no weights.
        BadModelFileError: The files are not a whole checkpoint of this architecture. Nothing is
            loaded then.
        torch.OutOfMemoryError: The device has no room for the weights.

    """
    described = read_config(directory)
    files = read_headers(directory)
    decoder = empty_decoder(described.config)
    tree = tree_of(decoder)
    census = take_census([header for _, header in files], tree, described.layout)
    check(census, directory)
    parameters = sum(parameter.numel() for parameter in decoder.parameters())
    dtype = dtype or described.dtype
    allocate(decoder, census.packed, device=device, dtype=dtype)
    scalars = torch.empty((len(decoder.layers), 1), dtype=dtype, device=device)
    homes = _Homes(decoder, scalars)
    _fill(homes, census, files, device, progress)
    homes.check()
    return Checkpoint(
        config=described.config,
        decoder=decoder,
        encoder_scalars=tuple(scalars),
        defaults=described.defaults,
        layout=described.layout,
        parameters=parameters,
    )


class _Homes:
    """The memory that stored tensors go to."""

    def __init__(self, decoder: DiffusionGemmaDecoderModel, scalars: torch.Tensor) -> None:
        self._decoder = decoder
        self._fields = {(ENCODER_SCALARS, "layer_scalar"): scalars}
        self._filled = 0

    def of(self, slot: Slot) -> torch.Tensor:
        """The flat memory of one place, which is filled next."""
        key = (slot.owner, slot.field)
        if key not in self._fields:
            self._fields[key] = getattr(self._decoder.get_submodule(slot.owner), slot.field)
        home = self._fields[key]
        if slot.expert is not None:
            home = home[slot.expert]
        if slot.parts > 1:
            home = home.chunk(slot.parts)[slot.part]
        self._filled += home.numel()
        return home.view(-1)

    def check(self) -> None:
        """See that everything has been filled, which the census has promised."""
        own = self._decoder.state_dict()
        scalars = self._fields[ENCODER_SCALARS, "layer_scalar"]
        there = scalars.numel() + sum(tensor.numel() for tensor in own.values())
        assert self._filled == there, "every element is written once"
        everything = (*self._decoder.parameters(), *self._decoder.buffers())
        assert not any(tensor.is_meta for tensor in everything), "nothing is left without memory"


def _fill(
    homes: _Homes,
    census: Census,
    files: Sequence[tuple[Path, SafetensorsHeader]],
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Read every stored tensor to its place, file by file."""
    report = _Report(progress, census.nbytes)
    largest = max(stored.tensor.nbytes for stored in census.stored)
    staging = staging_memory(device, largest)
    for number, (path, header) in enumerate(files):
        own = [stored for stored in census.stored if stored.file == number]
        with Weights(path, header, staging) as weights:
            for stored in own:
                _read(homes.of(stored.wanted.slot), stored, weights, report)


def _read(home: torch.Tensor, stored: Stored, weights: Weights, report: _Report) -> None:
    kind = _TYPES[stored.tensor.dtype]
    if kind is torch.uint8:
        home = home.view(torch.uint8)
    at = 0
    for piece in weights.pieces(stored.tensor.begin, stored.tensor.nbytes):
        values = piece.view(kind)
        if stored.wanted.is_factor:
            values = _factor(values, stored)
        home[at : at + len(values)].copy_(values)
        at += len(values)
        report.add(len(piece))


def _factor(values: torch.Tensor, stored: Stored) -> torch.Tensor:
    """What weights are multiplied with; one that is no number would spoil all of them."""
    factor = values.reciprocal() if stored.wanted.inverse else values
    if not 0 <= factor.item() < float("inf"):
        name = stored.tensor.name
        raise BadModelFileError(
            f"the global scale {name} is {values.item()}",
            why="all weights of a matrix are multiplied with it, so it has to be a finite number",
            advice=("gemctl list",),
            metadata={"tensor": name, "value": values.item()},
        )
    return factor


class _Report:
    """Tells progress in steps that are worth a message."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = self._told = 0
        self._tell()

    def add(self, nbytes: int) -> None:
        """So many more bytes are where they belong."""
        self._done += nbytes
        if self._done - self._told >= self._total // _REPORTS or self._done == self._total:
            self._tell()

    def _tell(self) -> None:
        self._told = self._done
        if self._progress is not None:
            self._progress(self._done, self._total)
