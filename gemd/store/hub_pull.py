"""Files of the hub into the user's hub cache, one after another, until all of them are verified."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.catalog.checkpoints import is_complete
from gemd.catalog.sources import HubSource, RepositorySource
from gemd.errors import ContentMismatchError, ModelNotFoundError
from gemd.footprint.checkpoint import INDEX
from gemd.store import hub
from gemd.store.brought import Brought, got_of
from gemd.store.disk import CHUNK_BYTES, PULL_AGAIN, require_space, size_of_file
from gemd.store.fetch import RefusedError, Wanted
from gemd.store.hub_cache import (
    LOCK_MODE,
    CachedRepository,
    cache_refusals,
    is_safe_name,
    no_cache,
)
from gemd.store.hub_tree import check_index
from gemd.store.kept import pointed_at, real, stamp_of, stays_ours
from gemd.store.locks import exclusive
from gemd.store.manifest import Stamp
from gemd.store.notes import Begun, Note, read_note, write_note
from gemd.store.progress import Unit
from gemd.store.refs import move_ref
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.store.fetch import Fetcher
    from gemd.store.hub import HubFile
    from gemd.store.kept import Kept
    from gemd.store.layout import Layout
    from gemd.store.request import Got, Request
    from gemd.store.threads import Stop
    from gemd.store.transport import Transport


_SHA256_DIGITS: Final = 64
_SHARED: Final = 0o666
"""Who else may read a file of the hub's cache is the umask's matter, as with the hub's client."""


@dataclass(frozen=True)
class HubPull:
    """Brings files of one repository.

    Attributes:
        layout: The store, for notes.
        cache: The user's hub cache; None if nothing says where it is.
        transport: How to reach the hub.
        fetcher: Fetches one file.
        known: Files of all manifests; blocks.
        let_go: Removes what a note is about and the next note is not; blocks.

    """

    layout: Layout
    cache: Path | None
    transport: Transport
    fetcher: Fetcher
    known: Callable[[], tuple[Kept, ...]]
    let_go: Callable[[Note, Note], object]

    async def bring(
        self,
        request: Request,
        source: HubSource | RepositorySource,
        files: tuple[HubFile, ...],
        *,
        last: bool,
    ) -> Got:
        """Completes the files in the cache, whatever of them is there already.

        One that is there is read once and used if its hash is right. A failure of one file leaves
        the others, also to the next try.

        Args:
            request: What is pulled.
            source: Where it comes from, at the revision that is wanted.
            files: All files, in the order in which they are to be fetched; each with its size and
                a hash.
            last: Whether there is no other source to turn to.

        Raises:
            GemdError: As `Store.pull`.

        """
        if self.cache is None:
            raise no_cache()
        work = _Work(self, request, source, CachedRepository.named(self.cache, source.repository))
        with cache_refusals(self.cache):
            return await work.run(files, last=last)

    def cached(self, source: HubSource, sha256: str) -> HubFile | None:
        """A file that is in the cache already, by the commit that the revision meant. Blocks.

        Args:
            source: The file.
            sha256: Its hash, if that is known; else it is the one that its blob is named by.

        """
        if self.cache is None:
            return None
        repository = CachedRepository.named(self.cache, source.repository)
        commit = repository.commit(source.revision)
        if not commit or not is_safe_name(source.file):
            return None
        place = repository.place(commit, source.file)
        etag = repository.etag(commit, source.file) or sha256
        if not etag or not place.is_file():
            return None
        large = len(etag) == _SHA256_DIGITS
        if sha256 and large and etag != sha256:
            return None
        return hub.HubFile(
            url="",
            token="",
            commit=commit,
            size_bytes=place.stat().st_size,
            sha256=sha256 or (etag if large else ""),
            blob_id="" if large else etag,
            name=source.file,
        )


