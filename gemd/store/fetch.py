"""One file over HTTP into a part file: ranged, resumable, hashed on the way.

A part file holds the first bytes of the content and nothing else, so that whoever finds it,
this process or the next one, goes on where it ends.
"""

from __future__ import annotations

import email.utils
import hashlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from gemd.errors import ContentMismatchError, HubUnreachableError
from gemd.store.disk import (
    CHUNK_BYTES,
    PULL_AGAIN,
    disk_errors,
    opened,
    require_space,
    size_of_file,
)
from gemd.store.http import Http, Reply, UnreachableError, is_http, redacted, same_origin
from gemd.store.xet import xet_stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.store.progress import Tracker
    from gemd.store.threads import Stop
    from gemd.store.transport import Retries
    from gemd.store.xet import XetPlace, XetReader

    Places = Callable[["Wanted"], XetPlace | None]

_AGAIN = frozenset({408, 425, 429})
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
SPACE_CHECK_BYTES = 256 << 20
"""After so many bytes it is looked again whether the rest still fits."""
_LONGEST_RETRY_AFTER_S = 86400.0
"""A server may name any number; what is told to a client has to be one that it can hold."""


class RefusedError(Exception):
    """The server answered, and means no: a status below 500 that waiting does not change."""

    def __init__(self, url: str, status: int, code: str) -> None:
        super().__init__(f"{redacted(url)} answered {status} {code}".rstrip())
        self.url = redacted(url)
        self.status = status
        self.code = code
        """The hub's X-Error-Code, or empty."""


