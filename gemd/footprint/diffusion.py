"""What a worker will hold for a block-diffusion model: parameters by group times their bytes.

Weights, KV cache and logits follow DiffusionGemma's published shapes; the rest is an estimate.
The worker's own denoising loop is described: it prefills in chunks, makes logits for a few rows
at a time, and turns packed experts into bf16 one layer at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from gemd.footprint.layers import layer_count, shape_of, unusable
from gemd.footprint.memory import Parts, Prediction
from gemd.footprint.shape import metadata_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gemd.footprint.gguf import Scalar
    from gemd.footprint.safetensors import SafetensorsHeader

FORMAT_BYTES: Final[dict[str, Fraction]] = {
    "f32": Fraction(4),
    "bf16": Fraction(2),
    "f16": Fraction(2),
    "fp8": Fraction(1),
    # Four bits, and one fp8 scale for each 16 elements.
    "nvfp4": Fraction(9, 16),
}
"""Bytes of one parameter by the format of its group."""

_PARAMETERS: Final = "parameters."
EXPERTS: Final = "experts"
"""The group that is unpacked one layer at a time."""
MEDIA: Final = frozenset({"vision", "audio"})
"""Groups that a text-only worker leaves in the file."""
_MEDIA_NAMES: Final = ("vision_tower.", "embed_vision.", "audio_tower.", "embed_audio.")

LOGITS_ROWS: Final = 64
"""Rows of the canvas whose logits exist at once."""
PREFILL_CHUNK: Final = 2048
"""Tokens of a prompt that are encoded at once."""
CONTEXT_BYTES: Final = 700_000_000
"""CUDA context, cuBLAS's workspace, loaded kernels: 0.5 to 0.8 GB by research."""
PROCESS_BYTES: Final = 1_500_000_000
"""Interpreter and PyTorch with its CUDA libraries, resident. Not measured here: no GPU yet."""

_BF16_BYTES: Final = 2
_F32_BYTES: Final = 4
_SCRATCH_BYTES_PER_ELEMENT: Final = 20
"""Of the residual stream: copies in several formats that one layer has alive."""
_LOGITS_ROOM: Final = Fraction(11, 10)
"""A run of the loop over the true vocabulary took 0.294 GB, a tenth above what it keeps."""
_SLACK: Final = Fraction(7, 100)
"""Of all but the weights, which are allocated once: what the caching allocator loses to
fragments, 5 to 8 % by research."""


@dataclass(frozen=True, slots=True)
class DiffusionShape:
    """A block-diffusion model as far as it decides memory.

    Attributes:
        weights: Bytes of all that is loaded.
        unpacked: Bytes that one layer's experts take in bf16 while they compute; 0 if they are
            stored so.
        cached: KV bytes of one token in all layers that attend to everything.
        copied: KV bytes of one token in one layer that attends to everything: each step copies
            that layer's cache together with the canvas's own keys and values.
        windowed: As `cached` in all layers with a sliding window.
        window: Tokens of that window.
        hidden: Elements of the residual stream.
        vocabulary: Tokens.

    """

    weights: int
    unpacked: int
    cached: int
    copied: int
    windowed: int
    window: int
    hidden: int
    vocabulary: int


def diffusion_shape(
    architecture: Mapping[str, Scalar | str | Sequence[Scalar]],
    formats: Mapping[str, str],
    *,
    weights: int | None = None,
    media: bool = False,
) -> DiffusionShape:
    """The shape of a model that a profile describes.

    Args:
        architecture: Hyperparameters as in `profile_shape`, and the number of parameters of each
            group as ``parameters.<group>``.
        formats: Element type by group; groups that are not named are bf16. See `FORMAT_BYTES`.
        weights: Bytes of what is loaded, where the headers of the files have told them; None
            computes them.
        media: Whether the groups for images and sound are loaded too.

    Raises:
        BadModelFileError: A figure is missing or absurd, or a format unknown.

    """
    metadata = metadata_of(architecture)
    shape = shape_of(metadata)
    parameters = _parameters(architecture)
    by_window: dict[bool, list[int]] = {True: [], False: []}
    for layer in shape.layers:
        by_window[layer.windowed].append(layer.elements_per_cell * _BF16_BYTES)
    return DiffusionShape(
        weights=_loaded(parameters, formats, media=media) if weights is None else weights,
        unpacked=_unpacked(parameters, formats, layer_count(metadata)),
        cached=sum(by_window[False]),
        copied=max(by_window[False], default=0),
        windowed=sum(by_window[True]),
        window=shape.window,
        hidden=shape.embedding,
        vocabulary=shape.vocabulary,
    )


