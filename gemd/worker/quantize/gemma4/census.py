"""Whether a checkpoint has every tensor of its text model, once, in the right shape and type.

Each of its tensors is mapped, known to be left out, or an error: what nobody has a place for may
be what makes another model of it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

from gemd.errors import BadModelFileError
from gemd.worker.quantize.gemma4.names import left_out, plain_name, wanted_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader
    from gemd.worker.quantize.gemma4.config import TextModel
    from gemd.worker.quantize.gemma4.names import Wanted
    from gemd.worker.quantize.source import SourceKind

_KINDS: Final = ("BF16", "F16", "F32")
_SHOWN: Final = 3
"""Problems that an error spells out."""
_NAME_SHOWN: Final = 120

ProblemKind = Literal["missing", "duplicated", "misshapen", "mistyped", "unknown"]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of the checkpoint that goes into the GGUF file.

    Attributes:
        name: In the GGUF file.
        shape: There, slowest-varying dimension first.
        kind: There, if it is not quantized.
        stored: Element type in the checkpoint.
        file: It is in.
        offset: Of its first byte, from the start of that file.

    """

    name: str
    shape: tuple[int, ...]
    kind: SourceKind
    stored: SourceKind
    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One tensor that is not as it has to be."""

    kind: ProblemKind
    name: str
    text: str
    """What was expected, or found."""

    def __str__(self) -> str:
        return f"{self.name[:_NAME_SHOWN]} is {self.kind} ({self.text})"


@dataclass(frozen=True, slots=True)
class Census:
    """What was found.

    Attributes:
        stored: In the order of the files and their data.
        left_out: Bytes that do not go into the GGUF file, by the part of the model.
        problems: Everything that speaks against it; none for a usable checkpoint.

    """

    stored: tuple[Stored, ...]
    left_out: dict[str, int]
    problems: tuple[Problem, ...]


def take_census(headers: Mapping[str, SafetensorsHeader], model: TextModel, tokens: int) -> Census:
    """Compare what is stored with what the model is made of.

    Args:
        headers: Of all files, by their names.
        model: By its configuration.
        tokens: Of the tokenizer. Rows of the tables beyond it are padding, and llama.cpp wants
            none.

    """
    wanted = wanted_tensors(model)
    stored: dict[str, Stored] = {}
    outside: Counter[str] = Counter()
    problems: list[Problem] = []
    for file, header in headers.items():
        for tensor in header.tensors:
            part = left_out(tensor.name, model)
            if part is not None:
                outside[part] += tensor.nbytes
                continue
            name = plain_name(tensor.name)
            if name not in wanted:
                found = f"{tensor.dtype} of shape {list(tensor.shape)}, and nowhere to go"
                problems.append(Problem("unknown", tensor.name, found))
            elif name in stored:
                problems.append(Problem("duplicated", tensor.name, f"again in {file}"))
            else:
                problems.extend(_differences(tensor, wanted[name]))
                stored[name] = _placed(tensor, wanted[name], file, header.data_offset, tokens)
    problems.extend(_missing(wanted, stored))
    problems.extend(_padding(wanted, stored, tokens))
    return Census(tuple(stored.values()), dict(outside), tuple(problems))


def refuse(directory: Path, problems: Sequence[Problem]) -> BadModelFileError:
    """The error to raise about a checkpoint with problems."""
    counts = Counter(problem.kind for problem in problems)
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return BadModelFileError(
        f"the checkpoint in {directory} is not the Gemma 4 that its config.json describes: {said}",
        why="; ".join(str(problem) for problem in problems[:_SHOWN]),
        advice=(f"ls -lL {shlex.quote(str(directory))}", "gemctl list"),
        metadata={
            "path": directory,
            "tensor": problems[0].name[:_NAME_SHOWN],
            "problems": len(problems),
            **{str(kind): count for kind, count in counts.items()},
        },
    )


def _differences(tensor: SafeTensor, wanted: Wanted) -> Iterator[Problem]:
    if tensor.shape != wanted.shape:
        text = f"{list(tensor.shape)} instead of {list(wanted.shape)}"
        yield Problem("misshapen", tensor.name, text)
    if tensor.dtype not in _KINDS:
        yield Problem("mistyped", tensor.name, f"{tensor.dtype} instead of {', '.join(_KINDS)}")


def _placed(tensor: SafeTensor, wanted: Wanted, file: str, data_offset: int, tokens: int) -> Stored:
    shape = (tokens, *wanted.shape[1:]) if wanted.tokens else wanted.shape
    stored = cast("SourceKind", tensor.dtype)
    return Stored(
        name=wanted.name,
        shape=shape,
        kind="F32" if wanted.single else stored,
        stored=stored,
        file=file,
        offset=data_offset + tensor.begin,
    )


def _missing(wanted: Mapping[str, Wanted], stored: Mapping[str, Stored]) -> Iterator[Problem]:
    for name, tensor in wanted.items():
        if name not in stored and not tensor.optional:
            yield Problem("missing", name, f"of shape {list(tensor.shape)}")


def _padding(
    wanted: Mapping[str, Wanted], stored: Mapping[str, Stored], tokens: int
) -> Iterator[Problem]:
    for name, tensor in wanted.items():
        if name in stored and tensor.tokens and tensor.shape[0] < tokens:
            text = f"{tensor.shape[0]} rows for {tokens} tokens"
            yield Problem("misshapen", name, text)
