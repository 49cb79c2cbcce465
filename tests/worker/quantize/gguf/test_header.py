"""Metadata and directory, to bytes and back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemd.errors import BadModelFileError
from gemd.footprint.gguf import read_gguf_header
from gemd.footprint.source import open_local
from gemd.worker.quantize.gguf.header import Entry, Packed, encoded, read_fields
from gemd.worker.quantize.source import Field

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INTEGERS = {0: (0, 2**8), 1: (-(2**7), 2**7), 2: (0, 2**16), 3: (-(2**15), 2**15)} | {
    4: (0, 2**32),
    5: (-(2**31), 2**31),
    10: (0, 2**64),
    11: (-(2**63), 2**63),
}
texts = st.text(max_size=8)


def scalars(kind: int) -> st.SearchStrategy[object]:
    """Values of a GGUF type."""
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        return st.integers(low, high - 1)
    if kind == 8:
        return texts
    return {
        6: st.floats(width=32, allow_nan=False),
        7: st.booleans(),
        12: st.floats(allow_nan=False),
    }[kind]


kinds = st.sampled_from([*INTEGERS, 6, 7, 8, 12])
values = st.one_of(
    kinds.flatmap(lambda kind: st.tuples(scalars(kind), st.just(kind), st.none())),
    kinds.flatmap(
        lambda kind: st.tuples(st.lists(scalars(kind), max_size=5), st.just(9), st.just(kind))
    ),
)
metadata = st.dictionaries(st.text("abc._", min_size=1, max_size=6), values, max_size=6)


def plain(fields: Sequence[Field]) -> list[tuple[str, object]]:
    """Keys and values, arrays as lists."""
    return [
        (field.key, list(field.value) if isinstance(field.value, Packed) else field.value)
        for field in fields
    ]


@settings(max_examples=60, deadline=None)
@given(metadata)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    given_fields: dict[str, tuple[object, int, int | None]],
) -> None:
    """All types, arrays of all types: equal values, and equal bytes when written again."""
    fields = [Field(key, *value) for key, value in given_fields.items()]
    path = tmp_path_factory.mktemp("header") / "x.gguf"
    data = encoded(fields, [], alignment=32)
    path.write_bytes(data)
    with open_local(path) as source:
        found = read_fields(source)
    assert plain(found) == [(field.key, field.value) for field in fields]
    assert encoded(found, [], alignment=32) == data
    assert len(data) % 32 == 0


def test_a_file_of_the_gguf_package_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    """Another writer's header, with a vocabulary, scores and a tensor."""
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "gemma4")
    writer.add_token_list(["▁a", "\n", "слово", ""])
    writer.add_token_scores([0.5, -1.0, 3.25, 0.0])
    writer.add_token_types([1, 2, 3, 4])
    writer.add_chat_template("{{ a }}")
    writer.add_tensor("t", np.zeros((3, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_gguf_header(path)
    with open_local(path) as source:
        fields = read_fields(source)
    written = encoded(fields, [Entry("t", (32, 3), 0, 0)], alignment=32)
    assert written == path.read_bytes()[: header.data_offset]
    tokens = next(field.value for field in fields if field.key == "tokenizer.ggml.tokens")
    assert isinstance(tokens, Packed)
    assert (len(tokens), tokens[2], tokens[:2]) == (4, "слово", ["▁a", "\n"])


def test_bytes_that_are_no_text_pass_through(tmp_path: Path) -> None:
    """Tokens and texts need not be UTF-8."""
    path = tmp_path / "x.gguf"
    ugly = b"\xff\xc3"
    text = struct.pack("<Q", len(ugly)) + ugly
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 2)
    data += struct.pack("<Q", 1) + b"a" + struct.pack("<I", 8) + text
    data += struct.pack("<Q", 1) + b"b" + struct.pack("<IIQ", 9, 8, 1) + text
    path.write_bytes(data)
    with open_local(path) as source:
        fields = read_fields(source)
    assert encoded(fields, [], alignment=1) == data


def test_lengths_that_lead_out_of_the_file_are_refused(tmp_path: Path) -> None:
    """A header is untrusted, and nothing of the size that it claims is allocated."""
    path = tmp_path / "x.gguf"
    for tail in (
        struct.pack("<IIQ", 9, 8, 2**40),
        struct.pack("<IIQ", 9, 4, 2**60),
        struct.pack("<IQ", 8, 2**50),
        struct.pack("<I", 77),
    ):
        key = struct.pack("<Q", 1) + b"a"
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + tail)
        with open_local(path) as source, pytest.raises(BadModelFileError):
            read_fields(source)
