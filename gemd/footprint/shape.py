"""What a model's memory follows from: hyperparameters and weights, of a file or of a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.footprint.layers import layer_count, read_shape, shape_of, unusable
from gemd.footprint.weights import LayerWeights, Weights, weights_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gemd.footprint.gguf import GgufHeader, Scalar, Value
    from gemd.footprint.layers import Shape

GROUPS: Final = ("embedding", "per_layer_embedding", "experts", "output", "rest")
"""Into which a profile divides the bytes of a model's weights."""

_TIED_BELOW: Final = 8
"""An output matrix has the elements of the embedding, in a type of nearly its size. An output
that takes less than this part of it is a norm, and the matrix is the embedding."""


@dataclass(frozen=True, slots=True)
class GgufShape:
    """A GGUF model as far as it decides memory.

    Attributes:
        shape: Hyperparameters.
        weights: Bytes by group and layer.
        projector: Bytes of the file that turns images and sound into embeddings; 0 if it is not
            loaded.

    """

    shape: Shape
    weights: Weights
    projector: int = 0


def gguf_shape(header: GgufHeader, *, projector: int = 0) -> GgufShape:
    """The shape of the model that a file holds.

    Args:
        header: Of the model, with the tensors of all parts of a split one (`read_gguf_model`).
        projector: As in `GgufShape`.

    Raises:
        BadModelFileError: The header describes no language model.

    """
    return GgufShape(read_shape(header), weights_of(header), projector)


def profile_shape(
    architecture: Mapping[str, Scalar | str | Sequence[Scalar]],
    sizes: Mapping[str, int],
    *,
    projector: int = 0,
) -> GgufShape:
    """The same of a model whose file nobody has yet.

    Bytes are spread evenly over the layers, which is what they are in: the layers of one model
    differ by a few per cent, and only a model that is placed in part on a GPU feels it.

    Args:
        architecture: Keys of a GGUF file without the name of the architecture in front, and
            that name as `name`.
        sizes: Bytes of the weights by group; see `GROUPS`. A group that is missing is empty.
        projector: As in `GgufShape`.

    Raises:
        BadModelFileError: A figure is missing or absurd.

    """
    metadata = metadata_of(architecture)
    unknown = sizes.keys() - set(GROUPS)
    if unknown:
        raise unusable("weights", f"{', '.join(sorted(unknown))}, and such a group is unknown")
    groups = {group: sizes.get(group, 0) for group in GROUPS}
    if min(groups.values()) < 0:
        raise unusable("weights", f"{min(groups.values())} bytes")
    count = layer_count(metadata)
    mixed = _mixed(architecture, count)
    dense = _spread(groups["rest"], count)
    experts = (0,) * (count - mixed) + _spread(groups["experts"], mixed)
    layers = tuple(LayerWeights(*layer) for layer in zip(dense, experts, strict=True))
    tied = groups["output"] * _TIED_BELOW < groups["embedding"]
    return GgufShape(
        shape_of(metadata),
        Weights(layers, groups["embedding"], groups["output"], groups["per_layer_embedding"], tied),
        projector,
    )


def metadata_of(architecture: Mapping[str, Scalar | str | Sequence[Scalar]]) -> dict[str, Value]:
    """A profile's architecture in the keys of a GGUF file.

    Raises:
        BadModelFileError: It has no name.

    """
    name = architecture.get("name")
    if not isinstance(name, str) or not name:
        raise unusable("name", name)
    metadata: dict[str, Value] = {"general.architecture": name}
    for key, value in architecture.items():
        plain = value if isinstance(value, bool | int | float | str) else tuple(value)
        metadata[f"{name}.{key}"] = plain
    return metadata


def _mixed(architecture: Mapping[str, object], count: int) -> int:
    """How many of the layers have experts: all but the first ones that are said to be dense."""
    leading = architecture.get("leading_dense_block_count", 0)
    if isinstance(leading, bool) or not isinstance(leading, int) or not 0 <= leading < count:
        raise unusable("leading_dense_block_count", leading)
    return count - leading


def _spread(total: int, count: int) -> tuple[int, ...]:
    """The total in nearly equal parts, to the byte."""
    part, rest = divmod(total, count)
    return tuple(part + (index < rest) for index in range(count))
