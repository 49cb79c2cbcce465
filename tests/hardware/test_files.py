"""Small files of the kernel, as odd as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.hardware.files import pairs_of, whole
from gemd.hardware.kfd import nodes
from tests.support.sysfs import machine

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_without_a_pair_are_passed_over() -> None:
    """Empty ones too, whatever separates."""
    assert list(pairs_of("\nname\n \nsimd_count 192\n")) == [("simd_count", "192")]
    assert list(pairs_of("\nname\n \na = b = c\n", "=")) == [("a", "b = c")]


@pytest.mark.parametrize(
    "text, number",
    [
        (" 7\n", 7),
        ("9223372036854771712", 9223372036854771712),
        ("9" * 30, None),
        ("9" * 5000, None),
        ("-1", None),
        ("٣", None),
        ("", None),
    ],
)
def test_a_number_is_one_that_a_kernel_counts_to(text: str, number: int | None) -> None:
    """A larger one fits into no message, and would cost the whole reading."""
    assert whole(text) == number


def test_an_empty_line_costs_no_reading(tmp_path: Path) -> None:
    """A sensor that fails over one is blind for the whole machine."""
    root = machine("rx-7900-xtx", tmp_path)
    before = nodes(root)
    for file in root.glob("sys/class/kfd/kfd/topology/nodes/*/properties"):
        file.write_text("\n" + file.read_text())
    assert nodes(root) == before
    assert before