class _Work:
    """One call of `HubPull.bring`."""

    def __init__(
        self,
        pull: HubPull,
        request: Request,
        source: HubSource | RepositorySource,
        repository: CachedRepository,
    ) -> None:
        self._pull = pull
        self._request = request
        self._source = source
        self._repository = repository
        self._tracker = pull.fetcher.tracker
        self._place = pull.layout.begun(request.profile.model, request.variant.id)
        self._known: dict[Path, Kept] = {}
        self._owned: set[Path] = set()
        self._links: set[Path] = set()
        self._note: Note
        self._limit_s: float | None = None

    async def run(self, files: tuple[HubFile, ...], *, last: bool) -> Got:
        commit = files[0].commit
        self._limit_s = None if last else self._pull.transport.hub_timeout_s
        known = await in_thread(lambda _: self._prepared(files, commit), abandon=True)
        # Of two that name the same bytes the one counts that says whose they are.
        self._known = {
            real(each.content): each for each in sorted(known, key=lambda each: each.owned)
        }
        self._tracker.plan(
            tuple(Unit(each.name, each.name, total=each.size_bytes) for each in files)
        )
        brought = []
        for file in files:
            brought.append(await self._one(file))
            if file.name == INDEX and isinstance(self._source, RepositorySource):
                await in_thread(lambda _: self._check_index(files, commit), abandon=True)
        await in_thread(lambda _: self._finish(commit), abandon=True)
        return got_of(self._repository, self._source, commit, brought)

    def _prepared(self, files: tuple[HubFile, ...], commit: str) -> tuple[Kept, ...]:
        """Makes folders, writes down what is begun, and looks whether there is room for it."""
        repository = self._repository
        repository.make(commit)
        note = Note(
            cache=str(repository.cache),
            repository=self._source.repository,
            commit=commit,
            files=tuple(
                Begun(name=each.name, etag=each.etag, size_bytes=each.size_bytes) for each in files
            ),
        )
        noted = earlier = read_note(self._place)
        if earlier and os.path.realpath(earlier.cache) == os.path.realpath(note.cache):
            # By another of its names.
            earlier = earlier.model_copy(update={"cache": note.cache}).still(repository.blob)
        self._note = note.after(earlier)
        if self._note != noted:
            if earlier:
                self._pull.let_go(earlier, note)
                # It may have been all that there was of the repository.
                repository.make(commit)
            write_note(self._place, self._note)
        self._adopt(files)
        missing = sum(
            max(0, each.size_bytes - size_of_file(repository.part(each.etag)))
            for each in {each.etag: each for each in files}.values()
            if not repository.blob(each.etag).exists()
            and not repository.place(commit, each.name).is_file()
        )
        require_space(missing, repository.blobs, self._pull.fetcher.disk_usage)
        known = self._pull.known()
        ours = [each for each in known if stays_ours(each.stamp, stamp_of(each.place))]
        self._owned = {real(each.content) for each in ours if each.owned}
        self._links = {real(each.place) for each in ours if each.linked}
        return known

    def _adopt(self, files: tuple[HubFile, ...]) -> None:
        """Goes on with what an earlier version has fetched into the store."""
        for file in files:
            part = self._repository.part(file.etag)
            old = self._pull.layout.part(file.sha256)
            if file.sha256 and old.exists() and not part.exists():
                # Another file system would take a copy; then it is fetched again.
                with contextlib.suppress(OSError):
                    old.rename(part)

    async def _one(self, file: HubFile) -> Brought:
        lock = self._repository.lock(file.etag)
        async with exclusive(lock, self._waiting, mode=LOCK_MODE):
            brought = await in_thread(
                lambda stop: self._without_link(file, stop), tick=self._tracker.tick
            )
            if brought is not None:
                return brought
            blob = self._repository.blob(file.etag)
            sha256 = await in_thread(
                lambda stop: self._reused(file, blob, stop), tick=self._tracker.tick
            )
            verified = await self._fetched(file) if sha256 is None else sha256
            return await in_thread(lambda _: self._linked(file, verified))

    def _waiting(self) -> None:
        self._tracker.enter("waiting", message="another process fetches the same file")

    def _without_link(self, file: HubFile, stop: Stop) -> Brought | None:
        """What somebody has put in the file's place without the usual link, if it is the file.

        So it is where links are switched off, and where a cache was copied.

        Raises:
            ContentMismatchError: It is another one, which somebody may want to keep.

        """
        repository = self._repository
        place = repository.place(file.commit, file.name)
        if repository.etag(file.commit, file.name) == file.etag or not place.is_file():
            return None
        sha256 = self._reused(file, content := pointed_at(place), stop)
        if sha256 is None and not place.is_symlink():
            raise ContentMismatchError(
                f"{place} is not what the hub has",
                why="it is a file and no link: gemd has not put it there, and leaves it",
                advice=(f"mv {shlex.quote(str(place))} {shlex.quote(f'{place}.mine')}", PULL_AGAIN),
                metadata={"path": place, "file": file.name, "etag": file.etag},
            )
        if sha256 is None:
            return None
        begun = self._note.file(file.name)
        return Brought(file, content, sha256, Stamp.of(place.stat()), begun)

    def _reused(self, file: HubFile, content: Path, stop: Stop) -> str | None:
        """SHA-256 of what the cache has already, if that is the file; None if it has to be fetched.

        What a manifest tells is believed, unless every byte is to be checked.
        """
        if size_of_file(content) != file.size_bytes or not content.is_file():
            return None
        known = self._known.get(real(content))
        sha256 = known.sha256 if known and known.is_intact() and not self._request.force else ""
        if not sha256:
            self._tracker.enter("checking")
            self._tracker.begin(file.name)
            with contextlib.suppress(ContentMismatchError):
                sha256 = self._read(content, file, stop)
        if not sha256:
            return None
        self._tracker.begin(file.name, reused=file.size_bytes)
        self._tracker.complete(file.name)
        return sha256

    def _read(self, path: Path, file: HubFile, stop: Stop) -> str:
        digest = self._wanted(file).digest()
        with path.open("rb") as content:
            while chunk := content.read(CHUNK_BYTES):
                stop.check()
                digest.update(chunk)
                self._tracker.advance(file.name, len(chunk))
        digest.check(str(path))
        return digest.sha256

    async def _fetched(self, file: HubFile) -> str:
        pull = self._pull
        if not file.url:
            # It was to be used as it is in the cache, and is not what it is named there.
            raise ContentMismatchError(
                f"{file.name} in the hub cache is not what it is named by",
                why="the hub cannot be asked for it",
                advice=(PULL_AGAIN,),
                metadata={"path": self._repository.blob(file.etag), "file": file.name},
            )
        # A deletion may have found the folder empty since it was made.
        await in_thread(lambda _: self._repository.blobs.mkdir(parents=True, exist_ok=True))
        wanted = self._wanted(file)
        # Once a server has sent something, patience is that of transfers.
        limit_s, self._limit_s = self._limit_s, None
        try:
            sha256 = await hub.first_bytes_within(
                limit_s, pull.fetcher, wanted, pull.transport, self._tracker.tick
            )
        except RefusedError as error:
            endpoint = pull.transport.hub_endpoint
            raise hub.refused(self._source, endpoint, error, with_token=bool(file.token)) from error
        await in_thread(lambda _: self._put(file))
        return sha256

    def _wanted(self, file: HubFile) -> Wanted:
        part = self._repository.part(file.etag)
        blob_id = "" if file.sha256 else file.blob_id
        return Wanted(
            file.name,
            file.url,
            part,
            file.size_bytes,
            file.sha256,
            file.token,
            blob_id,
            mode=_SHARED,
        )

    def _linked(self, file: HubFile, sha256: str) -> Brought:
        repository = self._repository
        blob = repository.blob(file.etag)
        if repository.etag(file.commit, file.name) != file.etag:
            self._write_down(file, stamp_of(blob), ours=False, linked=True)
            repository.link(file.commit, file.name, file.etag)
        place = repository.place(file.commit, file.name)
        begun = self._note.file(file.name)
        ours = real(blob) in self._owned or any(
            each.still(blob).ours for each in self._note.files if each.etag == file.etag
        )
        begun = begun.model_copy(
            update={"ours": bool(ours), "linked": begun.linked or real(place) in self._links}
        )
        return Brought(file, blob, sha256, Stamp.of(place.stat()), begun)

    def _put(self, file: HubFile) -> None:
        """Makes a verified part the blob, and says before whose it is.

        Not before it is fetched: until then others may put it there.
        """
        repository = self._repository
        blob = repository.blob(file.etag)
        known = self._known.get(real(blob))
        # What somebody else has there with other bytes is mended for them.
        if (known and known.owned) or not blob.exists():
            linked = repository.etag(file.commit, file.name) != file.etag
            linked = linked or (known is not None and known.linked)
            stamp = stamp_of(repository.part(file.etag))
            self._write_down(file, stamp, ours=True, linked=linked)
        repository.finish(file.etag)

    def _write_down(self, file: HubFile, stamp: Stamp | None, *, ours: bool, linked: bool) -> None:
        """Notes, before it is done, what of a file is going to be gemd's."""
        begun = self._note.file(file.name)
        changed = begun.model_copy(
            update={
                "ours": begun.ours or ours,
                "stamp": stamp,
                "linked": begun.linked or linked,
            }
        )
        if changed != begun:
            self._note = self._note.with_file(changed)
            write_note(self._place, self._note)

    def _check_index(self, files: tuple[HubFile, ...], commit: str) -> None:
        assert isinstance(self._source, RepositorySource)
        index = self._repository.place(commit, INDEX)
        check_index(index, frozenset(each.name for each in files), self._source)

    def _finish(self, commit: str) -> None:
        """Looks whether everything is there, and lets other tools find it."""
        if isinstance(self._source, RepositorySource):
            folder = self._repository.snapshot(commit)
            if not is_complete(folder):
                raise ModelNotFoundError(
                    f"{self._source.origin} is no whole checkpoint",
                    why="files are missing that the names of others promise",
                    advice=(f"ls -lL {folder}",),
                    metadata={"repository": self._source.repository, "commit": commit},
                )
        move_ref(self._pull.layout.root, self._repository, self._source.revision, commit)
