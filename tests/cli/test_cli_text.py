from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli import text
from gemd.quantities import human_bytes


@pytest.mark.parametrize(
    "count,shown",
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (98_000_000, "93.5 MiB"),
        (5.2 * 2**30, "5.2 GiB"),
        (700 * 2**30, "700 GiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_sizes_are_in_binary_units(count: float, shown: str) -> None:
    """Three figures at most, and the unit that fits."""
    assert human_bytes(count) == shown


@pytest.mark.parametrize(
    "seconds,shown",
    [
        (0.35, "350 ms"),
        (4.24, "4.2 s"),
        (42, "42 s"),
        (75, "1m 15s"),
        (3900, "1h 5m"),
        (100_000, "1d 3h"),
    ],
)
def test_times_have_two_units_at_most(seconds: float, shown: str) -> None:
    """The unit that fits, and the one below it."""
    assert text.format_seconds(seconds) == shown


KEPT = {
    # Joiners, the signs of numbers in Arabic and Syriac scripts, and marks of other scripts that
    # are seen: text that people read is wrong without.
    *("\u200c", "\u200d", "\u06dd", "\u070f", "\u08e2", "\u0890", "\u0891"),
    *map(chr, range(0x600, 0x606)),
    *map(chr, (0x110BD, 0x110CD, *range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4))),
}


def test_visible_text_cannot_steer_a_terminal() -> None:
    """Of all characters, none that controls, reorders, ends a line or is not seen."""
    everything = "".join(
        chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000
    )
    for char in set(text.visible(everything)) - KEPT:
        assert char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cf", "Zl", "Zp"}
        assert unicodedata.bidirectional(char) not in {"LRE", "RLE", "LRO", "RLO", "PDF"}
        assert unicodedata.bidirectional(char) not in {"LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize("char", "\u034f\u115f\u1160\u3164\uffa0\u00ad\u200b\ufeff\U000e0041")
def test_what_has_no_look_is_shown_by_its_number(char: str) -> None:
    """Fillers and joiners that no script needs: two names must not look the same through them."""
    assert text.visible(f"a{char}b") == f"a<{ord(char):04x}>b"


@given(st.text())
def test_what_stays_on_its_line_has_no_end_of_one(content: str) -> None:
    """Nor a tab, whose width nobody knows; all else is as in any visible text."""
    shown = text.in_line(content)
    assert "\n" not in shown
    assert "\t" not in shown
    assert len(shown.splitlines()) <= 1
    assert shown == text.visible(content).replace("\n", "␊").replace("\t", "␉")


@given(st.text())
def test_a_masked_text_is_as_long_as_it_was(content: str) -> None:
    """Its cursor stays where it is; what it may hide is seen, and the rest is itself."""
    shown = text.masked(content)
    assert len(shown) == len(content)
    for before, after in zip(content, shown, strict=True):
        assert after in {before, "\ufffd"}
    assert text.masked("a\u202eb\u200bc\x1b") == "a\ufffdb\ufffdc\x1b"


@given(st.text(), st.integers(0, 20))
def test_a_stream_may_be_cut_anywhere(content: str, cut: int) -> None:
    """Neutralising piece by piece gives what neutralising the whole gives."""
    assert text.visible(content[:cut]) + text.visible(content[cut:]) == text.visible(content)


def test_ordinary_text_is_left_alone() -> None:
    """Letters of all scripts, emoji, newlines and tabs pass."""
    ordinary = (
        "Größe\n\tпривет 東京 👍🏽 naïve שלום مرحبا می\u200cروم क्\u200dष "
        "👨\u200d👩\u200d👧 ❤\ufe0f 葛\U000e0100"
    )
    assert text.visible(ordinary) == ordinary


def test_a_table_has_no_borders() -> None:
    """Two spaces between columns, headers in upper case, numbers right, nothing trailing."""
    assert text.table(
        ("model", "size"), [("a", "9 B"), ("long-name", "1.0 KiB")], right={"size"}
    ) == [
        "MODEL         SIZE",
        "a              9 B",
        "long-name  1.0 KiB",
    ]
    assert text.table(("name", "x"), [("東京", "1"), ("ab", "")]) == ["NAME  X", "東京  1", "ab"]


_STYLES = st.sampled_from(["\x1b[1m", "\x1b[0m", "\x1b[38;5;1m"])


@given(st.lists(st.one_of(_STYLES, st.text("a漢\u0301", max_size=5))), st.integers(0, 20))
def test_a_line_with_colours_is_cut_as_one_without(parts: list[str], columns: int) -> None:
    """Its text as `cut` cuts it, and every sequence stays."""
    styles = [part for part in parts if part.startswith("\x1b")]
    plain = "".join(part for part in parts if not part.startswith("\x1b"))
    shown = text.cut_styled("".join(parts), columns)
    assert re.findall("\x1b\\[[0-9;]*m", shown) == styles
    assert re.sub("\x1b\\[[0-9;]*m", "", shown) == text.cut(plain, columns)
