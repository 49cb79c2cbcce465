"""Keeps files of models that are not warm in the page cache, so that a load is no disk read.

They take memory that is free of everything: no program, and nobody's cached files, make way. What
is parked belongs to nobody, stands in no ledger, and goes as soon as a program needs the memory.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from gemd.hardware.page_cache import BLOCK, missing_blocks, read_blocks, resident_bytes
from gemd.residency.states import State
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gemd.residency.states import Residence

log = structlog.get_logger(__name__)

PERIOD_S: Final = 20.0
"""Between two looks. The kernel drops pages over minutes, not seconds."""
STEP: Final = 128 * 2**20
"""Bytes that are read before looking again whether somebody is served."""


def parked(seen: Iterable[Residence], sizes: Mapping[str, int], *, allowance: int) -> list[str]:
    """Paths of the files to keep, the one that was used last first.

    Args:
        seen: All models.
        sizes: Bytes by path, of those that exist.
        allowance: Bytes that all of them together may take; what does not fit is left out.

    """
    cold = [each for each in seen if each.state is State.COLD and each.path in sizes]
    kept: list[str] = []
    for each in sorted(cold, key=lambda each: each.last_used or 0.0, reverse=True):
        if each.path not in kept and sizes[each.path] <= allowance:
            allowance -= sizes[each.path]
            kept.append(each.path)
    return kept


class Parking:
    """Looks after the files from time to time, while nobody is served.

    Args:
        residences: All models as they stand.
        allowance: Bytes that the files may take.
        unused: Bytes of memory that hold nothing at all and that nobody shall miss.
        period_s: See `PERIOD_S`.

    """

    def __init__(
        self,
        residences: Callable[[], Mapping[str, Residence]],
        *,
        allowance: int,
        unused: Callable[[], int],
        period_s: float = PERIOD_S,
    ) -> None:
        self._residences = residences
        self._allowance = allowance
        self._unused = unused
        self._period_s = period_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="parking")

    async def stop(self) -> None:
        """End; a file that is being read stays as far as it was."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look(self) -> None:
        """Read what is missing of the files that are to stay, as far as memory is unused."""
        seen = list(self._residences().values())
        sizes = await in_thread(lambda _: _sizes(each.path for each in seen), abandon=True)
        for name in parked(seen, sizes, allowance=self._allowance):
            try:
                await self._look_at(_parts(name), sizes[name])
            except (OSError, ValueError) as error:
                log.warning("parking.unreadable", path=name, error=str(error))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self.look()
            except Exception:
                # What is parked is a comfort; the daemon goes on without it.
                log.exception("parking.failed")

    async def _look_at(self, parts: Sequence[Path], size: int) -> None:
        missing = size - await in_thread(lambda _: sum(map(resident_bytes, parts)))
        # All of it or nothing: a load waits for the last byte.
        if 0 < missing <= self._unused():
            for path in parts:
                await self._read(path)

    async def _read(self, path: Path) -> None:
        """Read what is missing of a file, as long as nobody is served and memory is unused."""
        began, total = time.monotonic(), 0
        left = await in_thread(lambda _: missing_blocks(path))
        while left and not self._is_serving():
            blocks, left = left[: STEP // BLOCK], left[STEP // BLOCK :]
            if self._unused() < len(blocks) * BLOCK:
                break
            total += await self._read_now(path, blocks)
        if total:
            seconds = round(time.monotonic() - began, 3)
            log.info("parking.read", path=str(path), bytes=total, seconds=seconds)

    async def _read_now(self, path: Path, blocks: Sequence[int]) -> int:
        return await in_thread(lambda stop: read_blocks(path, blocks, check=stop.check))

    def _is_serving(self) -> bool:
        """Whether the disk and the processor are for somebody who waits."""
        return any(
            each.active or each.waiting or each.state is State.LOADING
            for each in self._residences().values()
        )


def _sizes(paths: Iterable[str]) -> dict[str, int]:
    sizes = {}
    for path in filter(None, paths):
        try:
            sizes[path] = sum(part.stat().st_size for part in _parts(path))
        except OSError:
            # Deleted meanwhile, or on a disk that is away.
            continue
    return sizes


def _parts(path: str) -> list[Path]:
    # Not before somebody parks something: it brings half of the readers of model files along.
    from gemd.footprint import part_paths  # noqa: PLC0415 - see above

    return part_paths(Path(path))
