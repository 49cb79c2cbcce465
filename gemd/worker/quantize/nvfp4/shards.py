"""Where each tensor of the result lies: files of bounded size, whose headers are known in advance.

So every tensor has its place before the first is made, and a try that was killed goes on in the
files that it left. As safetensors' own writer has it, tensors of wider elements come first, and the
header is padded with spaces: that keeps each number aligned for whoever maps the file.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gemd.footprint.safetensors import BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gemd.worker.quantize.nvfp4.layout import Job, Output

_LENGTH: Final = struct.Struct("<Q")
_ALIGNMENT: Final = 8
_ENTRY_BYTES: Final = 128
"""Of a header's entry at most, the name aside."""
_METADATA: Final = {"format": "pt"}
"""Transformers reads no file that does not say so."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies.

    Attributes:
        output: The tensor.
        offset: Bytes from the beginning of the file.

    """

    output: Output
    offset: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.output.nbytes


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of the result.

    Attributes:
        name: As the hub's clients call it.
        header: Its first bytes.
        places: Of its tensors, in the order of their data.
        jobs: That make them.

    """

    name: str
    header: bytes
    places: tuple[Place, ...]
    jobs: tuple[Job, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.places[-1].end

    @property
    def content_bytes(self) -> int:
        """Bytes of its tensors."""
        return self.size - len(self.header)


def lay_out(jobs: Sequence[Job], limit: int) -> tuple[Shard, ...]:
    """The files of a result.

    Args:
        jobs: What makes it, in order; what one job makes stays in one file.
        limit: Bytes of a file; more only for a single job that makes more.

    """
    groups: list[list[Job]] = []
    room = 0
    for job in jobs:
        size = sum(each.nbytes + len(each.name) + _ENTRY_BYTES for each in job.outputs)
        if not groups or size > room:
            groups.append([])
            room = limit - _ENTRY_BYTES
        groups[-1].append(job)
        room -= size
    return tuple(
        _shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", group)
        for number, group in enumerate(groups, 1)
    )


def _shard(name: str, jobs: Sequence[Job]) -> Shard:
    outputs = sorted(
        (output for job in jobs for output in job.outputs), key=lambda each: -BITS[each.dtype]
    )
    table: dict[str, Any] = {"__metadata__": _METADATA}
    at = 0
    for output in outputs:
        end = at + output.nbytes
        table[output.name] = {
            "dtype": output.dtype,
            "shape": list(output.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    header = _LENGTH.pack(len(text)) + text
    places, at = [], len(header)
    for output in outputs:
        places.append(Place(output, at))
        at = places[-1].end
    return Shard(name, header, tuple(places), tuple(jobs))


def index_of(shards: Iterable[Shard]) -> bytes:
    """The index over the files, as JSON."""
    shards = tuple(shards)
    places = {place.output.name: shard.name for shard in shards for place in shard.places}
    total = sum(shard.content_bytes for shard in shards)
    document = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    return json.dumps(document, indent=2).encode() + b"\n"


def hash_of(shards: Iterable[Shard]) -> str:
    """Two results with the same are laid out and made in the same way, if of one source."""
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(shard.name.encode() + shard.header)
        for job in shard.jobs:
            read = [(part.file, part.offset, part.dtype, part.shape) for part in job.parts]
            digest.update(json.dumps([read, [output.name for output in job.outputs]]).encode())
    return digest.hexdigest()


def peak_bytes(shards: Iterable[Shard], done: frozenset[str], freed: Mapping[str, int]) -> int:
    """Bytes that the disk has to have room for at most, at any time of the work.

    Args:
        shards: All of them.
        done: Names of tensors that are there already.
        freed: Bytes that the disk gets back as soon as a file of the source is used up, by its
            name; those that stay are not in it.

    """
    jobs = [
        (job, sum(each.nbytes for each in job.outputs if each.name not in done))
        for shard in shards
        for job in shard.jobs
    ]
    last: dict[str, int] = {}
    for number, (job, _) in enumerate(jobs):
        for part in job.parts:
            last[part.file] = number
    back = [0] * len(jobs)
    for file, number in last.items():
        back[number] += freed.get(file, 0)
    used = peak = 0
    for (_, written), got in zip(jobs, back, strict=True):
        used += written
        peak = max(peak, used)
        used -= got
    return peak
