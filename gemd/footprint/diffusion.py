"""What a worker will hold for a block-diffusion model: parameters by group times their bytes.

Weights, KV cache and logits follow from the model's shapes; the rest is an estimate that leans
upwards. The engine `gemd.worker.diffusion` is described: its cache of slots (`cache.py`), its head,
which has the logits of one canvas at a time (`head.py`), and its chunks of a prompt (`engine.py`,
`stack.py`). Nothing is concatenated, and packed weights stay packed.
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
    from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader

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
MEDIA: Final = frozenset({"vision", "audio"})
"""Groups that a text-only worker leaves in the file."""
_MEDIA_NAMES: Final = ("vision_tower.", "embed_vision.", "audio_tower.", "embed_audio.")
_TIED: Final = "lm_head.weight"
"""The table of embeddings once more; the head uses the one that is loaded."""
_OF_ACTIVATIONS: Final = ("input_scale", "input_global_scale", "output_scale", "q_scale")
"""Last parts of names of what is stored about activations and is not loaded."""
_CACHE_SCALES: Final = ("k_scale", "v_scale")
_FLOATS: Final = frozenset({"BF16", "F16", "F32"})
_PACKED: Final = "U8"
_GLOBAL_SCALES: Final = ("weight_scale_2", "weight_global_scale")

SLACK_TOKENS: Final = 256
"""What a layer with a window holds beyond that (`gemd.worker.diffusion.cache.SLACK`)."""
PREFILL_TOKENS: Final = 512
"""The most of a prompt that one step reads (`gemd.worker.diffusion.engine.PREFILL_TOKENS`)."""
MASK_ELEMENTS: Final = 1 << 25
"""The most that the mask of such a step has (`gemd.worker.diffusion.stack.MASK_ELEMENTS`)."""
_MASK_BYTES: Final = 9
"""Of one: a truth value, and as much again in the types that attention makes of it."""
SLICE_TOKENS: Final = 16_384
"""Of the vocabulary, what the head works on at once (`gemd.worker.diffusion.head.SLICE`)."""
FEW_ROWS: Final = 16
"""Positions of which whole rows are handled at once (`gemd.worker.diffusion.head.FEW_ROWS`)."""
_SLICE_ARRAYS: Final = 2
"""Of float32, which the head computes in beside the logits; and one in the model's own type."""
_DRAWN_BYTES: Final = 48
"""Of an element of those rows while a token is drawn: two places, sums in float64, numbers."""
_SORTED_BYTES: Final = 36
"""Of an element of a row while it is sorted: values and places, the same to sort in, a copy."""
REFERENCE_BYTES: Final = 256 * 1024**2
"""Experts that the reference unpacks at once
(`gemd.worker.diffusion.compute.reference.SCRATCH_BYTES`)."""
UNPACKED_BYTES: Final = 8
"""Of one element while it is unpacked (`compute.nvfp4.SCRATCH_PER_ELEMENT`)."""
STAGING_BYTES: Final = 32 * 1024**2
"""What of the files is in main memory at once (`checkpoint.files.CHUNK_BYTES`)."""

CONTEXT_BYTES: Final = 700_000_000
"""CUDA context, cuBLAS's workspace, loaded kernels: 0.5 to 0.8 GB by research."""
CUDA_PROCESS_BYTES: Final = 1_500_000_000
"""Interpreter and PyTorch with its CUDA libraries, resident. Not measured here: no GPU yet."""
PROCESS_BYTES: Final = 490 * 1024**2
"""The same of PyTorch for the processor: 221 MiB after ``import torch``, 413 with transformers'
classes of the model (2.13.0+cpu, 5.24.0, Linux), and the worker's own objects, tokenizer and
arenas; a worker that has answered with a model of 3 MB held 482 to 512."""

_SCRATCH_BYTES_PER_ELEMENT: Final = 20
"""Of the residual stream: copies in several formats that one layer has alive."""
_QUERY_COPIES: Final = 4
"""Queries before and after their norm and rotation, and what attention gives."""
_F32_BYTES: Final = 4
_BF16_BYTES: Final = 2
_SLACK: Final = Fraction(7, 100)
"""Of what comes and goes: what the caching allocator loses to fragments, 5 to 8 % by research.
Weights and cache are allocated once."""


