"""Headers of files that are elsewhere: few bytes, each once, and none that is not the file's."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from gemd.errors import BadModelFileError, HubUnreachableError
from gemd.footprint import (
    RemoteSource,
    gguf_header,
    open_local,
    read_gguf_header,
    safetensors_header,
    sparse_twin,
)
from gemd.footprint.reader import MAX_HEADER_BYTES
from tests.support.gguf_files import Plain, gguf_bytes
from tests.support.safetensors_files import safetensors_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MB = 1_000_000
TOKENS = 262_144


class Server:
    """Plays a server with one file of which only the beginning exists."""

    def __init__(self, data: bytes, *, size: int) -> None:
        self.data = data
        self.size = size
        self.asked: list[tuple[int, int]] = []

    def fetch(self, start: int, end: int) -> bytes:
        """What a range request answers."""
        assert 0 <= start < end <= self.size
        self.asked.append((start, end))
        return self.data[start:end].ljust(end - start, b"\0")

    def source(self) -> RemoteSource:
        """The file, unread."""
        return RemoteSource(self.fetch, size=self.size, name="model.gguf")


@pytest.fixture(scope="module")
def gemma_sized() -> bytes:
    """A header with a vocabulary of Gemma's size: 15.5 MB, and no data behind it."""
    tokens = [f"token{index:08x}".ljust(28, "x") for index in range(TOKENS)]
    merges = [f"{index:08x} {index:08x}" for index in range(TOKENS - 100_000)]
    metadata: dict[str, Plain] = {
        "general.architecture": "gemma4",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [1] * (TOKENS // 2),
        "gemma4.block_count": 48,
    }
    tensors: dict[str, tuple[int, ...]] = {
        f"blk.{layer}.ffn_up.weight": (3840, 1) for layer in range(48)
    }
    whole = gguf_bytes(metadata, tensors)
    return whole[: len(whole) - 48 * 3840 * 4]


def test_a_header_of_gemmas_size_takes_less_than_20_mb(gemma_sized: bytes) -> None:
    """In few requests, no byte twice, of a file of 7 GB."""
    assert 14 * MB < len(gemma_sized) < 17 * MB
    server = Server(gemma_sized, size=7_000 * MB)
    source = server.source()
    header = gguf_header(source)
    assert header.file_size == 7_000 * MB
    assert len(header.tensors) == 48
    assert source.fetched == sum(end - start for start, end in server.asked)
    assert source.fetched < 20 * MB
    assert len(server.asked) < 15
    ranges = sorted(server.asked)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))


def test_a_twin_of_a_remote_file_fetches_only_what_was_passed_over(
    gemma_sized: bytes, tmp_path: Path
) -> None:
    """Header and twin together still take less than 20 MB, and the twin reads the same."""
    server = Server(gemma_sized, size=7_000 * MB)
    source = server.source()
    header = gguf_header(source)
    sparse_twin(source, header, tmp_path / "twin.gguf")
    assert read_gguf_header(tmp_path / "twin.gguf") == header
    assert (tmp_path / "twin.gguf").stat().st_blocks * 512 < 20 * MB
    assert source.fetched < 20 * MB


def test_a_remote_header_reads_as_a_local_one(smollm2: Path) -> None:
    """The same values, and a small part of the file."""
    server = Server(smollm2.read_bytes(), size=smollm2.stat().st_size)
    source = server.source()
    assert gguf_header(source) == read_gguf_header(smollm2)
    assert source.fetched < 0.1 * source.size


def test_a_remote_safetensors_header_takes_one_request() -> None:
    """Of a megabyte at most, where the header is not longer."""
    data = safetensors_bytes({"a": ("U8", (100,))})
    server = Server(data, size=len(data))
    assert safetensors_header(server.source()).tensors[0].nbytes == 100
    assert server.asked == [(0, len(data))]


def test_an_answer_of_another_length_is_refused() -> None:
    """The file has changed, or somebody does not know ranges; where is said."""
    for odd in (b"", bytes(99), bytes(101)):
        source = RemoteSource(lambda *_, odd=odd: odd, size=100, name="m")
        with pytest.raises(BadModelFileError, match="asked for") as caught:
            gguf_header(source)
        assert caught.value.metadata["offset"] == "0"


def test_an_error_of_the_network_stays_what_it_is() -> None:
    """It is no fault of the file."""

    def fail(start: int, end: int) -> bytes:
        raise HubUnreachableError("no route")

    with pytest.raises(HubUnreachableError, match="no route"):
        gguf_header(RemoteSource(fail, size=100, name="m"))


def test_a_header_that_never_ends_costs_no_more_than_the_limit() -> None:
    """A vocabulary of millions of long words in a file of a terabyte."""
    head = gguf_bytes({"general.architecture": "x"})
    words = head[:16] + (2).to_bytes(8, "little") + head[24:]
    key = b"tokenizer.ggml.tokens"
    words += len(key).to_bytes(8, "little") + key + (9).to_bytes(4, "little")
    words += (8).to_bytes(4, "little") + (2_000_000).to_bytes(8, "little")

    def endless(start: int, end: int) -> bytes:
        lengths = (2**20).to_bytes(8, "little") * ((end - start) // 8 + 1)
        return ((words if start == 0 else b"") + lengths)[: end - start]

    source = RemoteSource(endless, size=10**12, name="m", limit=8 * MB)
    with pytest.raises(BadModelFileError, match="takes more than 8000000 bytes"):
        gguf_header(source)
    assert source.fetched <= 8 * MB


def test_a_local_file_that_claims_to_be_all_header_is_left_early(tmp_path: Path) -> None:
    """Words of 64 MiB in a sparse file of a terabyte: refused at the limit, not after hours."""
    key = b"tokenizer.ggml.tokens"
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little")
    head += (1).to_bytes(8, "little") + len(key).to_bytes(8, "little") + key
    head += (9).to_bytes(4, "little") + (8).to_bytes(4, "little")
    head += (1_000_000).to_bytes(8, "little")
    path = tmp_path / "long.gguf"
    with path.open("wb") as file:
        file.write(head)
        at = len(head)
        while at < 2 * MAX_HEADER_BYTES:
            file.seek(at)
            file.write((2**26).to_bytes(8, "little"))
            at += 8 + 2**26
        file.truncate(2**40)
    with pytest.raises(BadModelFileError, match="beyond the limit"):
        read_gguf_header(path)


@pytest.mark.parametrize("cut", [0, 100, 3000])
def test_a_file_that_shrinks_while_it_is_read_is_truncated(cut: int, tmp_path: Path) -> None:
    """Not a crash: it is read, and never mapped."""
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "x", "a": "b" * 4000}, {"t": (8,)}))
    with open_local(path) as source:
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(BadModelFileError, match="truncated"):
            gguf_header(source)


def test_kept_bytes_are_put_together_from_several_answers() -> None:
    """Gaps are fetched, the rest is not asked for again."""
    data = bytes(range(200))
    server = Server(data, size=200)
    source = server.source()
    assert source.read_at(20, 20) == data[20:40]
    assert source.read_at(60, 20) == data[60:80]
    assert source.read_at(10, 90) == data[10:100]
    assert server.asked == [(20, 40), (60, 80), (10, 20), (40, 60), (80, 100)]
    assert source.read_at(0, 0) == b""
    read: Callable[[int, int], bytes] = source.read_at
    assert read(15, 70) == data[15:85]
    assert len(server.asked) == 5
