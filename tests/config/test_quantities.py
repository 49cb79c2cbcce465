"""Durations, sizes and budgets as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.quantities import (
    Budget,
    format_bytes,
    format_duration,
    parse_budget,
    parse_bytes,
    parse_duration,
)


@pytest.mark.parametrize(
    "text, seconds",
    [("500ms", 0.5), ("5s", 5), ("30m", 1800), ("1.5h", 5400), (" 2 D ", 172800), ("0s", 0)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    """Each unit means what it says; blanks and case do not matter."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "5 parsecs", "5s5s", "1e3s", "٣s", "infs", "nans", "4000d"]
)
def test_other_texts_are_no_durations(text: str) -> None:
    """A missing or unknown unit, a sign or an endless time is refused, not guessed at."""
    with pytest.raises(ValueError, match=r".+"):
        parse_duration(text)


@given(st.floats(min_value=0, max_value=10 * 365 * 86400))
def test_a_written_duration_reads_back(seconds: float) -> None:
    """Writing and reading a duration loses at most a nanosecond."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    "text, size",
    [
        ("1B", 1),
        ("1KiB", 1024),
        ("32MiB", 32 * 1024**2),
        ("1.5 GiB", 3 * 1024**3 // 2),
        ("8gb", 8 * 10**9),
        ("1TiB", 1024**4),
    ],
)
def test_sizes_have_units(text: str, size: int) -> None:
    """The i makes it a power of 1024; without it the power is of 1000."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "8", "8G", "-1B", "1.5B", "2048TiB", "1e3B", "50%"])
def test_other_texts_are_no_sizes(text: str) -> None:
    """A missing or ambiguous unit, half a byte and more than 1 PiB are refused."""
    with pytest.raises(ValueError, match=r".+"):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=1024**5))
def test_a_written_size_reads_back(size: int) -> None:
    """Writing and reading a size loses nothing."""
    assert parse_bytes(format_bytes(size)) == size


@given(st.integers(min_value=0, max_value=2**50), st.floats(min_value=0.001, max_value=100))
def test_a_budget_never_exceeds_its_memory(total: int, percent: float) -> None:
    """Neither a share nor an absolute size yields more than there is."""
    assert 0 <= Budget(percent=percent).of(total) <= total
    assert Budget(absolute_bytes=2**49).of(total) == min(2**49, total)


def test_a_budget_is_a_share_or_a_size() -> None:
    """Both forms are read and written back as they were."""
    assert parse_budget("50%").of(1000) == 500
    assert parse_budget("12.5 %").of(1000) == 125
    assert parse_budget("8GiB").of(2**40) == 8 * 1024**3
    assert [str(parse_budget(text)) for text in ("50%", "8GiB")] == ["50%", "8GiB"]


@pytest.mark.parametrize("text", ["0%", "0GiB", "101%", "50", "half"])
def test_other_texts_are_no_budgets(text: str) -> None:
    """Nothing, more than everything and bare numbers are refused."""
    with pytest.raises(ValueError, match=r".+"):
        parse_budget(text)