def _parameters(architecture: Mapping[str, object]) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, value in architecture.items():
        if not key.startswith(_PARAMETERS):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise unusable(key, value)
        found[key.removeprefix(_PARAMETERS)] = value
    if not found:
        raise unusable(f"{_PARAMETERS}{EXPERTS}", None)
    return found


def _loaded(parameters: Mapping[str, int], formats: Mapping[str, str], *, media: bool) -> int:
    unknown = formats.keys() - parameters.keys()
    if unknown:
        raise unusable(f"formats.{min(unknown)}", "of a group without parameters")
    total = Fraction()
    for group, count in parameters.items():
        if media or group not in MEDIA:
            total += count * _bytes_of(group, formats)
    return int(total)


def _bytes_of(group: str, formats: Mapping[str, str]) -> Fraction:
    form = formats.get(group, "bf16")
    if form not in FORMAT_BYTES:
        raise unusable(f"formats.{group}", form)
    return FORMAT_BYTES[form]


def _unpacked(parameters: Mapping[str, int], formats: Mapping[str, str], layers: int) -> int:
    if _bytes_of(EXPERTS, formats) >= _BF16_BYTES:
        return 0
    return parameters.get(EXPERTS, 0) * _BF16_BYTES // layers


def weights_by_headers(headers: Iterable[SafetensorsHeader], *, media: bool = False) -> int:
    """Bytes of the weights that are loaded, from the headers of a checkpoint; exact."""
    return sum(
        tensor.nbytes
        for header in headers
        for tensor in header.tensors
        if media or not any(name in tensor.name for name in _MEDIA_NAMES)
    )


def predict_diffusion(
    shape: DiffusionShape, *, context_tokens: int, sequences: int = 1, canvas: int = 256
) -> Prediction:
    """The memory of this model in a worker on one GPU.

    Args:
        shape: Of the model.
        context_tokens: The longest prompt with its answer, tokens.
        sequences: Canvases that are denoised together.
        canvas: Tokens of a canvas.

    """
    assert context_tokens > 0
    assert sequences > 0
    assert canvas > 0
    kept = shape.cached * context_tokens + shape.windowed * min(
        context_tokens, max(shape.window - 1, 0)
    )
    logits = _LOGITS_ROOM * (
        shape.vocabulary
        * (
            # What conditions the next step, and logits with their probabilities.
            canvas * sequences * _BF16_BYTES + 2 * min(LOGITS_ROWS, canvas * sequences) * _F32_BYTES
        )
    )
    rows = max(canvas * sequences, min(PREFILL_CHUNK, context_tokens))
    activations = rows * shape.hidden * _SCRATCH_BYTES_PER_ELEMENT
    copies = shape.copied * (context_tokens + canvas) * sequences
    compute = shape.unpacked + activations + copies
    cache = kept * sequences
    slack = int(_SLACK * (cache + compute + logits))
    return Prediction(
        host=Parts(overhead=PROCESS_BYTES),
        gpu=Parts(
            weights=shape.weights,
            kv_cache=cache,
            compute=compute,
            output=int(logits),
            overhead=CONTEXT_BYTES + slack,
        ),
        # One tensor at a time passes through; the embedding is the largest.
        host_peak=PROCESS_BYTES + shape.vocabulary * shape.hidden * _BF16_BYTES,
    )
