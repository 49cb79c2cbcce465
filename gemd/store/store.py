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
    ContentMismatchError,
    GemdError,
    ModelNotFoundError,
    OperationConflictError,
    RepoGatedError,
)
from gemd.store.disk import PULL_AGAIN, disk_errors
from gemd.store.kept import files_of
from gemd.store.manifest import Manifest
from gemd.store.progress import PullProgress, Tracker
from gemd.store.pulling import Pulling
from gemd.store.refusals import pull_command
from gemd.store.request import Request, unusual
from gemd.store.shelf import ModelFile, Shelf, found_file
from gemd.store.snapshots import hub_cache
from gemd.store.threads import in_thread
from gemd.store.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gemd.catalog import Profile, Variant
    from gemd.store.kept import Entry, Kept
    from gemd.store.notes import Note
    from gemd.store.releasing import Deleted
    from gemd.store.request import Got


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
        revision: str = "",
    ) -> ModelFile:
        """Brings a variant to disk and verifies it; returns at once what is there already.

        A second pull of the same variant joins the first one, whatever its options. Bytes of
        an earlier try are used, also one of a process that was killed, and so is what other
        tools have put into the user's hub cache. When the caller is cancelled, and nobody else
        waits, the transfer stops and its bytes are kept.

        Args:
            profile: The model.
            report: Takes snapshots, in the event loop.
            variant: Id of the variant, or of the checkpoint; empty for the preferred variant.
            force: Ask the source although it is there, and check every byte; what is missing,
                wrong or new is fetched. The old files are served until the new ones are there.
            accept_licence: The user agrees to the terms in the profile.
            source: Kind of the only source to use; empty for all in their order.
            revision: Branch, tag or commit to ask the hub for in place of the profile's. A pull
                without one goes back to the profile's.

        Raises:
            InvalidRequestError: No such variant, source or revision, or it is made here.
            RepoGatedError: Terms were not accepted, here or on the hub.
            AuthRequiredError: The hub wants a token.
            HubUnreachableError: No source answered.
            ModelNotFoundError: The sources do not have it.
            ContentMismatchError: They have other bytes.
            DiskFullError: No room; what there is is kept.
            ConfigError: The store's folder or the hub cache cannot be used.

        """
        chosen = self.chosen(profile, variant)
        request = Request(profile, chosen, force, source, unusual(chosen, revision))
        found, there = await in_thread(lambda _: self._looked_at(request), abandon=True)
        if found is not None:
            return found
        key = (profile.model, chosen.id)
        while (shared := self._running.get(key)) and shared.task.cancelling():
            # That one ends because nobody wanted it any more; its end is not ours.
            await asyncio.wait({shared.task})
        if shared is None:
            _check_terms(profile, chosen, accepted=accept_licence or there)
            shared = self._start(request)
        return await self._joined(shared, profile, chosen, report)

    def delete(self, profile: Profile, variant: str = "") -> Deleted:
        """As `Shelf.delete`.

        Raises:
            InvalidRequestError: Its file is used as found; such files are never removed.
            OperationConflictError: It is being pulled.

        """
        self._check_idle(profile.model, variant)
        return super().delete(profile, variant)

    def remove(self, entry: Entry) -> Deleted:
        """As `Shelf.remove`.

        Raises:
            OperationConflictError: It is being pulled.

        """
        self._check_idle(entry.manifest.model, entry.manifest.variant)
        return super().remove(entry)

    def _check_idle(self, model: str, variant: str) -> None:
        for pulled_model, pulled in list(self._running):
            if model == pulled_model and variant in {"", pulled}:
                raise OperationConflictError(
                    f"{model} cannot be deleted now",
                    why=f"its variant {pulled} is being pulled",
                    advice=("cancel the pull first",),
                    metadata={"model": model, "variant": pulled},
                )

    def _looked_at(self, request: Request) -> tuple[ModelFile | None, bool]:
        """What will do without a pull, and whether anything is there. Blocks."""
        if path := self._needs_no_pull(request):
            return found_file(request.profile, request.variant, path), True
        return None, self.path_of(request.profile, request.variant) is not None

    def _needs_no_pull(self, request: Request) -> Path | None:
        """Where the bytes of the user's are that the variant is, if they will do."""
        path = self.as_found(request.variant)
        if path is None or request.variant.as_found:
            return path
        with contextlib.suppress(GemdError):
            # A request for more than what is there, or what was pulled is there as well.
            if request.force or request.revision or self.recorded(request):
                return None
        if not self._transport.offline and any(entry.path == path for entry in self.entries()):
            # Pulled for another model, with whose deletion it would go.
            return None
        return path

    def _start(self, request: Request) -> _Shared:
        loop = asyncio.get_running_loop()

        def publish(progress: PullProgress) -> None:
            loop.call_soon_threadsafe(shared.deliver, progress)

        tracker = Tracker(publish, clock=self._clock, wall=self._wall)
        key = (request.profile.model, request.variant.id)
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
        if not request.force and await in_thread(lambda _: self._is_here(request), abandon=True):
            return
        pulling = await in_thread(lambda _: self._pulling(tracker), abandon=True)
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

    def _pulling(self, tracker: Tracker) -> Pulling:
        """Blocks: looks for package indexes in the user's settings."""
        return Pulling(
            self._layout,
            self._transport,
            tracker,
            hub_cache=self.hub_cache,
            shelf=self,
            record=self._record,
            disk_usage=self._disk_usage,
            wall=self._wall,
        )

    def _is_here(self, request: Request) -> bool:
        """Whether what is asked for is on disk, and is what was pulled. Blocks.

        Raises:
            ContentMismatchError: A verification found it bad: the same bytes would be no better.

        """
        manifest = None
        try:
            manifest = self.recorded(request)
            if manifest is not None:
                self.locate(request.profile, request.variant.id)
        except (ContentMismatchError, ModelNotFoundError):
            if manifest is not None and manifest.rejection:
                raise
            return False
        return manifest is not None

    def recorded(self, request: Request) -> Manifest | None:
        """The manifest of what is asked for, if its files are there; content is not checked.

        Raises:
            ContentMismatchError: It is damaged.
            ConfigError: It cannot be read.

        """
        manifest = self.manifest(request.profile, request.variant)
        if manifest is None or manifest.chosen_revision != request.revision:
            return None
        return manifest if self.is_kept(manifest) else None

    def same_bytes(self, sha256: str) -> Manifest | None:
        """A manifest about one file of that hash that is there."""
        return next(
            (
                entry.manifest
                for entry in self.entries()
                if sha256
                and entry.intact
                and not (entry.manifest.parts or entry.manifest.rejection)
                and entry.manifest.sha256 == sha256
            ),
            None,
        )

    def contents(self) -> tuple[Kept, ...]:
        """Files of all manifests."""
        return tuple(
            file for entry in self.entries() for file in files_of(entry.manifest, self.root)
        )

    def let_go(self, gone: Note, keep: Note) -> None:
        """Removes what an unfinished pull left and the next one has no use for."""
        self._releasing.note(gone, keep)

    def _record(self, request: Request, got: Got) -> None:
        profile, variant = request.profile, request.variant
        manifest = Manifest(
            model=profile.model,
            variant=variant.id,
            path=self._layout.reference(got.path),
            sha256=got.sha256,
            stamp=got.stamp,
            parts=got.parts,
            owned=got.owned,
            linked=got.linked,
            source=got.source,
            origin=got.origin,
            hub_file=got.hub_file,
            hub_revision=got.hub_revision,
            chosen_revision=request.revision,
            url=got.url,
            licence=profile.licence,
            accepted_licence=profile.licence_acceptance,
            created=datetime.fromtimestamp(self._wall(), UTC),
        )
        self.record(manifest)


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
