"""Reading safetensors headers: what is right is read exactly, all else is refused with a place."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint import (
    SafetensorsHeader,
    SafetensorsIndex,
    checkpoint_headers,
    open_local,
    read_checkpoint,
    read_safetensors_header,
    safetensors,
    safetensors_header,
    safetensors_index,
)
from gemd.footprint.checkpoint import INDEX
from gemd.footprint.safetensors import BITS, MAX_HEADER_BYTES, MAX_TENSORS
from tests.support.safetensors_files import Tensors, entries, file_of, safetensors_bytes
from tests.support.sources import BytesSource

if TYPE_CHECKING:
    from pathlib import Path

TENSORS: Tensors = {
    "model.embed.weight": ("BF16", (16, 8)),
    "experts.0.weight": ("U8", (4, 6)),
    "experts.0.weight_scale": ("F8_E4M3", (4, 2)),
    "experts.0.weight_scale_2": ("F32", ()),
    "packed": ("F4", (2, 16)),
}
GOOD = entries(TENSORS)


def read(data: bytes) -> SafetensorsHeader:
    """The header of these bytes."""
    return safetensors_header(BytesSource(data))


def refused(data: bytes) -> BadModelFileError:
    """The error that these bytes are refused with; it has a place inside the file."""
    with pytest.raises(BadModelFileError) as caught:
        read(data)
    assert 0 <= int(caught.value.metadata["offset"]) <= len(data)
    return caught.value


def test_a_file_is_read_as_it_was_written() -> None:
    """Names, types, shapes and sizes; four-bit elements take half a byte."""
    data = safetensors_bytes(TENSORS, {"format": "pt", "höhe": "5 m"})
    header = read(data)
    assert {t.name: (t.dtype, t.shape) for t in header.tensors} == TENSORS
    assert [t.nbytes for t in header.tensors] == [256, 24, 8, 4, 16]
    assert header.metadata == {"format": "pt", "höhe": "5 m"}
    assert header.data_offset + sum(t.nbytes for t in header.tensors) == len(data)
    assert header.file_size == len(data)


def test_a_file_on_disk_is_opened_like_any_model(tmp_path: Path) -> None:
    """One that is missing, a folder and a damaged one are three errors."""
    path = tmp_path / "model.safetensors"
    with pytest.raises(ModelNotFoundError):
        read_safetensors_header(path)
    path.write_bytes(safetensors_bytes(TENSORS))
    assert len(read_safetensors_header(path).tensors) == len(TENSORS)
    with pytest.raises(BadModelFileError, match="no regular file"):
        read_safetensors_header(tmp_path)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
WHOLE = [dtype for dtype, bits in BITS.items() if bits % 8 == 0]


@given(
    tensors=st.dictionaries(
        NAMES.filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(WHOLE), SHAPES),
        max_size=8,
    ),
    metadata=st.dictionaries(NAMES, NAMES, max_size=4),
)
def test_any_file_is_read_as_it_was_written(
    tensors: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str]
) -> None:
    """Whatever characters, empty tensors and scalars there are."""
    header = read(safetensors_bytes(tensors, metadata))
    assert {t.name: (t.dtype, t.shape) for t in header.tensors} == tensors
    assert header.metadata == metadata


def test_order_and_space_of_the_header_do_not_matter() -> None:
    """The table may be in any order and style that JSON allows."""
    shuffled = {
        name: dict(reversed(entry.items())) for name, entry in sorted(GOOD.items(), reverse=True)
    }
    size = max(entry["data_offsets"][1] for entry in GOOD.values())
    header = read(file_of(json.dumps(shuffled, indent=2).encode(), size))
    assert [t.begin for t in header.tensors] == sorted(t.begin for t in header.tensors)
    assert {t.name for t in header.tensors} == set(TENSORS)


def changed(name: str, **entry: Any) -> bytes:
    """A file with one entry changed in its header."""
    table = GOOD | {name: GOOD.get(name, {}) | entry}
    size = max(value["data_offsets"][1] for value in GOOD.values())
    return file_of(json.dumps(table).encode(), size)


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "truncated"),
        (b"1234567", "truncated"),
        (struct.pack("<Q", 0), "header of 0 bytes"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1), "limit"),
        (struct.pack("<Q", 2**64 - 1) + bytes(100), "limit"),
        (struct.pack("<Q", 100) + b"{}", "beyond the file"),
        (file_of(b"[]", 0), "brace"),
        (file_of(b"{", 0), "a text"),
        (file_of(b"{} x", 0), "its end"),
        (file_of(b'{"a":1}', 0), "no table"),
        (file_of(b'{"a":{}}', 0), "not as it has to be"),
        (file_of(b'{"a":{"dtype":"U8"}}', 0), "lacks"),
        (file_of(b'{"\\ud800":{"dtype":"U8"}}', 0), "Unicode"),
        (file_of(b'{"\xff":{"dtype":"U8"}}', 0), "Unicode"),
        (file_of(b'{"__metadata__":{"a":1}}', 0), "a text"),
        (file_of(b'{"__metadata__":[]}', 0), "no table"),
        (file_of(b'{"__metadata__":{},"__metadata__":{}}', 0), "twice"),
        (file_of(b'{"__metadata__":{"a":"1","a":"2"}}', 0), "twice"),
        (file_of(b'{"a":{"dtype":"U8","dtype":"U8","dtype":"U8"}}', 0), "twice"),
        (file_of(b'{"a":{"dtype":"U8","dtype":"U8"}}', 0), "lacks"),
        (file_of(b'{"a":{"dtype":"U8" "shape":[]}}', 0), "a comma"),
        (file_of(b'{"a":' * 100_000, 0), "not as it has to be"),
        (file_of(b'{"a":{"dtype":"U8","shape":' + b"[" * 900, 0), "not as it has to be"),
        (changed("packed", dtype="F5"), "unknown type"),
        (changed("packed", dtype="f4"), "not as it has to be"),
        (changed("packed", shape=[2, 15]), "cannot take"),
        (changed("packed", shape=[3, 1]), "cannot take"),
        (changed("packed", shape=[-2, 16]), "not as it has to be"),
        (changed("packed", shape=[1] * 8 + [32]), "list of sizes"),
        (changed("packed", shape=[2**62, 2**62, 0]), "cannot take"),
        (changed("packed", shape=[10**40]), "list of sizes"),
        (changed("packed", shape=[1.5]), "not as it has to be"),
        (changed("packed", data_offsets=[292, 291]), "cannot take"),
        (changed("packed", data_offsets=[2**63, 2**63 + 16]), "ends at"),
        (changed("packed", data_offsets=[290, 306]), "ends at"),
        (changed("packed", data_offsets=[300, 316]), "ends at"),
        (changed("packed", data_offsets=[0, 16]), "ends at"),
        (safetensors_bytes(TENSORS)[:-1], "truncated"),
        (safetensors_bytes(TENSORS) + b"x", "something else"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(data: bytes, why: str) -> None:
    """Whatever is wrong, it is the file's fault and nobody's crash."""
    assert why in refused(data).why


def test_two_tensors_of_one_name_are_refused() -> None:
    """A table that JSON parsers merge in silence."""
    entry = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    assert "two tensors" in refused(file_of(b"{" + entry + b"," + entry + b"}", 1)).why


@pytest.mark.parametrize("most", [8192, pytest.param(MAX_TENSORS, marks=pytest.mark.slow)])
def test_as_many_tensors_as_allowed_take_little_memory(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """65,536 of them within 64 MB, and an eighth of them within an eighth; one more is refused."""
    monkeypatch.setattr(safetensors, "MAX_TENSORS", most)
    many: Tensors = {f"model.layers.{index}.weight_scale_2": ("F32", ()) for index in range(most)}
    data = safetensors_bytes(many)
    tracemalloc.start()
    try:
        header = read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(header.tensors) == most
    assert peak < 64_000_000 * most / MAX_TENSORS
    assert "more than" in refused(safetensors_bytes(many | {"one": ("U8", ())})).why


# --- checkpoints of several files -------------------------------------------------------------


def written(folder: Path, shards: dict[str, Tensors]) -> Path:
    """A checkpoint with these files; the path of its index."""
    places: dict[str, str] = {}
    for file, tensors in shards.items():
        (folder / file).write_bytes(safetensors_bytes(tensors))
        places |= dict.fromkeys(tensors, file)
    index = folder / INDEX
    index.write_text(json.dumps({"metadata": {"total_size": 12.5}, "weight_map": places}))
    return index


SHARDS: dict[str, Tensors] = {
    "model-1-of-2.safetensors": {"a": ("U8", (4,)), "b": ("BF16", (2,))},
    "model-2-of-2.safetensors": {"c": ("F32", (1,))},
}


def test_a_checkpoint_is_the_headers_of_all_its_files(tmp_path: Path) -> None:
    """By its index, or the only file itself."""
    index = written(tmp_path, SHARDS)
    headers = read_checkpoint(index)
    assert [[t.name for t in header.tensors] for header in headers] == [["a", "b"], ["c"]]
    (only,) = read_checkpoint(tmp_path / "model-2-of-2.safetensors")
    assert only == headers[1]


def test_a_missing_file_and_one_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    """The first names the path, the second a tensor."""
    index = written(tmp_path, SHARDS)
    second = tmp_path / "model-2-of-2.safetensors"
    second.write_bytes(safetensors_bytes({"d": ("F32", (1,))}))
    with pytest.raises(BadModelFileError, match="2 tensors are in one of them only, such as c"):
        read_checkpoint(index)
    second.unlink()
    with pytest.raises(ModelNotFoundError, match="model-2-of-2"):
        read_checkpoint(index)


def test_files_of_a_checkpoint_may_be_elsewhere(tmp_path: Path) -> None:
    """Whoever opens them decides where."""
    written(tmp_path, SHARDS)
    index = SafetensorsIndex({"c": "model-2-of-2.safetensors"})
    assert index.files == ("model-2-of-2.safetensors",)
    opened: list[str] = []

    def open_file(name: str) -> Any:
        opened.append(name)
        return open_local(tmp_path / name)

    (header,) = checkpoint_headers(index, open_file)
    assert [t.name for t in header.tensors] == ["c"]
    assert opened == list(index.files)


def test_what_else_an_index_says_is_passed_over() -> None:
    """Nested values of any kind, as long as they are JSON."""
    other: dict[str, Any] = {"a": [1, -2.5e3, True, None, "x", [], {}], "weight_map": {}}
    text = json.dumps({"metadata": other, "weight_map": {"t": "m.safetensors"}, "z": "\\"})
    assert safetensors_index(BytesSource(text.encode())).places == {"t": "m.safetensors"}


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "brace"),
        ("{}", "no weight_map"),
        ('{"weight_map":{}}', "no weight_map"),
        ('{"weight_map":[]}', "no table"),
        ('{"weight_map":{"a":"b.safetensors"}', "a comma"),
        ('{"weight_map":{"a":"../b.safetensors"}}', "no name of a file"),
        ('{"weight_map":{"a":"b/c.safetensors"}}', "no name of a file"),
        ('{"weight_map":{"a":"b.gguf"}}', "no name of a file"),
        ('{"weight_map":{"a":"b.safetensors","a":"b.safetensors"}}', "twice"),
        ('{"weight_map":{"a":"b.safetensors"},"weight_map":{}}', "twice"),
        ('{"x":' + "[" * 100_000, "nested"),
        ('{"x":' + '{"a":' * 100_000, "nested"),
        ('{"x":nope}', "a text"),
        ('{"x":1}}', "its end"),
        ('{"x":01}', "comma"),
    ],
)
def test_what_is_no_index_is_refused(text: str, why: str) -> None:
    """With a place; names lead to files beside it only."""
    with pytest.raises(BadModelFileError) as caught:
        safetensors_index(BytesSource(text.encode()))
    assert why in caught.value.why
    assert 0 <= int(caught.value.metadata["offset"]) <= len(text)
