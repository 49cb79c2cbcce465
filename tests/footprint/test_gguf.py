"""The GGUF header reader: right on real files, safe on any bytes."""

from __future__ import annotations

import contextlib
import os
import struct
import time
import tracemalloc
from typing import TYPE_CHECKING

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint import GgufHeader, OmittedArray, read_gguf_header
from gemd.footprint.types import TENSOR_TYPES
from tests.support.gguf_files import Plain, gguf_bytes
from tests.support.short_models import shortened

if TYPE_CHECKING:
    from pathlib import Path

METADATA: dict[str, Plain] = {
    "general.architecture": "llama",
    "general.name": "tiny é",
    "llama.block_count": 2,
    "llama.scale": 0.5,
    "llama.flag": True,
    "tokenizer.ggml.tokens": ["a", "bc", ""],
    "llama.counts": [1, 2],
}
TENSORS: dict[str, tuple[int, ...]] = {"token_embd.weight": (32, 3), "norm": (5,)}
VALID = gguf_bytes(METADATA, TENSORS)


def _read(path: Path, data: bytes) -> GgufHeader:
    path.write_bytes(data)
    return read_gguf_header(path)


def _refusal(path: Path, data: bytes) -> BadModelFileError:
    with pytest.raises(BadModelFileError) as caught:
        _read(path, data)
    assert 0 <= int(caught.value.metadata["offset"]) <= len(data)
    return caught.value


