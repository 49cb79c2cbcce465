"""Tables of what was measured, for the terminal and for `RESULTS.md`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.rounds import Samples

RESULTS: Final = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True)
class Check:
    """A figure and the bound that the project has set itself."""

    claim: str
    value: float
    bound: float
    at_least: bool
    unit: str = ""
    digits: int = 3

    @property
    def holds(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def line(self) -> str:
        """As a row: claim, figure, bound, verdict."""
        sign = "≥" if self.at_least else "≤"
        value = f"{self.value:.{self.digits}f}{self.unit}"
        verdict = "holds" if self.holds else "**does not hold**"
        return f"| {self.claim} | {value} | {sign} {self.bound:g}{self.unit} | {verdict} |"


@dataclass
class Section:
    """One measurement: how, the figures, the bounds."""

    title: str
    how: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def text(self) -> str:
        """As Markdown."""
        lines = [f"## {self.title}", "", self.how, "", *_table(self.head, self.rows)]
        if self.checks:
            lines += ["", "| claim | measured | bound | |", "|---|---|---|---|"]
            lines += [check.line() for check in self.checks]
        return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def spread(samples: Samples, *, digits: int = 1, scale: float = 1.0) -> tuple[str, str]:
    """Median, and smallest to largest, as two cells."""
    return (
        f"{samples.median * scale:.{digits}f}",
        f"{samples.low * scale:.{digits}f} – {samples.high * scale:.{digits}f}",
    )


def missing(name: str, why: str, columns: int) -> tuple[str, ...]:
    """The row of a contender that could not take part."""
    return (name, f"not measured: {why}", *("",) * (columns - 2))


def document(preface: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole file."""
    lines = [
        "# Measurements",
        "",
        "Written by `python -m tests.bench`; do not edit. Medians, and smallest to largest.",
        "",
        *(f"- {line}" for line in preface),
        "",
    ]
    return "\n".join(lines) + "\n" + "\n".join(section.text() for section in sections)


def rewritten(text: str, preface: Sequence[str], sections: Sequence[Section]) -> str:
    """The file with a new preface and these sections; those of other programs stay, at its end.

    Args:
        text: The file as it is; may be empty.
        preface: Lines about the machine.
        sections: In the order in which they are to stand.

    """
    ours = {section.title for section in sections}
    others = [
        f"## {each.rstrip()}\n"
        for each in text.split("\n## ")[1:]
        if each.partition("\n")[0] not in ours
    ]
    return "\n".join([document(preface, sections), *others])


def with_section(text: str, section: Section) -> str:
    """The file with a section in the place of the one of its title, or at its end."""
    before, found, rest = text.partition(f"## {section.title}\n")
    if not found:
        return f"{text.rstrip()}\n\n{section.text()}"
    _, following, after = rest.partition("\n## ")
    tail = f"\n## {after}" if following else ""
    return f"{before}{section.text()}{tail}"


def record(sections: Sequence[Section], path: Path = RESULTS) -> None:
    """Put sections into the file, each in the place of the one of its title."""
    text = path.read_text(encoding="utf-8")
    for section in sections:
        text = with_section(text, section)
    path.write_text(text, encoding="utf-8")
