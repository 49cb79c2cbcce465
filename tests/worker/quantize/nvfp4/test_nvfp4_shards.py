"""Places, headers and the room that is needed: arithmetic over any list of tensors."""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from gemd.footprint.safetensors import BITS, safetensors_header
from gemd.worker.quantize.nvfp4.layout import Copy, Pack, Part
from gemd.worker.quantize.nvfp4.shards import hash_of, index_of, lay_out, peak_bytes

if TYPE_CHECKING:
    from gemd.worker.quantize.nvfp4.layout import Job

LIMIT = 4096


class Sparse:
    """A file that has a header and, by its size, something behind it."""

    name = "sparse"

    def __init__(self, header: bytes, size: int) -> None:
        self._header = header
        self.size = size

    def read_at(self, offset: int, count: int) -> bytes:
        """Bytes of the header."""
        return self._header[offset : offset + count]


@st.composite
def jobs(draw: st.DrawFn) -> list[Job]:
    """Tensors that are copied and matrices that are packed, of up to three files."""
    made: list[Job] = []
    for number in range(draw(st.integers(1, 12))):
        file = f"file-{draw(st.integers(0, 2))}"
        if draw(st.booleans()):
            dtype = draw(st.sampled_from(["BF16", "F32", "U8", "I64"]))
            shape = tuple(draw(st.lists(st.integers(0, 9), max_size=3)))
            made.append(Copy(Part(file, f"plain.{number}", dtype, shape, 0)))
        else:
            rows, columns = draw(st.integers(1, 7)), 16 * draw(st.integers(1, 9))
            other = f"file-{draw(st.integers(0, 2))}"
            paths = (f"m.{number}.gate", f"m.{number}.up")
            parts = tuple(Part(each, "fused", "BF16", (rows, columns), 0) for each in (file, other))
            made.append(Pack(paths, parts))
    return made


@settings(deadline=None)
@given(jobs())
def test_headers_say_where_everything_lies(given_jobs: list[Job]) -> None:
    """Read by gemd's own parser, which refuses holes and overlaps; numbers are aligned."""
    shards = lay_out(given_jobs, LIMIT)
    seen = {}
    for shard in shards:
        header = safetensors_header(Sparse(shard.header, shard.size))
        assert header.metadata == {"format": "pt"}
        assert header.data_offset == len(shard.header)
        assert header.data_offset % 8 == 0
        read = {each.name: each for each in header.tensors}
        for place in shard.places:
            each, output = read.pop(place.output.name), place.output
            assert (each.dtype, each.shape) == (output.dtype, output.shape)
            assert header.data_offset + each.begin == place.offset
            assert each.nbytes == prod(output.shape) * BITS[output.dtype] // 8
            assert place.offset % (BITS[output.dtype] // 8) == 0
            seen[output.name] = shard.name
        assert not read
    assert seen.keys() == {output.name for job in given_jobs for output in job.outputs}
    assert json.loads(index_of(shards))["weight_map"] == seen
    assert [job for shard in shards for job in shard.jobs] == given_jobs


@settings(deadline=None)
@given(jobs())
def test_files_keep_the_limit(given_jobs: list[Job]) -> None:
    """Unless one job alone makes more; their names count up to their number."""
    shards = lay_out(given_jobs, LIMIT)
    for number, shard in enumerate(shards, 1):
        assert shard.name == f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        assert shard.size <= LIMIT or len(shard.jobs) == 1


@settings(deadline=None)
@given(jobs(), st.sets(st.integers(0, 11)), st.dictionaries(st.integers(0, 2), st.integers(0, 900)))
def test_the_room_that_is_needed_is_the_most_at_any_time(
    given_jobs: list[Job], done: set[int], sizes: dict[int, int]
) -> None:
    """Played through: each job writes, and then what nobody reads any more is given back."""
    shards = lay_out(given_jobs, LIMIT)
    names = [
        output.name
        for number, job in enumerate(given_jobs)
        if number in done
        for output in job.outputs
    ]
    freed = {f"file-{number}": size for number, size in sizes.items()}
    left, used, most = dict(freed), 0, 0
    for number, job in enumerate(given_jobs):
        used += sum(output.nbytes for output in job.outputs if output.name not in names)
        most = max(most, used)
        later = {part.file for each in given_jobs[number + 1 :] for part in each.parts}
        for file in {part.file for part in job.parts} - later:
            used -= left.pop(file, 0)
    assert peak_bytes(shards, frozenset(names), freed) == most


def test_plans_that_read_or_write_otherwise_have_other_hashes() -> None:
    """Another place in the source, another limit, another tensor."""
    part = Part("a", "t", "BF16", (4, 16), 0)
    base = hash_of(lay_out([Copy(part)], LIMIT))
    others: list[list[Job]] = [
        [Copy(Part("b", "t", "BF16", (4, 16), 0))],
        [Copy(Part("a", "t", "BF16", (4, 16), 64))],
        [Copy(Part("a", "t", "F32", (4, 16), 0))],
        [Copy(Part("a", "u", "BF16", (4, 16), 0))],
        [Pack(("t",), (part,))],
        [Copy(part), Copy(Part("a", "u", "BF16", (4, 16), 0))],
    ]
    hashes = {hash_of(lay_out(each, LIMIT)) for each in others}
    assert len(hashes | {base}) == len(others) + 1
    assert base == hash_of(lay_out([Copy(part)], LIMIT))
