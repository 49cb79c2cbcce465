"""Which tensors an NVFP4 checkpoint of DiffusionGemma has, and what each is made of. Pure.

The layout is compressed-tensors' ``nvfp4-pack-quantized``, weights only: activations stay in bf16,
for which no calibration is needed, so there are no scales of inputs. Experts are stored one by one
under ``…experts.E.{gate,up,down}_proj``; gate and up of an expert, and of a dense layer, share the
global scale, because vLLM multiplies with both as one matrix. That scale is stored as its
reciprocal, shape (1,). Everything else is in bf16, under the names that it has in the source.

Sources: compressed-tensors' format and configuration; the published checkpoint of that layout; what
vLLM's loaders for it register (``w13_weight_packed`` and its like).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError
from gemd.footprint.safetensors import BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader

BLOCK: Final = 16
"""Weights along a row that share a scale."""
PER_BYTE: Final = 2
FLOATS: Final = frozenset({"BF16", "F16", "F32"})

_LAYER: Final = r"(model\.decoder\.layers\.[0-9]+)\."
_FUSED: Final = re.compile(_LAYER + r"experts\.(gate_up|down)_proj")
_SINGLE: Final = re.compile(_LAYER + r"(experts\.[0-9]+|mlp)\.(gate|up|down)_proj\.weight")
_DENSE: Final = "mlp"
_MATRICES: Final = 3
"""Of an expert."""
_DIMENSIONS: Final = 2
"""Of a matrix."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the experts, as config.json has them.

    Attributes:
        layers: How many.
        experts: In each.
        hidden: Width of the residual stream.
        inner: Width within an expert.

    """

    layers: int
    experts: int
    hidden: int
    inner: int

    @classmethod
    def of(cls, architecture: Mapping[str, object]) -> Sizes:
        """By what `gemd.footprint.diffusion_config.architecture_of` has read."""
        layers, experts, hidden, inner = (
            int(str(architecture[key]))
            for key in (
                "block_count",
                "expert_count",
                "embedding_length",
                "expert_feed_forward_length",
            )
        )
        return cls(layers, experts, hidden, inner)


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a tensor of the source, or all of it.

    Attributes:
        file: Name of the file.
        tensor: Name of the whole tensor.
        dtype: safetensors' name of the element type.
        shape: Of the part.
        offset: Bytes from the beginning of the file.

    """

    file: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Of the part."""
        return prod(self.shape) * BITS[self.dtype] // 8

    def rows(self, start: int, count: int) -> Part:
        """Of a matrix, so many rows."""
        width = self.shape[1] * BITS[self.dtype] // 8
        shape = (count, self.shape[1])
        return Part(self.file, self.tensor, self.dtype, shape, self.offset + start * width)


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor of the result."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """As it is stored."""
        return prod(self.shape) * BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class Copy:
    """A tensor that stays as it is; floats of another type become bf16."""

    part: Part

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is read."""
        return (self.part,)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What is written."""
        part = self.part
        dtype = "BF16" if part.dtype in FLOATS else part.dtype
        return (Output(part.tensor, dtype, part.shape),)


@dataclass(frozen=True, slots=True)
class Pack:
    """Matrices that are packed with one factor.

    Attributes:
        paths: Of the linear layers that they are the weights of.
        parts: The matrices, in the same order.

    """

    paths: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Codes, scales and global scale of each in turn."""
        found: list[Output] = []
        for path, part in zip(self.paths, self.parts, strict=True):
            rows, columns = part.shape
            found += [
                Output(f"{path}.weight_packed", "U8", (rows, columns // PER_BYTE)),
                Output(f"{path}.weight_scale", "F8_E4M3", (rows, columns // BLOCK)),
                Output(f"{path}.weight_global_scale", "F32", (1,)),
            ]
        return tuple(found)


Job = Copy | Pack


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        jobs: In the order of the source.
        fallbacks: Paths of dense layers that stay in bf16 because their width is no multiple of 16.

    """

    jobs: tuple[Job, ...]
    fallbacks: tuple[str, ...]


def plan(files: Mapping[str, SafetensorsHeader], sizes: Sizes, *, dense: bool) -> Plan:
    """What a checkpoint becomes.

    Args:
        files: Headers of all files of the source by their names, in order.
        sizes: Of its experts.
        dense: Whether dense feed-forward layers are packed, and not only experts.

    Raises:
        BadModelFileError: Experts are missing, or of another shape or type than they have to be.

    """
    planner = _Planner(sizes, dense=dense)
    jobs = [
        job
        for file, header in files.items()
        for tensor in header.tensors
        for job in planner.jobs(_whole(file, header, tensor))
    ]
    planner.finish()
    return Plan(tuple(jobs), tuple(planner.fallbacks))


def _whole(file: str, header: SafetensorsHeader, tensor: SafeTensor) -> Part:
    at = header.data_offset + tensor.begin
    return Part(file, tensor.name, tensor.dtype, tensor.shape, at)


class _Planner:
    def __init__(self, sizes: Sizes, *, dense: bool) -> None:
        self._sizes = sizes
        self._dense = dense
        self._halves: dict[str, tuple[str, Part]] = {}
        self._found: defaultdict[str, int] = defaultdict(int)
        self.fallbacks: list[str] = []

    def jobs(self, part: Part) -> Iterator[Job]:
        """What there is to do as soon as this tensor can be read."""
        fused, single = _FUSED.fullmatch(part.tensor), _SINGLE.fullmatch(part.tensor)
        if fused is not None:
            yield from self._fused(part, fused[1], fused[2])
        elif single is not None and self._is_packed(part, single[2]):
            yield from self._single(part, f"{single[1]}.{single[2]}", single[3])
        else:
            yield Copy(part)

    def _is_packed(self, part: Part, block: str) -> bool:
        if block != _DENSE:
            return True
        if not self._dense:
            return False
        if len(part.shape) == _DIMENSIONS and part.shape[1] % BLOCK == 0 and part.dtype in FLOATS:
            return True
        self.fallbacks.append(part.tensor.removesuffix(".weight"))
        return False

    def _fused(self, part: Part, layer: str, kind: str) -> Iterator[Pack]:
        """The experts of a layer as one tensor; rows of gate before those of up."""
        experts, hidden, inner = self._sizes.experts, self._sizes.hidden, self._sizes.inner
        both = kind == "gate_up"
        rows, columns = (2 * inner, hidden) if both else (hidden, inner)
        self._check(part, (experts, rows, columns))
        for expert in range(experts):
            path = f"{layer}.experts.{expert}"
            flat = Part(part.file, part.tensor, part.dtype, (experts * rows, columns), part.offset)
            matrix = flat.rows(expert * rows, rows)
            self._found[layer] += 2 if both else 1
            if both:
                paths = (f"{path}.gate_proj", f"{path}.up_proj")
                yield Pack(paths, (matrix.rows(0, inner), matrix.rows(inner, inner)))
            else:
                yield Pack((f"{path}.down_proj",), (matrix,))

    def _single(self, part: Part, path: str, kind: str) -> Iterator[Pack]:
        """One linear layer; gate and up wait for each other."""
        layer, block = path.split(".experts.", maxsplit=1)[0], path.rpartition(".")[2]
        if block != _DENSE:
            hidden, inner = self._sizes.hidden, self._sizes.inner
            self._check(part, (hidden, inner) if kind == "down" else (inner, hidden))
            self._found[layer] += 1
        if kind == "down":
            yield Pack((f"{path}.down_proj",), (part,))
        elif path not in self._halves:
            self._halves[path] = (kind, part)
        else:
            pair = dict([self._halves.pop(path), (kind, part)])
            yield Pack((f"{path}.gate_proj", f"{path}.up_proj"), (pair["gate"], pair["up"]))

    def _check(self, part: Part, shape: tuple[int, ...]) -> None:
        if part.shape != shape or part.dtype not in FLOATS or shape[-1] % BLOCK:
            raise _odd(
                part.tensor,
                f"it is {part.dtype} of shape {list(part.shape)}",
                f"by config.json it has to be bf16, f16 or f32 of shape {list(shape)}, and rows a "
                f"multiple of {BLOCK} long",
            )

    def finish(self) -> None:
        """See that nothing is missing."""
        for path, (kind, part) in self._halves.items():
            other = "up" if kind == "gate" else "gate"
            raise _odd(f"{path}.{other}_proj.weight", "it is missing", f"{part.tensor} is there")
        wanted = self._sizes.experts * _MATRICES
        for number in range(self._sizes.layers):
            layer = f"model.decoder.layers.{number}"
            if self._found[layer] != wanted:
                raise _odd(
                    f"{layer}.experts",
                    f"{self._found[layer]} of {wanted} matrices are there",
                    "config.json names so many layers and experts",
                )
        if len(self._found) != self._sizes.layers:
            raise _odd(
                "model.decoder.layers",
                f"{len(self._found)} layers have experts",
                f"config.json names {self._sizes.layers}",
            )


def _odd(name: str, what: str, why: str) -> BadModelFileError:
    return BadModelFileError(
        f"{name} cannot be quantized: {what}",
        why=why,
        advice=("gemctl list",),
        metadata={"tensor": name},
    )


def used_by(jobs: Iterable[Job]) -> dict[str, int]:
    """How many jobs read each file of the source."""
    counts: defaultdict[str, int] = defaultdict(int)
    for job in jobs:
        for file in files_of(job):
            counts[file] += 1
    return dict(counts)


def files_of(job: Job) -> Sequence[str]:
    """Files of the source that a job reads, each once."""
    return tuple(dict.fromkeys(part.file for part in job.parts))
