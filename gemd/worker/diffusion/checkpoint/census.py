"""Whether a checkpoint has every tensor of its model, once, in the right shape and type.

A tensor that is missing would be memory that nothing was ever written to, and a model that answers
nonsense without an error. So nothing is loaded before all headers have been compared with what the
decoder is made of.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from gemd.errors import BadModelFileError
from gemd.worker.diffusion.checkpoint import names
from gemd.worker.diffusion.compute.nvfp4 import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader
    from gemd.worker.diffusion.checkpoint.names import Wanted
    from gemd.worker.diffusion.checkpoint.quantization import Layout

Kind = Literal["missing", "duplicated", "misshapen", "mistyped", "unknown"]

_SHOWN: Final = 3
"""Problems that an error spells out."""
_NAME_SHOWN: Final = 120
_EXPERTS: Final = ".experts"
_GATE_UP: Final = "gate_up_proj"
_TABLE: Final = "embed_tokens.weight"
_MATRIX: Final = 2
_SINGLE: Final = ((), (1,))


@dataclass(frozen=True, slots=True)
class Problem:
    """One tensor that is not as it has to be."""

    kind: Kind
    name: str
    text: str
    """What was expected and what was found."""

    def __str__(self) -> str:
        return f"{self.name[:_NAME_SHOWN]} is {self.kind} ({self.text})"


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that will be read."""

    file: int
    """Index of its header."""
    tensor: SafeTensor
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Census:
    """What was found.

    Attributes:
        stored: What will be read, by file and place.
        packed: Paths of modules whose weights are NVFP4: linear layers, and experts of a layer.
        problems: Everything that speaks against it; none for a usable checkpoint.

    """

    stored: tuple[Stored, ...]
    packed: frozenset[str]
    problems: tuple[Problem, ...]

    @property
    def nbytes(self) -> int:
        """Of all tensors that will be read."""
        return sum(stored.tensor.nbytes for stored in self.stored)


def take_census(
    headers: Sequence[SafetensorsHeader],
    tree: Mapping[str, tuple[int, ...]],
    layout: Layout,
) -> Census:
    """Compare what is stored with what the decoder is made of.

    Args:
        headers: Of all files.
        tree: Shapes of the decoder's parameters and stored buffers, unpacked, by path.
        layout: Of the checkpoint.

    """
    found: dict[str, tuple[int, SafeTensor]] = {}
    problems: list[Problem] = []
    for number, header in enumerate(headers):
        for tensor in header.tensors:
            if names.is_skipped(tensor.name):
                continue
            if tensor.name in found:
                there = found[tensor.name][0]
                text = f"in files {there + 1} and {number + 1} of {len(headers)}"
                problems.append(Problem("duplicated", tensor.name, text))
            found.setdefault(tensor.name, (number, tensor))
    wanted, packed = _wanted(found, tree, layout)
    stored = []
    for item in wanted:
        if item.name not in found:
            problems.append(Problem("missing", item.name, _expected(item)))
            continue
        number, tensor = found.pop(item.name)
        problems += _differences(tensor, item)
        stored.append(Stored(number, tensor, item))
    problems += [
        Problem("unknown", name, f"{_described(tensor.dtype, tensor.shape)}, and nowhere to go")
        for name, (_, tensor) in found.items()
    ]
    stored.sort(key=lambda item: (item.file, item.tensor.begin))
    return Census(tuple(stored), packed, tuple(problems))


def check(census: Census, directory: Path) -> None:
    """See that nothing speaks against a checkpoint.

    Raises:
        BadModelFileError: Something does; its metadata counts the problems by their kind.

    """
    if not census.problems:
        return
    counts = Counter(problem.kind for problem in census.problems)
    # One of each kind before a second of any: a tensor that is unknown may be one that is missing.
    firsts = {problem.kind: problem for problem in reversed(census.problems)}
    shown = sorted(census.problems, key=lambda problem: firsts[problem.kind] is not problem)[
        :_SHOWN
    ]
    more = len(census.problems) - len(shown)
    raise BadModelFileError(
        f"{directory} does not hold the tensors of its model: "
        + ", ".join(f"{count} {kind}" for kind, count in counts.items()),
        why="; ".join(str(problem) for problem in shown)
        + (f"; and {more} more" if more > 0 else ""),
        advice=("gemctl list",),
        metadata={
            "path": directory,
            "tensor": shown[0].name[:_NAME_SHOWN],
            **{str(kind): count for kind, count in counts.items()},
        },
    )