@dataclass(frozen=True, slots=True)
class DiffusionShape:
    """A block-diffusion model as far as it decides memory.

    Attributes:
        weights: Bytes of all that is loaded.
        packed: Whether any of it is in four bits.
        element_bytes: Of one number of what is computed in.
        cached: KV bytes of one token in all layers that attend to everything.
        windowed: As `cached` in all layers with a sliding window.
        window: Tokens of that window.
        hidden: Elements of the residual stream.
        attention: Elements of the widest query, all heads together.
        routed: Elements that one token has in its experts, inputs and outputs included.
        expert: Parameters of one layer's experts.
        vocabulary: Tokens.
        layers: How many.
        canvas: Tokens of a canvas.

    """

    weights: int
    packed: bool
    element_bytes: int
    cached: int
    windowed: int
    window: int
    hidden: int
    attention: int
    routed: int
    expert: int
    vocabulary: int
    layers: int
    canvas: int


def diffusion_shape(
    architecture: Mapping[str, Scalar | str | Sequence[Scalar]],
    formats: Mapping[str, str] | None = None,
    *,
    weights: int | None = None,
    packed: bool | None = None,
    element_bytes: int = _BF16_BYTES,
    media: bool = False,
) -> DiffusionShape:
    """The shape of a model that a profile or a config.json describes.

    Args:
        architecture: Hyperparameters as in `profile_shape`, ``canvas_length``, and the number of
            parameters of each group as ``parameters.<group>``.
        formats: Element type by group; groups that are not named are bf16. See `FORMAT_BYTES`.
        weights: Bytes of what is loaded, where the headers of the files have told them; None
            computes them from parameters and formats.
        packed: Whether any of it is in four bits; None goes by the formats.
        element_bytes: Of one number of what is computed in.
        media: Whether the groups for images and sound are loaded too.

    Raises:
        BadModelFileError: A figure is missing or absurd, or a format unknown.

    """
    metadata = metadata_of(architecture)
    shape = shape_of(metadata)
    formats = formats or {}
    if weights is None:
        weights = _loaded(_parameters(architecture), formats, media=media)
    by_window = {True: 0, False: 0}
    for layer in shape.layers:
        by_window[layer.windowed] += layer.elements_per_cell * element_bytes
    used, count, inner = (
        _figure(architecture, key)
        for key in ("expert_used_count", "expert_count", "expert_feed_forward_length")
    )
    return DiffusionShape(
        weights=weights,
        packed="nvfp4" in formats.values() if packed is None else packed,
        element_bytes=element_bytes,
        cached=by_window[False],
        windowed=by_window[True],
        window=shape.window,
        hidden=shape.embedding,
        attention=shape.attention,
        # A row in, gate and up, their product, and a row out.
        routed=used * (2 * shape.embedding + 3 * inner),
        expert=count * 3 * shape.embedding * inner,
        vocabulary=shape.vocabulary,
        layers=layer_count(metadata),
        canvas=_figure(architecture, "canvas_length"),
    )


def _figure(architecture: Mapping[str, object], key: str) -> int:
    """A count; 0 if it is not there."""
    value = architecture.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise unusable(key, value)
    return value


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


def weights_by_headers(
    headers: Iterable[SafetensorsHeader], *, element_bytes: int = _BF16_BYTES, media: bool = False
) -> int:
    """Bytes of the weights that are loaded, from the headers of a checkpoint; exact.

    Args:
        headers: Of all files.
        element_bytes: Of one number of what is computed in: plain weights are loaded in that type,
            packed ones as they are.
        media: Whether the towers for images and sound are loaded too.

    """
    return sum(
        _loaded_bytes(tensor, element_bytes)
        for header in headers
        for tensor in header.tensors
        if _is_loaded(tensor.name, media=media)
    )


