"""The shelf of models, and how it is filled."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gemd.errors import (
    ConfigError,
    ContentMismatchError,
    GemdError,
    OperationConflictError,
    RepoGatedError,
)
from gemd.store.disk import PULL_AGAIN, disk_errors
from gemd.store.manifest import Manifest, Stamp
from gemd.store.notes import drop_note
from gemd.store.progress import PullProgress, Tracker
from gemd.store.pulling import Got, Pulling, Request
from gemd.store.refusals import pull_command
from gemd.store.shelf import Deleted, ModelFile, Shelf, found_file
from gemd.store.snapshots import hub_cache
from gemd.store.threads import in_thread
from gemd.store.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gemd.catalog import Profile, Variant


@dataclass
class _Shared:
    """A pull that runs, and who waits for it."""

    task: asyncio.Task[None]
    listeners: list[Callable[[PullProgress], None]] = field(default_factory=list)
    last: PullProgress | None = None

    def deliver(self, progress: PullProgress) -> None:
        self.last = progress
        for listener in self.listeners:
            listener(progress)


def _ignore(_: PullProgress) -> None:
    pass


class Store(Shelf):
    """The models below one folder.

    `pull` belongs to one event loop; everything else may be called from any thread, and
    `locate` should be called off the loop, because it may have to read the whole file.

    Args:
        root: The folder; created by the first pull.
        transport: How to reach the world.
        disk_usage: As `shutil.disk_usage`.
        clock: Monotonic seconds.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        root: Path,
        *,
        transport: Transport | None = None,
        disk_usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._transport = transport or Transport()
        super().__init__(root, hub_cache(self._transport.environ))
        self._disk_usage = disk_usage
        self._clock = clock
        self._wall = wall
        self._running: dict[tuple[str, str], _Shared] = {}

    async def pull(
        self,
        profile: Profile,
        report: Callable[[PullProgress], None] = _ignore,
        *,
        variant: str = "",
        force: bool = False,
        accept_licence: bool = False,
        source: str = "",
    ) -> ModelFile:
        """Brings a variant to disk and verifies it; returns at once what is there already.

        A second pull of the same variant joins the first one, whatever its options. Bytes of
        an earlier try are used, also one of a process that was killed. When the caller is
        cancelled, and nobody else waits, the transfer stops and its bytes are kept.

        Args:
            profile: The model.
            report: Takes snapshots, in the event loop.
            variant: Id of the variant; empty for the preferred one.
            force: Fetch it although it is there; the old file is served until the new one is.
            accept_licence: The user agrees to the terms in the profile.
            source: Kind of the only source to use; empty for all in their order.

        Raises:
            InvalidRequestError: No such variant or source.
            RepoGatedError: Terms were not accepted, here or on the hub.
            AuthRequiredError: The hub wants a token.
            HubUnreachableError: No source answered.
            ModelNotFoundError: The sources do not have it.
            ContentMismatchError: They have other bytes.
            DiskFullError: No room; what there is is kept.
            ConfigError: The store's folder cannot be used.
            NotImplementedYetError: It is several files, or to be quantized here.

        """
        chosen = self.chosen(profile, variant)
        if path := self.as_found(chosen):
            return found_file(profile, chosen, path)
        key = (profile.id, chosen.id)
        while (shared := self._running.get(key)) and shared.task.cancelling():
            # That one ends because nobody wanted it any more; its end is not ours.
            await asyncio.wait({shared.task})
        if shared is None:
            there = self.path_of(profile, chosen) is not None
            _check_terms(profile, chosen, accepted=accept_licence or there)
            request = Request(profile, chosen, force=force, source=source)
            shared = self._start(request)
        return await self._joined(shared, profile, chosen, report)

    def delete(self, profile: Profile, variant: str = "") -> Deleted:
        """As `Shelf.delete`.

        Raises:
            InvalidRequestError: Its file is used as found; such files are never removed.
            OperationConflictError: It is being pulled.

        """
        for model, pulled in list(self._running):
            if model == profile.id and variant in {"", pulled}:
                raise OperationConflictError(
                    f"{profile.id} cannot be deleted now",
                    why=f"its variant {pulled} is being pulled",
                    advice=("cancel the pull first",),
                    metadata={"model": profile.id, "variant": pulled},
                )
        return super().delete(profile, variant)

    def _start(self, request: Request) -> _Shared:
        loop = asyncio.get_running_loop()

        def publish(progress: PullProgress) -> None:
            loop.call_soon_threadsafe(shared.deliver, progress)

        tracker = Tracker(publish, clock=self._clock, wall=self._wall)
        key = (request.profile.id, request.variant.id)
        shared = _Shared(loop.create_task(self._pull(request, tracker), name=f"pull {key[0]}"))
        self._running[key] = shared
        shared.task.add_done_callback(lambda _: self._running.pop(key))
        return shared

    async def _joined(
        self,
        shared: _Shared,
        profile: Profile,
        variant: Variant,
        report: Callable[[PullProgress], None],
    ) -> ModelFile:
        shared.listeners.append(report)
        if shared.last:
            report(shared.last)
        try:
            await asyncio.shield(shared.task)
        except asyncio.CancelledError:
            if len(shared.listeners) == 1 and not shared.task.done():
                shared.task.cancel()
                await asyncio.wait({shared.task})
            raise
        finally:
            shared.listeners.remove(report)
        # May hash the whole file again, which the daemon's end must not wait for.
        return await in_thread(lambda _: self.locate(profile, variant.id), abandon=True)

    async def _pull(self, request: Request, tracker: Tracker) -> None:
        if not request.force and self.path_of(request.profile, request.variant):
            with contextlib.suppress(ContentMismatchError):
                await in_thread(
                    lambda _: self.locate(request.profile, request.variant.id), abandon=True
                )
                return
        pulling = Pulling(
            self._layout,
            self._transport,
            tracker,
            known=self._same_bytes,
            record=self._record,
            release=self._released,
            disk_usage=self._disk_usage,
            wall=self._wall,
        )
        with (
            _advice_for(request.profile, request.variant),
            self._layout.refusals(),
            disk_errors(
                self.root,
                lambda: self._layout.unfinished_bytes(pulling.sha256),
                request.variant.size_bytes,
            ),
        ):
            await asyncio.to_thread(self._layout.make)
            await pulling.run(request)

    def _same_bytes(self, sha256: str) -> Manifest | None:
        return next(
            (
                entry.manifest
                for entry in self.entries()
                if entry.intact and entry.manifest.sha256 == sha256
            ),
            None,
        )

    def _record(self, request: Request, got: Got) -> None:
        profile, variant = request.profile, request.variant
        file = self._layout.manifest(profile.id, variant.id)
        replaced = None
        with contextlib.suppress(ContentMismatchError, ConfigError):
            replaced = Manifest.read(file)
        manifest = Manifest(
            model=profile.id,
            variant=variant.id,
            path=self._layout.reference(got.path),
            sha256=got.sha256,
            stamp=Stamp.of(got.path.stat()),
            source=got.source,
            origin=got.origin,
            hub_file=got.asked.file if got.asked else "",
            hub_revision=got.asked.revision if got.asked else "",
            url=got.url,
            licence=profile.licence,
            accepted_licence=profile.licence_acceptance,
            created=datetime.fromtimestamp(self._wall(), UTC),
        )
        manifest.write(file)
        drop_note(self._layout.announced(profile.id, variant.id))
        if replaced is not None and replaced.sha256 != got.sha256:
            # An update: nobody would find the old file any more.
            self._released(replaced.file(self.root))


@contextlib.contextmanager
def _advice_for(profile: Profile, variant: Variant) -> Iterator[None]:
    """Puts the model's name into advice that was written where only bytes are known."""
    try:
        yield
    except GemdError as error:
        error.advice = tuple(
            pull_command(profile, variant) if line == PULL_AGAIN else line for line in error.advice
        )
        raise


def _check_terms(profile: Profile, variant: Variant, *, accepted: bool) -> None:
    if profile.licence_acceptance and not accepted:
        raise RepoGatedError(
            f"{profile.id} may be pulled only by who accepts its terms",
            why=f"read the {profile.licence_acceptance} at {profile.licence_url}",
            advice=(pull_command(profile, variant, "--accept-licence"),),
            metadata={
                "model": profile.id,
                "terms": profile.licence_acceptance,
                "licence_url": profile.licence_url,
            },
        )
