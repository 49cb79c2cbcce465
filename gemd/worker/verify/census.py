"""Whether a file has the tensors that it should have: names, shapes, types. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as one side has it.

    Attributes:
        name: In the file.
        shape: In the order of the format; both sides have the same one.
        kind: Element type; empty where that side does not decide it.

    """

    name: str
    shape: tuple[int, ...]
    kind: str = ""


def differences(found: Iterable[Entry], wanted: Iterable[Entry]) -> list[str]:
    """What speaks against it, in words; empty if nothing does.

    Args:
        found: In the file.
        wanted: What the plan or the source has.

    """
    there = {entry.name: entry for entry in found}
    problems = []
    names = set()
    for entry in wanted:
        names.add(entry.name)
        if entry.name not in there:
            problems.append(f"{entry.name} is missing")
            continue
        problems += _unlike(there[entry.name], entry)
    problems += [f"{name} is in the way: nothing has it" for name in there if name not in names]
    return problems


def _unlike(found: Entry, wanted: Entry) -> Iterable[str]:
    if _squeezed(found.shape) != _squeezed(wanted.shape):
        yield f"{found.name} has the shape {list(found.shape)}, not {list(wanted.shape)}"
    if wanted.kind and found.kind != wanted.kind:
        yield f"{found.name} is {found.kind}, not {wanted.kind}"


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without dimensions of one at the slow end, which GGUF may write or not."""
    count = len(shape)
    while count > 1 and shape[count - 1] == 1:
        count -= 1
    return shape[:count]


def counted(entries: Iterable[Entry]) -> str:
    """How many tensors there are of each type, the most frequent one first."""
    return by_count(Counter(entry.kind for entry in entries))


def by_count(counts: Mapping[str, int]) -> str:
    """Such as ``192 Q4_K, 14 Q6_K``."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in ordered)


def number_of_files(count: int) -> str:
    """In words."""
    return "1 file" if count == 1 else f"{count} files"


def first_of(problems: list[str]) -> str:
    """The first ones, and how many more there are."""
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + more