@dataclass(frozen=True)
class Wanted:
    """A file to fetch.

    Attributes:
        unit: Id of the unit that progress is reported under.
        url: May hold credentials.
        token: Bearer token for the URL's host; empty for none.
        part: Where the bytes go.
        size_bytes: Its size.
        sha256: Its hash; empty if only git's is known.
        blob_id: Git's SHA-1 of it; empty if that is not to be checked.
        mode: Permissions of the part file, of which the umask takes some.

    """

    unit: str
    url: str
    part: Path
    size_bytes: int
    sha256: str
    token: str = ""
    blob_id: str = ""
    mode: int = 0o600

    def digest(self) -> Digest:
        """Of nothing yet."""
        return Digest(self.sha256, self.blob_id, self.size_bytes)


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Fetcher:
    """What fetching needs besides the file.

    Attributes:
        http: The client.
        retries: Patience.
        tracker: Takes the progress.
        disk_usage: As `shutil.disk_usage`.
        wall: Seconds since the epoch, for servers that name a time to come back.
        asking: Called, in the fetching thread, before the first request.
        answered: Called there when bytes of a request's answer have come.
        xet: Tells where a file is in Xet storage, None if it is not there, or raises
            `UnreachableError`; called there once a file. None: over HTTP only.

    """

    http: Http
    retries: Retries
    tracker: Tracker
    disk_usage: Callable[[Path], tuple[int, int, int]]
    wall: Callable[[], float] = time.time
    asking: Callable[[], None] = _nothing
    answered: Callable[[], None] = _nothing
    xet: Places | None = None

    def fetch(self, wanted: Wanted, stop: Stop) -> str:
        """Completes the part file, so that it has the promised size and hash. Blocks.

        A content of another hash is deleted and fetched once more.

        Returns:
            SHA-256 of the content.

        Raises:
            ContentMismatchError: The server twice gave other bytes; nothing is left of them.
            DiskFullError: The part is kept.
            HubUnreachableError: Retries are used up; the part is kept.
            RefusedError: The server does not give it; the part is kept.
            Stopped: `stop` was set; the part is kept.

        """
        try:
            return self._once(wanted, stop, self.xet)
        except ContentMismatchError:
            # Xet checks what it brings itself: whatever is wrong there is wrong the next time.
            return self._once(wanted, stop, xet=None)

    def _once(self, wanted: Wanted, stop: Stop, xet: Places | None) -> str:
        with (
            disk_errors(wanted.part, lambda: size_of_file(wanted.part), wanted.size_bytes),
            opened(wanted.part, wanted.mode) as file,
        ):
            if size_of_file(wanted.part) > wanted.size_bytes:
                _empty(file)
            digest = self._rehashed(wanted, file, stop)
            present = size_of_file(wanted.part)
            require_space(wanted.size_bytes - present, wanted.part.parent, self.disk_usage)
            self.tracker.enter("downloading")
            self.tracker.begin(wanted.unit, current=present, reused=present)
            if xet and present < wanted.size_bytes:
                self._through_xet(xet, wanted, file, digest, stop)
            digest = self._persist(wanted, file, digest, stop)
            file.flush()
        try:
            digest.check(wanted.url)
        except ContentMismatchError:
            wanted.part.unlink()
            raise
        self.tracker.complete(wanted.unit)
        return digest.sha256

    def _rehashed(self, wanted: Wanted, file: BinaryIO, stop: Stop) -> Digest:
        """The hash of what an earlier try left."""
        digest = wanted.digest()
        file.seek(0)
        if size_of_file(wanted.part):
            self.tracker.enter("checking")
        while chunk := file.read(CHUNK_BYTES):
            stop.check()
            digest.update(chunk)
        return digest

    def _persist(self, wanted: Wanted, file: BinaryIO, digest: Digest, stop: Stop) -> Digest:
        """Tries until the file has its size; returns the hash of all of it."""
        failures = 0
        progress_at = file.tell()
        if progress_at < wanted.size_bytes:
            self.asking()
        while file.tell() < wanted.size_bytes:
            try:
                digest = self._attempt(wanted, file, digest, stop)
                continue
            except _TransientError as error:
                stop.check()
                file.flush()
                if file.tell() - progress_at >= self.retries.progress_bytes:
                    failures, progress_at = 0, file.tell()
                failures += 1
                delay = max(self.retries.delay_s(failures), error.retry_after or 0.0)
                if failures >= self.retries.attempts or delay > self.retries.longest_delay_s:
                    raise self._gone(wanted, error, failures, file.tell()) from error
            stop.wait(delay)
        return digest

    def _through_xet(
        self,
        places: Places,
        wanted: Wanted,
        file: BinaryIO,
        digest: Digest,
        stop: Stop,
    ) -> None:
        """Appends what Xet storage gives; what that leaves open is fetched over HTTP, and told."""
        try:
            place = places(wanted)
            if place is None:
                return
            with xet_stream(
                place,
                size_bytes=wanted.size_bytes,
                start=file.tell(),
                # As with a redirect: the pass for the storage may be another server's matter.
                token=wanted.token if same_origin(place.refresh_url, wanted.url) else "",
                environ=self.http.environ,
                read_timeout_s=self.http.read_timeout_s,
                stop=stop,
            ) as stream:
                self._copy(wanted, stream, file, digest, stop)
            failure = f"Xet storage ended after {file.tell()} of {wanted.size_bytes} bytes"
        except UnreachableError as error:
            stop.check()
            failure = str(error)
        if file.tell() < wanted.size_bytes:
            self.tracker.enter("downloading", message=f"{failure}; going on over HTTP")

    def _attempt(self, wanted: Wanted, file: BinaryIO, digest: Digest, stop: Stop) -> Digest:
        """One request; appends what it brings, and raises `_TransientError` if that falls short."""
        offset = file.tell()
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self.http.get(wanted.url, stop=stop, headers=headers, token=wanted.token) as reply:
                self._admit(wanted, reply)
                if offset and not _continues(reply, offset):
                    # The server knows no ranges, or not this one: from the start, cleanly.
                    _empty(file)
                    digest = wanted.digest()
                    self.tracker.begin(wanted.unit)
                if reply.status != (206 if file.tell() else 200):
                    raise _TransientError(f"{reply.status} to a request from byte {offset} on")
                self._copy(wanted, reply, file, digest, stop)
        except UnreachableError as error:
            raise _TransientError(str(error)) from error
        if file.tell() < wanted.size_bytes:
            raise _TransientError(
                f"the connection ended after {file.tell()} of {wanted.size_bytes} bytes"
            )
        return digest

    def _admit(self, wanted: Wanted, reply: Reply) -> None:
        """Lets 200, 206 and 416 pass."""
        if reply.status in {200, 206, 416}:
            return
        if reply.status in _AGAIN or reply.status >= 500:  # noqa: PLR2004 - server errors
            raise _TransientError(
                f"{reply.status} {_phrase(reply)}", retry_after=self._retry_after(reply)
            )
        raise RefusedError(wanted.url, reply.status, reply.headers.get("X-Error-Code", ""))

    def _copy(
        self, wanted: Wanted, reply: Reply | XetReader, file: BinaryIO, digest: Digest, stop: Stop
    ) -> None:
        first = True
        unchecked = 0
        while chunk := reply.read(CHUNK_BYTES):
            stop.check()
            unchecked += len(chunk)
            if unchecked >= SPACE_CHECK_BYTES:
                # Others write to the disk as well, and nothing is worse for them than a full one.
                missing = max(0, wanted.size_bytes - file.tell())
                require_space(missing, wanted.part.parent, self.disk_usage)
                unchecked = 0
            if first:
                self.answered()
                first = False
            if file.tell() + len(chunk) > wanted.size_bytes:
                _empty(file)
                promised = wanted.sha256 or wanted.blob_id
                raise mismatch(
                    wanted.url, promised, "more bytes than promised", git=not wanted.sha256
                )
            file.write(chunk)
            digest.update(chunk)
            self.tracker.advance(wanted.unit, len(chunk))

    def _retry_after(self, reply: Reply) -> float | None:
        value = reply.headers.get("Retry-After", "").strip()
        if value.isascii() and value.isdecimal():
            return min(float(value), _LONGEST_RETRY_AFTER_S)
        try:
            until = email.utils.parsedate_to_datetime(value).timestamp()
        except (ValueError, OverflowError):
            return None
        return min(max(0.0, until - self.wall()), _LONGEST_RETRY_AFTER_S)

    def _gone(
        self, wanted: Wanted, error: _TransientError, failures: int, present: int
    ) -> HubUnreachableError:
        url = redacted(wanted.url)
        return HubUnreachableError(
            f"{url} gave {present} of {wanted.size_bytes} bytes and failed {failures} times",
            why=str(error),
            advice=(PULL_AGAIN,),
            metadata={
                "url": url,
                "current_bytes": present,
                "total_bytes": wanted.size_bytes,
                "failures": failures,
            },
            retry_after=error.retry_after,
        )


