"""What an earlier try has left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from gemd.wire.quantize import Made, MadeFile
from gemd.worker.quantize.gguf.journal import JOURNAL, Essentials, Finished, Journal, read

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ESSENTIALS = Essentials(
    source="/m/a.gguf",
    name="r.gguf",
    quantization="Q4_0",
    importance_matrix="",
    header_sha256="ab" * 32,
    llama_cpp="0.3.36",
    stamps={"a.gguf": (10, 20), "b.gguf": (30, 40)},
)
TENSORS = [Finished(f"blk.{n}.ffn_up.weight", 64 * n, 64, f"{n:064x}") for n in range(4)]
MADE = Made(files=(MadeFile(name="r.gguf", size_bytes=9, sha256="cd" * 32),), tensors=())


def written(folder: Path) -> bytes:
    """A whole journal."""
    journal = Journal.begin(folder, ESSENTIALS)
    journal.add(TENSORS[:1])
    journal.add(TENSORS[1:])
    journal.complete(MADE)
    journal.close()
    return (folder / JOURNAL).read_bytes()


def test_what_was_noted_is_read_again(tmp_path: Path) -> None:
    """Essentials, tensors in their order, the whole."""
    data = written(tmp_path)
    record = read(tmp_path)
    assert record is not None
    assert record.essentials == ESSENTIALS
    assert list(record.finished.values()) == TENSORS
    assert record.made == MADE
    assert record.size_bytes == len(data)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_journal_cut_anywhere_tells_of_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """And is gone on with behind them."""
    folder = tmp_path_factory.mktemp("journal")
    whole = written(folder)
    end = data.draw(st.integers(0, len(whole)))
    (folder / JOURNAL).write_bytes(whole[:end])
    lines = whole[:end].count(b"\n")
    record = read(folder)
    if not lines:
        assert record is None
        return
    assert record is not None
    assert list(record.finished.values()) == TENSORS[: lines - 1]
    journal = Journal(folder, record.size_bytes)
    journal.add([Finished("last", 1, 2, "ee")])
    journal.close()
    again = read(folder)
    assert again is not None
    assert list(again.finished) == [*(t.name for t in TENSORS[: lines - 1]), "last"]


def test_a_lost_tensor_is_not_finished(tmp_path: Path) -> None:
    """It was found damaged when it was read back."""
    written(tmp_path)
    record = read(tmp_path)
    assert record is not None
    journal = Journal(tmp_path, record.size_bytes)
    journal.lose(TENSORS[1].name)
    journal.close()
    again = read(tmp_path)
    assert again is not None
    assert list(again.finished.values()) == [TENSORS[0], *TENSORS[2:]]


def test_garbage_is_no_journal(tmp_path: Path) -> None:
    """Nor is none at all, nor one of another format."""
    assert read(tmp_path) is None
    for data in (b"\0\n", b"{}\n", b'{"format": 99}\n', b"[]\n", b'{"format": 1}\n'):
        (tmp_path / JOURNAL).write_bytes(data)
        assert read(tmp_path) is None, data


def test_only_the_same_work_is_gone_on_with() -> None:
    """Another mixture, header or library, or a source that has changed, is other work."""
    assert ESSENTIALS.goes_on(ESSENTIALS, used=set())
    for other in (
        replace(ESSENTIALS, quantization="Q8_0"),
        replace(ESSENTIALS, header_sha256="00"),
        replace(ESSENTIALS, llama_cpp="0.3.37"),
        replace(ESSENTIALS, importance_matrix="11"),
        replace(ESSENTIALS, stamps={**ESSENTIALS.stamps, "b.gguf": (30, 41)}),
    ):
        assert not other.goes_on(ESSENTIALS, used={"a.gguf", "b.gguf"})


def test_a_file_may_be_gone_if_it_is_used_up() -> None:
    """A source that is removed as it is used is still the same."""
    fewer = replace(ESSENTIALS, stamps={"b.gguf": (30, 40)})
    assert fewer.goes_on(ESSENTIALS, used={"a.gguf"})
    assert not fewer.goes_on(ESSENTIALS, used={"b.gguf"})
