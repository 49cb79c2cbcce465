"""A GGUF file as a source."""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.worker.quantize.gguf import GgufSource
from tests.support.unquantized import EXPERTS, split, write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with experts."""
    return write_model(tmp_path_factory.mktemp("model") / "m.gguf", EXPERTS)


def content(path: Path) -> dict[str, np.ndarray]:
    """All tensors as float32 of shape (rows, width), by the `gguf` package."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        numbers = np.array(tensor.data)
        if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
            wide = np.ascontiguousarray(numbers).view(np.uint16).astype(np.uint32) << 16
            numbers = wide.view(np.float32)
        found[tensor.name] = numbers.reshape(-1, int(tensor.shape[0]))
    return found


def read(source: GgufSource) -> dict[str, np.ndarray]:
    """All tensors of a source, three rows at a time."""
    found = {}
    for tensor in source.tensors():
        rows = prod(tensor.shape[1:])
        pieces = [source.rows(tensor, at, min(3, rows - at)) for at in range(0, min(rows, 30), 3)]
        found[tensor.name] = np.concatenate(pieces)
    return found


@pytest.mark.parametrize("parts", [1, 3])
def test_rows_are_those_that_another_reader_finds(model: Path, parts: int) -> None:
    """Of a whole and of a split file; metadata without what says that it is split."""
    path = split(model, parts) if parts > 1 else model
    source = GgufSource(path)
    expected = content(model)
    found = read(source)
    assert list(found) == list(expected)
    for name, rows in found.items():
        assert np.array_equal(rows, expected[name][:30]), name
    keys = [field.key for field in source.metadata()]
    assert keys == [field.key for field in GgufSource(model).metadata()]
    assert not [key for key in keys if key.startswith("split.")]
    source.close()


def test_f16_is_widened(tmp_path: Path) -> None:
    """Every finite number of that type."""
    path = tmp_path / "x.gguf"
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = np.where(np.isfinite(every), every, np.float16(0)).reshape(32, -1)
    writer = gguf.GGUFWriter(path, "gemma4")
    writer.add_tensor("t", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = GgufSource(path)
    rows = source.rows(source.tensors()[0], 0, 32)
    assert np.array_equal(rows, numbers.astype(np.float32))
    source.close()


def test_a_quantized_tensor_is_refused_by_name_and_type(tmp_path: Path) -> None:
    """Errors of two quantizations would add up."""
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "gemma4")
    raw = np.zeros((4, 34), np.uint8)
    writer.add_tensor("blk.0.ffn_up.weight", raw, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadModelFileError, match=r"blk\.0\.ffn_up\.weight is Q8_0"):
        GgufSource(path)


def test_parts_have_to_be_there_and_of_one_model(model: Path) -> None:
    """A missing one, one of another place, one with fewer tensors."""
    first = split(model, 3)
    second, third = (first.with_name(f"m-0000{n}-of-00003.gguf") for n in (2, 3))
    data = second.read_bytes()
    second.write_bytes(third.read_bytes())
    with pytest.raises(BadModelFileError, match="file 2 of 3 is number 2"):
        GgufSource(first)
    second.unlink()
    with pytest.raises(ModelNotFoundError):
        GgufSource(first)
    second.write_bytes(data)
    whole = first.read_bytes()
    said = b"split.tensors.count" + struct.pack("<I", 5)
    at = whole.index(said) + len(said)
    first.write_bytes(whole[:at] + struct.pack("<i", 7) + whole[at + 4 :])
    with pytest.raises(BadModelFileError, match="it is to have 7 tensors"):
        GgufSource(first)


def test_a_file_that_becomes_shorter_is_noticed(model: Path, tmp_path: Path) -> None:
    """And not read beyond its end."""
    path = tmp_path / "m.gguf"
    path.write_bytes(model.read_bytes())
    source = GgufSource(path)
    first, last = source.tensors()[0], source.tensors()[-1]
    source.rows(first, 0, 1)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(BadModelFileError, match="shorter"):
        source.rows(last, 0, 1)
    source.close()


def test_a_file_that_is_another_one_by_then_is_noticed(model: Path, tmp_path: Path) -> None:
    """Its weights would be read at the places of the first one's."""
    path = tmp_path / "m.gguf"
    path.write_bytes(model.read_bytes())
    source = GgufSource(path)
    path.write_bytes(model.read_bytes() + bytes(32))
    with pytest.raises(BadModelFileError, match="written to meanwhile"):
        source.rows(source.tensors()[0], 0, 1)
    source.close()


def test_used_files_go_with_what_they_point_to_and_leave_their_headers(
    model: Path, tmp_path: Path
) -> None:
    """A later try still knows the whole model, until the last file goes."""
    folder, kept = tmp_path / "snapshot", tmp_path / "kept"
    folder.mkdir()
    kept.mkdir()
    blobs = []
    for number in (1, 2):
        part = split(model, 2).with_name(f"m-0000{number}-of-00002.gguf")
        blob = tmp_path / f"blob{number}"
        blob.write_bytes(part.read_bytes())
        (folder / part.name).symlink_to(blob)
        blobs.append(blob)
    first = folder / "m-00001-of-00002.gguf"
    source = GgufSource(first, discard=True, kept=kept)
    before = (source.tensors(), [field.key for field in source.metadata()])
    source.used_up(first.name)
    assert [blob.exists() for blob in blobs] == [False, True]
    assert not first.is_symlink()
    again = GgufSource(first, discard=True, kept=kept)
    assert (again.tensors(), [field.key for field in again.metadata()]) == before
    with pytest.raises(BadModelFileError):
        again.rows(again.tensors()[0], 0, 1)
    again.used_up(first.name)
    again.used_up("m-00002-of-00002.gguf")
    assert not [blob for blob in blobs if blob.exists()]
    assert not [*folder.iterdir(), *kept.iterdir()]


def test_without_a_place_for_headers_files_go_with_the_last(model: Path) -> None:
    """Else a later try could not go on."""
    first = split(model, 2)
    source = GgufSource(first, discard=True)
    source.used_up(first.name)
    assert first.exists()
    source.used_up("m-00002-of-00002.gguf")
    assert not first.exists()


def test_a_source_is_kept_unless_told_otherwise(model: Path) -> None:
    """What another tool has put there stays."""
    source = GgufSource(model)
    source.used_up(model.name)
    assert model.exists()
