"""Where the bytes of a header come from: a file here, or one elsewhere by ranges."""

from __future__ import annotations

import bisect
import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final, Protocol

from gemd.errors import BadModelFileError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_REMOTE_BYTES: Final = 32 * 1024**2
"""Of one remote file, kept in memory meanwhile. The largest headers have some 16 MiB: a
vocabulary with its merges."""


class Source(Protocol):
    """Bytes of a fixed number that can be read anywhere."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def size(self) -> int:
        """Bytes it had when it was opened; nothing is believed beyond it."""
        ...

    def read_at(self, offset: int, count: int) -> bytes:
        """These bytes; fewer where the source has become shorter than it was."""
        ...


class LocalSource:
    """An open file.

    Reading, and not mapping, because a file that shrinks under a mapping ends the process with
    SIGBUS.

    Args:
        descriptor: Open for reading; stays the caller's.
        size: Bytes it has.
        name: For messages.

    """

    def __init__(self, descriptor: int, size: int, name: str) -> None:
        self._descriptor = descriptor
        self.size = size
        self.name = name

    def read_at(self, offset: int, count: int) -> bytes:
        """See `Source`. Raises OSError."""
        data = os.pread(self._descriptor, count, offset)
        while len(data) < count:
            more = os.pread(self._descriptor, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


class RemoteSource:
    """A file elsewhere; no networking of its own. No byte is fetched twice.

    Args:
        fetch: Gives the bytes from `start` up to and without `end`. It has to ask for one
            version of the file all the time, and raises the domain error of whatever goes wrong.
        size: Bytes the file has.
        name: For messages.
        limit: No more than so many bytes are fetched: a header may claim to be of any length.

    """

    def __init__(
        self,
        fetch: Callable[[int, int], bytes],
        *,
        size: int,
        name: str,
        limit: int = MAX_REMOTE_BYTES,
    ) -> None:
        self._fetch = fetch
        self._limit = limit
        self._starts: list[int] = []
        self._chunks: list[bytes] = []
        self.size = size
        self.name = name
        self.fetched = 0
        """Bytes so far."""

    def read_at(self, offset: int, count: int) -> bytes:
        """See `Source`.

        Raises:
            BadModelFileError: The limit is reached, or an answer has another length.

        """
        parts, at, end = [], offset, offset + count
        while at < end:
            parts.append(self._kept(at, end) or self._fetched(at, end))
            at += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _kept(self, at: int, end: int) -> bytes:
        """What there is already from here on; nothing if this byte is not there."""
        index = bisect.bisect_right(self._starts, at) - 1
        if index < 0:
            return b""
        start = at - self._starts[index]
        return self._chunks[index][start : start + end - at]

    def _fetched(self, at: int, end: int) -> bytes:
        index = bisect.bisect_right(self._starts, at)
        if index < len(self._starts):
            end = min(end, self._starts[index])
        count = end - at
        if self.fetched + count > self._limit:
            raise self._refused(at, f"its header takes more than {self._limit} bytes")
        data = self._fetch(at, end)
        self.fetched += len(data)
        if len(data) != count:
            raise self._refused(
                at, f"{len(data)} bytes came where {count} were asked for; it has changed meanwhile"
            )
        self._starts.insert(index, at)
        self._chunks.insert(index, data)
        return data

    def _refused(self, offset: int, why: str) -> BadModelFileError:
        return BadModelFileError(
            f"the header of {self.name} cannot be read (at byte {offset} of {self.size})",
            why=why,
            advice=("gemctl list",),
            metadata={"file": self.name, "offset": offset, "size": self.size},
        )


@contextlib.contextmanager
def open_local(path: Path) -> Iterator[LocalSource]:
    """The file as a source, for as long as the block lasts.

    Raises:
        ModelNotFoundError: There is no such file.
        BadModelFileError: It is no regular file, or cannot be read.

    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _unreadable(path, "it is no regular file")
            yield LocalSource(descriptor, found.st_size, path.name)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ModelNotFoundError(
            f"there is no file {path}",
            why="the path of a model file has to exist",
            advice=("gemctl list",),
            metadata={"path": path},
        ) from None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None


def _unreadable(path: Path, why: str) -> BadModelFileError:
    return BadModelFileError(
        f"{path} cannot be read as a model",
        why=why,
        advice=("gemctl list",),
        metadata={"path": path, "offset": 0},
    )
