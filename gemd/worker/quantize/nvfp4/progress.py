"""How far the work is, told in steps that are worth a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.wire.quantize import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gemd.worker.quantize.nvfp4.shards import Shard
    from gemd.worker.quantize.source import Step

_REPORTS: Final = 1000
"""How often progress is told in each phase, at most: there are 35,000 tensors."""


class Teller:
    """Tells how far the work is."""

    def __init__(self, report: Step, shards: Iterable[Shard]) -> None:
        self._report = report
        self._phase = ""
        self._current = self._told = 0
        self._total = sum(shard.content_bytes for shard in shards)

    def enter(self, phase: str, current: int = 0) -> None:
        """Go on with another phase, of which so many bytes are done."""
        self._phase, self._current = phase, current
        self._tell("")

    def advancing(self, name: str) -> Callable[[int], None]:
        """Takes bytes that have been done for one tensor or file."""

        def advance(count: int) -> None:
            self._current += count
            step = self._current - self._told
            if step >= self._total // _REPORTS or self._current == self._total:
                self._tell(name)

        return advance

    def _tell(self, name: str) -> None:
        self._told = self._current
        self._report(
            Progress(
                phase=self._phase, name=name, current_bytes=self._current, total_bytes=self._total
            )
        )