class Digest:
    """The hash of a content that comes in pieces, and the one by which git names it, if promised.

    Git's is the SHA-1 of the size in a header and then the content (git's documentation, "Git
    Objects").

    Args:
        sha256: The promised one; empty if git's is all that is known.
        blob_id: The promised one of git; empty if none is to be checked.
        size_bytes: Of the whole content.

    """

    def __init__(self, sha256: str, blob_id: str, size_bytes: int) -> None:
        self._promised = sha256
        self._blob_id = blob_id
        self._sha256 = hashlib.sha256()
        header = b"blob %d\0" % size_bytes
        self._git = hashlib.sha1(header, usedforsecurity=False) if blob_id else None

    def update(self, chunk: bytes) -> None:
        """These bytes follow."""
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)

    @property
    def sha256(self) -> str:
        """Of what has come, in hexadecimal digits."""
        return self._sha256.hexdigest()

    def check(self, subject: str) -> None:
        """Checks that the content is the promised one.

        Raises:
            ContentMismatchError: It is another.

        """
        if self._promised not in {"", self.sha256}:
            raise mismatch(subject, self._promised, self.sha256)
        if self._git is not None and self._git.hexdigest() != self._blob_id:
            raise mismatch(subject, self._blob_id, self._git.hexdigest(), git=True)


class _TransientError(Exception):
    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


def mismatch(
    subject: str, expected: str, actual: str, *, git: bool = False
) -> ContentMismatchError:
    """The error for bytes that are not those of the promised SHA-256, or git's SHA-1.

    `actual` is a hash of the same kind, or says what was found instead.
    """
    url = redacted(subject) if is_http(subject) else subject
    kind, command = ("git's SHA-1", "git hash-object --stdin") if git else ("SHA-256", "sha256sum")
    return ContentMismatchError(
        f"{url} does not have the promised content",
        why=f"{kind} {expected} was promised, {actual} was found",
        advice=(f"curl -sSL {url} | {command}", PULL_AGAIN) if is_http(url) else (PULL_AGAIN,),
        metadata={
            "subject": url,
            "expected_git_sha1" if git else "expected_sha256": expected,
            "actual": actual,
        },
    )


def _continues(reply: Reply, offset: int) -> bool:
    span = _RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
    return reply.status == 206 and span is not None and int(span[1]) == offset  # noqa: PLR2004


def _phrase(reply: Reply) -> str:
    return reply.headers.get("X-Error-Message") or reply.headers.get("X-Error-Code") or ""


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