@dataclass(frozen=True, slots=True)
class _Form:
    """One of the ways in which the weights of a module can be stored."""

    wanted: list[Wanted]
    packed: bool = False

    def differences(self, found: set[str]) -> int:
        """Names that only one of the two has."""
        return len(found.symmetric_difference(item.name for item in self.wanted))


def _wanted(
    found: Iterable[str], tree: Mapping[str, tuple[int, ...]], layout: Layout
) -> tuple[list[Wanted], frozenset[str]]:
    """What a checkpoint with these names should have, and which modules it has packed."""
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for name in found:
        groups[names.group_of(name)].add(name)
    wanted: list[Wanted] = []
    packed: set[str] = set()
    layers = 0
    for path, shape in tree.items():
        owner, _, field = path.rpartition(".")
        layers += field == "layer_scalar"
        form = _likeliest(_forms(path, shape, layout), groups[owner])
        wanted += form.wanted
        if form.packed:
            packed.add(owner)
    wanted += [names.encoder_scalar(layer) for layer in range(layers)]
    return wanted, frozenset(packed)


def _forms(path: str, shape: tuple[int, ...], layout: Layout) -> list[_Form]:
    """How a parameter may be stored, the most usual form first."""
    owner, _, field = path.rpartition(".")
    if owner.endswith(_EXPERTS):
        return _expert_forms(owner, shape, layout) if field == _GATE_UP else [_Form([])]
    forms = [_Form([names.plain(path, shape)])]
    if layout != "plain" and field == "weight" and len(shape) == _MATRIX and path != _TABLE:
        rows, columns = shape
        if columns % BLOCK == 0:
            forms.append(_Form(names.packed_linear(owner, (rows, columns), layout), packed=True))
    return forms


def _expert_forms(owner: str, shape: tuple[int, ...], layout: Layout) -> list[_Form]:
    """All of a layer's experts, by the shape of the fused gate and up."""
    experts, rows, hidden = shape
    sizes = (owner, experts, hidden, rows // 2)
    forms = [_Form(names.fused_experts(*sizes)), _Form(names.single_experts(*sizes))]
    if layout != "plain" and hidden % BLOCK == 0 and (rows // 2) % BLOCK == 0:
        forms.insert(0, _Form(names.packed_experts(*sizes, layout), packed=True))
    return forms


def _likeliest(forms: list[_Form], found: set[str]) -> _Form:
    """The form that explains most; of two that explain as much, the packed one.

    So one tensor too few or too many does not make a whole layer look like another form.
    """
    if len(forms) == 1 or not found:
        return forms[0]
    return min(forms, key=lambda form: (form.differences(found), not form.packed))


def _differences(tensor: SafeTensor, wanted: Wanted) -> Iterable[Problem]:
    if not _same_shape(tensor.shape, wanted.shape):
        text = f"expected {_expected(wanted)}, found {_described(tensor.dtype, tensor.shape)}"
        yield Problem("misshapen", tensor.name, text)
    elif tensor.dtype not in wanted.dtypes:
        text = f"expected {_expected(wanted)}, found {_described(tensor.dtype, tensor.shape)}"
        yield Problem("mistyped", tensor.name, text)


def _same_shape(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether they are equal; a single number may have one dimension or none."""
    return found == wanted or (found in _SINGLE and wanted in _SINGLE)


def _expected(wanted: Wanted) -> str:
    return _described(" or ".join(sorted(wanted.dtypes)), wanted.shape)


def _described(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} of shape {list(shape)}"