def is_packed(headers: Iterable[SafetensorsHeader]) -> bool:
    """Whether any of the weights are in four bits."""
    return any(tensor.dtype == _PACKED for header in headers for tensor in header.tensors)


def _is_loaded(name: str, *, media: bool) -> bool:
    if name == _TIED or name.rpartition(".")[2] in (*_OF_ACTIVATIONS, *_CACHE_SCALES):
        return False
    return media or not any(part in name for part in _MEDIA_NAMES)


def _loaded_bytes(tensor: SafeTensor, element_bytes: int) -> int:
    if tensor.dtype not in _FLOATS or tensor.name.endswith(_GLOBAL_SCALES):
        return tensor.nbytes
    stored = _F32_BYTES if tensor.dtype == "F32" else _BF16_BYTES
    return tensor.nbytes // stored * element_bytes


def predict_diffusion(
    shape: DiffusionShape, *, context_tokens: int, sequences: int = 1, gpu: bool = True
) -> Prediction:
    """The memory of this model in a worker.

    Peaks have room for a request that filters the tokens it draws from, which sorts them.

    Args:
        shape: Of the model.
        context_tokens: The longest prompt with its answer, tokens; each canvas has room for it.
        sequences: Canvases that are denoised together.
        gpu: Whether it is on a GPU; else the reference computes on the processor.

    """
    assert context_tokens > 0
    assert sequences > 0
    cache = _cache(shape, context_tokens) * sequences
    compute = _compute(shape, context_tokens, sequences, gpu=gpu)
    output = _output(shape)
    filtering = _SORTED_BYTES * FEW_ROWS * shape.vocabulary
    if not gpu:
        host = Parts(
            weights=shape.weights,
            kv_cache=cache,
            compute=compute,
            output=output,
            overhead=PROCESS_BYTES,
        )
        return Prediction(host=host, host_peak=host.total + filtering)
    device = Parts(
        weights=shape.weights,
        kv_cache=cache,
        compute=compute,
        output=output,
        overhead=CONTEXT_BYTES + int(_SLACK * (compute + output)),
    )
    return Prediction(
        host=Parts(overhead=CUDA_PROCESS_BYTES),
        gpu=device,
        host_peak=CUDA_PROCESS_BYTES + STAGING_BYTES,
        gpu_peak=device.total + filtering,
    )


def _cache(shape: DiffusionShape, context_tokens: int) -> int:
    """Of one slot: what it holds, and in every layer room for one canvas behind that."""
    near = min(context_tokens, max(shape.window - 1, 0) + SLACK_TOKENS)
    return shape.cached * (context_tokens + shape.canvas) + shape.windowed * (near + shape.canvas)


def _compute(shape: DiffusionShape, context_tokens: int, sequences: int, *, gpu: bool) -> int:
    """Scratch of a step: of a piece of a prompt with its masks, or of all canvases."""
    width = shape.element_bytes
    # Programs that share the keys of a long slot leave sums of float32: fewer bytes than the rows
    # of the experts, which are not there at that time.
    of_row = (
        shape.hidden * _SCRATCH_BYTES_PER_ELEMENT
        + (shape.routed + _QUERY_COPIES * shape.attention) * width
    )
    piece = min(PREFILL_TOKENS, context_tokens)
    masks = _MASK_BYTES * min(MASK_ELEMENTS, piece * context_tokens)
    step = max(piece * of_row + masks, shape.canvas * sequences * of_row)
    if gpu or not shape.packed:
        return step
    return step + min(REFERENCE_BYTES, shape.expert * UNPACKED_BYTES)


def _output(shape: DiffusionShape) -> int:
    """Logits of one canvas, and what the head makes of a slice of the vocabulary."""
    slice_ = min(SLICE_TOKENS, shape.vocabulary)
    of_element = _SLICE_ARRAYS * _F32_BYTES + shape.element_bytes
    return (
        shape.canvas * (shape.vocabulary * _F32_BYTES + slice_ * of_element)
        + FEW_ROWS * slice_ * _DRAWN_BYTES
    )
