"""The journal after a kill at any byte: whole lines count, and nothing else does."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader
from gemd.worker.quantize.nvfp4.journal import (
    JOURNAL,
    Done,
    Head,
    Journal,
    Line,
    Listing,
    read_journal,
)

if TYPE_CHECKING:
    from pathlib import Path

HEADER = SafetensorsHeader((SafeTensor("a", "BF16", (2, 16), 0, 64),), {}, 80, 144)
HEAD = Head(
    source="models/one",
    quantize_dense=True,
    files=(Listing.of("model.safetensors", HEADER, 17),),
    plan="abc",
)
LINES = [Line(tensor="a", sha256="1" * 64), Line(tensor="ü", sha256="2" * 64)]


def written(folder: Path, done: Done | None = None) -> bytes:
    """A journal with all lines."""
    with contextlib.closing(Journal(folder, HEAD, done or Done())) as journal:
        journal.append(LINES[:1])
        journal.append([LINES[1], Line(file="one", sha256="3" * 64)])
    return (folder / JOURNAL).read_bytes()


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Head, tensors and files; the source's header is there as well."""
    written(tmp_path)
    done = read_journal(tmp_path)
    assert done.head == HEAD
    assert done.tensors == {"a": "1" * 64, "ü": "2" * 64}
    assert done.files == {"one": "3" * 64}
    assert done.head.files[0].header() == HEADER


def test_a_kill_at_any_byte_costs_the_last_line_at_most(tmp_path: Path) -> None:
    """Cut anywhere, it says what its whole lines say, and can be gone on with."""
    text = written(tmp_path)
    whole = list(read_journal(tmp_path).tensors)
    for cut in range(len(text)):
        (tmp_path / JOURNAL).write_bytes(text[:cut])
        done = read_journal(tmp_path)
        lines = text[:cut].count(b"\n")
        assert (done.head is not None) == (lines > 0)
        assert list(done.tensors) == whole[: max(lines - 1, 0)]
    (tmp_path / JOURNAL).write_bytes(text[:-5])
    assert written(tmp_path, read_journal(tmp_path)).count(b"\n") == text.count(b"\n") + 2
    assert read_journal(tmp_path).files == {"one": "3" * 64}


@pytest.mark.parametrize("text", [b"", b"\n", b"{}\n", b'{"format":2}\n', b"\xff\x00\n"])
def test_what_is_no_journal_says_nothing(tmp_path: Path, text: bytes) -> None:
    """Whatever is in the file; a later format too."""
    (tmp_path / JOURNAL).write_bytes(text)
    assert read_journal(tmp_path) == Done()


def test_without_a_file_nothing_is_done(tmp_path: Path) -> None:
    """As with an empty folder."""
    assert read_journal(tmp_path) == Done()
