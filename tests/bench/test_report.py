"""`RESULTS.md` is written by several programs, and none of them drops what another one wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import machine
from tests.bench.report import RESULTS, Section, record, rewritten, with_section

if TYPE_CHECKING:
    from pathlib import Path


def section(title: str, figure: str) -> Section:
    """With one row."""
    return Section(title=title, how="Measured.", head=("what", "s"), rows=[("it", figure)])


def titles(text: str) -> list[str]:
    """Of the sections, in order."""
    return [line for line in text.splitlines() if line.startswith("## ")]


def test_sections_of_other_programs_stay() -> None:
    """Behind those that were measured, which are replaced."""
    known = rewritten("", ["a machine"], [section("One", "1"), section("Two", "2")])
    known = with_section(known, section("Other", "3"))
    anew = rewritten(known, ["another machine"], [section("Two", "4"), section("One", "5")])
    assert titles(anew) == ["## Two", "## One", "## Other"]
    assert "| it | 3 |" in anew
    assert "another machine" in anew
    assert "| it | 1 |" not in anew
    assert rewritten(anew, ["another machine"], [section("Two", "4"), section("One", "5")]) == anew


def test_a_section_is_recorded_in_its_place(tmp_path: Path) -> None:
    """And behind the others if there was none of its title."""
    file = tmp_path / "results.md"
    file.write_text(rewritten("", [], [section("One", "1"), section("Two", "2")]), encoding="utf-8")
    record([section("One", "3"), section("Three", "4")], file)
    found = file.read_text(encoding="utf-8")
    assert titles(found) == ["## One", "## Two", "## Three"]
    assert [line for line in found.splitlines() if line.startswith("| it |")] == [
        "| it | 3 |",
        "| it | 2 |",
        "| it | 4 |",
    ]


def test_the_real_file_keeps_all_its_sections() -> None:
    """With not a word changed in those that others wrote."""
    known = RESULTS.read_text(encoding="utf-8")
    anew = rewritten(known, ["a machine"], [section("One stream", "1")])
    assert sorted(titles(anew)) == sorted(titles(known))
    for part in known.split("\n## ")[1:]:
        if not part.startswith("One stream"):
            assert f"## {part.rstrip()}\n" in anew


def test_a_section_that_is_recorded_alone_says_of_which_run_it_is() -> None:
    """The head of the file is of another run, perhaps on another machine; nothing is said twice."""
    here, _, contenders = machine.describe(threads=2)
    alone = machine.signature("Measured.", threads=2)
    assert alone == f" Measured alone: {here}; {contenders}."
    assert here not in machine.signature(f"Measured on {here}.", threads=2)