@pytest.mark.parametrize("cut", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_real_file_reads_as_ggufs_own_reader_reads_it(smollm2: Path, *, cut: bool) -> None:
    """Every tensor's name, shape, type, place and size, and every scalar, is the same.

    Of a real model cut short by default: `gguf` takes seconds for all tokens.
    """
    path = shortened(smollm2, layers=range(3), tokens=8192) if cut else smollm2
    header = read_gguf_header(path)
    oracle = gguf.GGUFReader(path)
    assert header.file_size == path.stat().st_size
    assert header.data_offset == oracle.data_offset
    assert [
        (t.name, t.shape, t.type, header.data_offset + t.offset, t.nbytes) for t in header.tensors
    ] == [
        (t.name, tuple(t.shape.tolist()), t.tensor_type.name, t.data_offset, t.n_bytes)
        for t in oracle.tensors
    ]
    fields = {name: f for name, f in oracle.fields.items() if not name.startswith("GGUF.")}
    assert header.metadata.keys() == fields.keys()
    for name, value in header.metadata.items():
        if isinstance(value, OmittedArray):
            assert value.count == len(fields[name].data)
        elif not isinstance(value, tuple):
            assert value == fields[name].contents()


def test_a_large_vocabulary_is_read_in_time_and_little_memory(gemma3: Path) -> None:
    """262,144 tokens take some 0.1 s, and under 64 MB.

    The bound is far above, for slow machines; the naive way takes minutes.
    """
    began = time.thread_time()
    header = read_gguf_header(gemma3)
    spent = time.thread_time() - began
    assert header.metadata["tokenizer.ggml.tokens"] == OmittedArray(262_144)
    tracemalloc.start()
    read_gguf_header(gemma3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 10
    assert peak < 64_000_000


def test_the_types_are_ggmls() -> None:
    """Block and byte sizes agree with the table of the `gguf` package, and none is missing."""
    oracle = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: (t.block, t.nbytes) for kind, t in TENSOR_TYPES.items()} == oracle
    for kind, element in TENSOR_TYPES.items():
        assert gguf.GGMLQuantizationType(kind).name == element.name


@pytest.mark.parametrize("version", [2, 3])
def test_what_was_written_is_read(version: int, tmp_path: Path) -> None:
    """Metadata of every kind, and the tensors' places."""
    header = _read(tmp_path / "m.gguf", gguf_bytes(METADATA, TENSORS, version=version))
    assert header.version == version
    assert header.metadata == {
        **METADATA,
        "tokenizer.ggml.tokens": OmittedArray(3),
        "llama.counts": (1, 2),
    }
    assert [(t.name, t.shape, t.offset, t.nbytes) for t in header.tensors] == [
        ("token_embd.weight", (32, 3), 0, 384),
        ("norm", (5,), 384, 20),
    ]
    assert header.data_offset % 32 == 0


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Wherever the file is cut off, the error says so with a place inside it."""
    needed = len(VALID) - 12  # the padding after the last tensor is not needed
    for length in range(needed):
        _refusal(tmp_path / "m.gguf", VALID[:length])
    _read(tmp_path / "m.gguf", VALID[:needed])


@pytest.mark.parametrize("data", [b"", b"GGU", b"GGML" + bytes(100), b"PK\3\4" + bytes(100)])
def test_another_format_is_named_so(data: bytes, tmp_path: Path) -> None:
    """The first four letters decide."""
    assert "GGUF" in _refusal(tmp_path / "m.gguf", data).why


@pytest.mark.parametrize("version, word", [(1, "version 1"), (4, "version 4"), (3 << 24, "big")])
def test_other_versions_are_refused(version: int, word: str, tmp_path: Path) -> None:
    """Old, future and byte-swapped ones, each by its name."""
    data = b"GGUF" + struct.pack("<I", version) + VALID[8:]
    assert word in _refusal(tmp_path / "m.gguf", data).why


@pytest.mark.parametrize("position", [8, 16])
@pytest.mark.parametrize("count", [2**16 + 1, 2**63, 2**64 - 1])
def test_absurd_counts_are_refused_at_once(position: int, count: int, tmp_path: Path) -> None:
    """Of tensors and of keys, before anything of that size is allocated."""
    data = VALID[:position] + struct.pack("<Q", count) + VALID[position + 8 :]
    assert str(count) in _refusal(tmp_path / "m.gguf", data).why


@pytest.mark.parametrize(
    "kind, count",
    [(8, 2**40), (8, 10**7), (4, 2**62), (0, 2**64 - 1), (9, 1), (99, 1), (12, 4000)],
)
def test_absurd_arrays_are_refused(kind: int, count: int, tmp_path: Path) -> None:
    """Longer than the file, nested, or of no known type."""
    data = gguf_bytes({}) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, kind, count)
    data = data[:16] + struct.pack("<Q", 1) + data[24:]
    _refusal(tmp_path / "m.gguf", data)


def test_metadata_cannot_fill_the_memory(tmp_path: Path) -> None:
    """Many texts below the limit of one are too many together."""
    texts = {f"k{number}": "x" * 3_000_000 for number in range(8)}
    assert "metadata exceeds" in _refusal(tmp_path / "m.gguf", gguf_bytes(texts)).why


def test_repeated_names_are_refused(tmp_path: Path) -> None:
    """Of keys and of tensors: which one would count is anybody's guess."""
    twice = gguf_bytes({"aa": 1, "ab": 2}).replace(b"ab", b"aa")
    assert "twice" in _refusal(tmp_path / "m.gguf", twice).why
    twice = gguf_bytes({}, {"ta": (8,), "tb": (8,)}).replace(b"tb", b"ta")
    assert "two tensors" in _refusal(tmp_path / "m.gguf", twice).why


@pytest.mark.parametrize("alignment", [0, 3, 2**21, -32, "32", True])
def test_odd_alignments_are_refused(alignment: int | str, tmp_path: Path) -> None:
    """Only powers of two up to a mebibyte."""
    data = gguf_bytes({"general.alignment": alignment}, TENSORS)
    assert "alignment" in _refusal(tmp_path / "m.gguf", data).why


def test_tensors_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """Overlapping, of unknown type, without extent, or too large for any file."""
    entry = gguf_bytes({}, {"t": (8,)})
    at = entry.index(b"t") + 1
    for form, position, value in (
        ("<I", at, 0),
        ("<I", at, 5),
        ("<Q", at + 4, 0),
        ("<Q", at + 4, 2**62),
        ("<Q", at + 4, 2**64 - 1),
        ("<I", at + 12, 99),
        ("<I", at + 12, 12),
        ("<Q", at + 16, 32),
    ):
        part = struct.pack(form, value)
        data = entry[:position] + part + entry[position + len(part) :]
        assert "tensor t" in _refusal(tmp_path / "m.gguf", data).why


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A directory, and a pipe, which must not be waited for."""
    with pytest.raises(BadModelFileError):
        read_gguf_header(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadModelFileError, match="regular"):
        read_gguf_header(tmp_path / "pipe")


def test_a_missing_file_is_not_a_bad_one(tmp_path: Path) -> None:
    """Its name is in the error."""
    with pytest.raises(ModelNotFoundError, match=r"none\.gguf"):
        read_gguf_header(tmp_path / "none.gguf")


_ADDED = st.one_of(
    st.binary(max_size=8),
    st.sampled_from((b"\xff" * 8, b"\x00" * 8, b"\xff" * 4, b"\x00" * 4, b"\xff" * 7 + b"\x7f")),
)
_MUTATION = st.tuples(st.integers(0, len(VALID)), st.sampled_from((0, 1, 4, 8)), _ADDED)


@settings(
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mutations=st.lists(_MUTATION, min_size=1, max_size=4))
def test_any_mutation_gives_a_header_or_the_error(
    mutations: list[tuple[int, int, bytes]], tmp_path: Path
) -> None:
    """Bytes changed, removed and added anywhere never cause anything else."""
    mutated = bytearray(VALID)
    for at, removed, added in mutations:
        mutated[at : at + removed] = added
    with contextlib.suppress(BadModelFileError):
        header = _read(tmp_path / "m.gguf", bytes(mutated))
        for tensor in header.tensors:
            assert header.data_offset + tensor.offset + tensor.nbytes <= len(mutated)
