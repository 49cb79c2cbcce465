"""What an order means: what there is of the source and of the result, and what is to be done."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.errors import BadModelFileError
from gemd.footprint.diffusion_config import architecture_of
from gemd.worker.quantize.nvfp4.disk import PART
from gemd.worker.quantize.nvfp4.journal import Done, Head, read_journal
from gemd.worker.quantize.nvfp4.layout import Sizes, files_of, plan
from gemd.worker.quantize.nvfp4.quantization import described
from gemd.worker.quantize.nvfp4.shards import hash_of, lay_out, peak_bytes
from gemd.worker.quantize.nvfp4.source_files import freed_bytes, list_files, source_config

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from gemd.wire.quantize import Order
    from gemd.worker.quantize.nvfp4.layout import Job
    from gemd.worker.quantize.nvfp4.shards import Shard


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be done.

    Attributes:
        shards: Files of the result.
        config: The config.json of the result.
        head: For the journal.
        done: What there is already.
        fallbacks: How many layers stay in bf16 because of their width.

    """

    shards: tuple[Shard, ...]
    config: bytes
    head: Head
    done: Done
    fallbacks: int

    def open_jobs(self) -> Iterator[Job]:
        """That are not done, in order."""
        for shard in self.shards:
            for job in shard.jobs:
                if not is_done(job, self.done):
                    yield job

    def needed_bytes(self, order: Order) -> int:
        """That the target's disk has to have room for."""
        source, target = Path(order.source), Path(order.target)
        freed = freed_bytes(source, self.head.files, target) if order.discard_source else {}
        return peak_bytes(self.shards, frozenset(self.done.tensors), freed)


def is_done(job: Job, done: Done) -> bool:
    """Whether all that a job makes is on the disk."""
    return all(output.name in done.tensors for output in job.outputs)


def prepare(order: Order, *, shard_bytes: int) -> Prepared:
    """Read what there is, and decide what is to be done. Nothing is written.

    Args:
        order: What was ordered.
        shard_bytes: Of a file of the result at most.

    Raises:
        ModelNotFoundError: There is no configuration, or no weights.
        BadModelFileError: The source cannot be quantized, or what is left of it is not enough.

    """
    source, target = Path(order.source), Path(order.target)
    done = read_journal(target)
    config = source_config(source)
    same_source = done.head is not None and done.head.source == order.source
    files = list_files(source, done.head.files if done.head and same_source else ())
    planned = plan(
        {listing.name: listing.header() for listing in files},
        Sizes.of(architecture_of(config)),
        dense=order.quantize_dense,
    )
    shards = lay_out(planned.jobs, shard_bytes)
    head = Head(
        source=order.source,
        quantize_dense=order.quantize_dense,
        files=files,
        plan=hash_of(shards),
    )
    text = json.dumps(described(config, planned.jobs), indent=2).encode() + b"\n"
    done = _kept(done, target, shards) if done.head == head else Done()
    prepared = Prepared(shards, text, head, done, len(planned.fallbacks))
    _check_source(source, prepared.open_jobs())
    return prepared


def _kept(done: Done, target: Path, shards: Iterable[Shard]) -> Done:
    """Without what was in files that are gone since."""
    kept = Done(done.head)
    for shard in shards:
        if not any(_has_size(target / (shard.name + end), shard.size) for end in ("", PART)):
            continue
        if shard.name in done.files:
            kept.files[shard.name] = done.files[shard.name]
        names = [place.output.name for place in shard.places]
        kept.tensors |= {name: done.tensors[name] for name in names if name in done.tensors}
    return kept


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _check_source(source: Path, jobs: Iterable[Job]) -> None:
    missing: dict[str, int] = {}
    for job in jobs:
        for file in files_of(job):
            if file in missing or not (source / file).is_file():
                missing[file] = missing.get(file, 0) + 1
    for file, count in missing.items():
        raise BadModelFileError(
            f"{source / file} is gone, and {count} layers or tensors that it held are not done",
            why="it was used up by another order, or was moved away",
            advice=(f"ls -lL {shlex.quote(str(source))}", "gemctl list"),
            metadata={"path": source, "file": file, "open": count},
        )


def clear(target: Path, *, keep: Collection[str]) -> None:
    """Remove the files that an earlier try left, all but those of these names."""
    for path in target.iterdir():
        if path.name not in keep and not path.is_dir():
            path.unlink()
