"""Names of stored tensors, and where in the decoder each belongs.

The decoder's names are those of transformers' ``DiffusionGemmaDecoderModel`` behind
``model.decoder.``; the encoder shares all of them but one scalar for each layer. Experts come in
three forms: fused, as transformers saves them; one by one; and one by one in NVFP4, under the names
of either layout in `quantization`. Any other linear layer may be in NVFP4 too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.worker.diffusion.compute.nvfp4 import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.worker.diffusion.checkpoint.quantization import Layout

DECODER: Final = "model.decoder."
ENCODER_SCALARS: Final = "encoder"
"""Owner of the encoder's own numbers; no module is called so."""

FLOATS: Final = frozenset({"BF16", "F16", "F32"})
_CODES: Final = frozenset({"U8"})
_SCALES: Final = frozenset({"F8_E4M3"})
_GLOBAL: Final = frozenset({"F32"})

_SKIPPED: Final = (
    "model.encoder.vision_tower.",
    "model.encoder.embed_vision.",
    # The table of the embedding again; `config` has seen that it is tied.
    "lm_head.weight",
)
_OF_ACTIVATIONS: Final = frozenset(
    {"input_scale", "input_global_scale", "output_scale", "q_scale", "k_scale", "v_scale"}
)
"""Activations and the cache stay in the type that is computed in; these have no use here."""

_EXPERT_OF: Final = re.compile(r"(layers\.[0-9]+\.experts)\.")
_SUFFIXES: Final[dict[str, tuple[str, str, str]]] = {
    "modelopt": ("weight", "weight_scale", "weight_scale_2"),
    "compressed-tensors": ("weight_packed", "weight_scale", "weight_global_scale"),
}
"""Names of codes, scales and global scale."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that one stored tensor fills.

    Attributes:
        owner: Path of the module in the decoder; empty for the decoder itself.
        field: Its parameter or buffer.
        expert: Which one along the first dimension; None for no such dimension.
        part: Which of `parts` equal parts along the next dimension.
        parts: 1 if the tensor fills all of it.

    """

    owner: str
    field: str
    expert: int | None = None
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tensor that a checkpoint has to have.

    Attributes:
        name: In the file.
        shape: Empty for a single number, which may also have the shape (1,).
        dtypes: Any of them.
        slot: Where it goes.
        inverse: Whether the reciprocal of what the module holds is stored.

    """

    name: str
    shape: tuple[int, ...]
    dtypes: frozenset[str]
    slot: Slot
    inverse: bool = False

    @property
    def is_factor(self) -> bool:
        """Whether it is a global scale, a single number."""
        return self.dtypes is _GLOBAL


def is_skipped(name: str) -> bool:
    """Whether a tensor is left in the file: of images, of activations, or there twice."""
    return name.startswith(_SKIPPED) or name.rpartition(".")[2] in _OF_ACTIVATIONS


def group_of(name: str) -> str:
    """Path of the module in the decoder whose form a tensor's name tells something about.

    All experts of a layer are one group. Empty for names that are not the decoder's.
    """
    if not name.startswith(DECODER):
        return ""
    path = name.removeprefix(DECODER)
    experts = _EXPERT_OF.match(path)
    return experts[1] if experts else path.rpartition(".")[0]


def plain(path: str, shape: tuple[int, ...]) -> Wanted:
    """A parameter as it is.

    Args:
        path: In the decoder.
        shape: As in the decoder.

    """
    owner, _, field = path.rpartition(".")
    return Wanted(DECODER + path, shape, FLOATS, Slot(owner, field))


def encoder_scalar(layer: int) -> Wanted:
    """The number by which the encoder's pass through a layer differs from the decoder's."""
    name = f"model.encoder.language_model.layers.{layer}.layer_scalar"
    return Wanted(name, (), FLOATS, Slot(ENCODER_SCALARS, "layer_scalar", expert=layer))


def packed_linear(owner: str, shape: tuple[int, int], layout: Layout) -> list[Wanted]:
    """The tensors of a linear layer in NVFP4; `compute.PackedLinear` takes them.

    Args:
        owner: Path of the layer in the decoder.
        shape: Rows and columns of its weight.
        layout: How they are called.

    """
    fields = ("weight_packed", "weight_scale", "global_scale")
    slots = [Slot(owner, field) for field in fields]
    return list(_packed(owner, shape, layout, slots))


def fused_experts(owner: str, experts: int, hidden: int, inner: int) -> list[Wanted]:
    """The experts of a layer as transformers saves them.

    Args:
        owner: Path of the experts in the decoder.
        experts: How many.
        hidden: Of the residual stream.
        inner: Of an expert.

    """
    return [
        plain(f"{owner}.gate_up_proj", (experts, 2 * inner, hidden)),
        plain(f"{owner}.down_proj", (experts, hidden, inner)),
    ]


def single_experts(owner: str, experts: int, hidden: int, inner: int) -> list[Wanted]:
    """As `fused_experts`, stored one by one."""
    return [
        Wanted(
            f"{DECODER}{owner}.{expert}.{projection}.weight",
            shape,
            FLOATS,
            Slot(owner, f"{stem}_proj", expert, part, parts),
        )
        for expert in range(experts)
        for projection, stem, part, parts, shape in _projections(hidden, inner)
    ]


def packed_experts(
    owner: str, experts: int, hidden: int, inner: int, layout: Layout
) -> list[Wanted]:
    """As `single_experts`, in NVFP4; `compute.PackedExperts` takes them."""
    wanted: list[Wanted] = []
    for expert in range(experts):
        for projection, stem, part, parts, shape in _projections(hidden, inner):
            slots = [
                Slot(owner, f"{stem}_{kind}", expert, part, parts)
                for kind in ("packed", "scale", "global")
            ]
            wanted += _packed(f"{owner}.{expert}.{projection}", shape, layout, slots)
    return wanted


def _projections(hidden: int, inner: int) -> tuple[tuple[str, str, int, int, tuple[int, int]], ...]:
    """Name, field's stem, which part of the field, of how many, and shape."""
    return (
        ("gate_proj", "gate_up", 0, 2, (inner, hidden)),
        ("up_proj", "gate_up", 1, 2, (inner, hidden)),
        ("down_proj", "down", 0, 1, (hidden, inner)),
    )


def _packed(
    path: str, shape: tuple[int, int], layout: Layout, slots: list[Slot]
) -> Iterator[Wanted]:
    rows, columns = shape
    codes, scales, scale = (f"{DECODER}{path}.{suffix}" for suffix in _SUFFIXES[layout])
    yield Wanted(codes, (rows, columns // 2), _CODES, slots[0])
    yield Wanted(scales, (rows, columns // BLOCK), _SCALES, slots[1])
    yield Wanted(scale, (), _GLOBAL, slots[2], inverse=layout == "compressed-tensors")
