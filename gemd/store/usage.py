"""When each variant on disk was used last, over restarts of the daemon.

::

    <root>/used/<model>/<variant>   empty; its modification time is the last use
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import structlog

from gemd.errors import InvalidRequestError
from gemd.store.layout import checked_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from gemd.store.kept import Entry

log = structlog.get_logger(__name__)


class Usage:
    """The notes of one store. Every method may be called from any thread.

    Args:
        root: The store's folder.
        wall: Seconds since the epoch.

    """

    def __init__(self, root: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._folder = root / "used"
        self._wall = wall

    def touch(self, model: str, variant: str) -> None:
        """It is used now. Nothing is noted of what is named by a path, and on a full disk."""
        try:
            note = self._note(model, variant)
            note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            moment = self._wall()
            os.utime(note, (moment, moment))
        except InvalidRequestError:
            return
        except OSError as error:
            # Whoever waits for the model does not wait for this.
            log.warning("store.use_not_noted", model=model, variant=variant, error=str(error))

    def last(self, model: str, variant: str) -> float | None:
        """When it was used last, in seconds since the epoch; None if never, or if unknown."""
        try:
            return self._note(model, variant).stat().st_mtime
        except (OSError, InvalidRequestError):
            return None

    def since(self, entry: Entry) -> float:
        """When a variant was needed last: its last use, or the end of its pull if that was later.

        Seconds since the epoch.
        """
        manifest = entry.manifest
        created = manifest.created.timestamp()
        return max(created, self.last(manifest.model, manifest.variant) or created)

    def forget(self, known: Collection[tuple[str, str]]) -> None:
        """Drops the notes of all but these variants, given by model and variant."""
        for note in self._folder.glob("*/*"):
            if (note.parent.name, note.name) not in known:
                with contextlib.suppress(OSError):
                    note.unlink()

    def _note(self, model: str, variant: str) -> Path:
        return self._folder / checked_id(model) / checked_id(variant)
