"""Which models have other files, or begin to get them, by what long work on files says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.store.results import Pruned

if TYPE_CHECKING:
    from gemd.store import Operation


@dataclass(frozen=True, slots=True)
class FilesChanged:
    """The files of a model are others, or are about to be."""

    model: str


class FileChanges:
    """Turns snapshots of operations into what they mean for models.

    An operation tells of every few megabytes; a model changes when one begins and when it ends.
    """

    def __init__(self) -> None:
        self._running: set[str] = set()

    def of(self, operation: Operation) -> tuple[FilesChanged, ...]:
        """What has changed with this snapshot, which follows all that were given before."""
        if not operation.done:
            if operation.id in self._running or not operation.model:
                return ()
            self._running.add(operation.id)
            return (FilesChanged(operation.model),)
        self._running.discard(operation.id)
        if isinstance(operation.result, Pruned):
            return _pruned(operation.result)
        return (FilesChanged(operation.model),) if operation.model else ()


def _pruned(result: Pruned) -> tuple[FilesChanged, ...]:
    if result.dry_run:
        return ()
    return tuple(
        FilesChanged(model) for model in dict.fromkeys(item.model for item in result.items) if model
    )
