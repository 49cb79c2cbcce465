"""Notes when variants are used: from when one becomes READY to when it stops being so."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gemd.errors import GemdError
from gemd.residency.states import State, StateChanged
from gemd.store.threads import in_thread
from gemd.store.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.catalog import Profile
    from gemd.residency.states import ResidencyEvent
    from gemd.rpc.library import Library


class UseNotes:
    """Takes every event of residency on its way to those who publish it.

    Args:
        library: Catalogue and store.
        publish: Takes each event next; must not wait.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        library: Library,
        publish: Callable[[ResidencyEvent], None],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._library = library
        self._publish = publish
        self._usage = Usage(library.store.root, wall=wall)
        self._noting: set[asyncio.Task[None]] = set()

    def __call__(self, event: ResidencyEvent) -> None:
        """Pass it on, and note a use if it is the beginning or the end of one. Never waits."""
        self._publish(event)
        if isinstance(event, StateChanged):
            was, now = event.before is State.READY, event.now
            if was is not (now.state is State.READY):
                noting = asyncio.get_running_loop().create_task(self._note(now.model, now.path))
                self._noting.add(noting)
                noting.add_done_callback(self._noting.discard)

    async def _note(self, model: str, path: str) -> None:
        try:
            profile = self._library.resolve(model)
        except GemdError:
            # A model of a daemon's life without a profile: nothing of it is in the store.
            return
        await in_thread(lambda _: self._touch(profile, path))

    def _touch(self, profile: Profile, path: str) -> None:
        for variant in profile.every_variant:
            if str(self._library.store.path_of(profile, variant)) == path:
                self._usage.touch(profile.model, variant.id)
