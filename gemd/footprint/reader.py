"""A bounds-checked cursor over the first part of a file of unknown honesty."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from gemd.errors import BadModelFileError

if TYPE_CHECKING:
    import re

    from gemd.footprint.source import Source

MAX_HEADER_BYTES: Final = 128 * 1024**2
"""No header goes on beyond it. Without that limit a few lengths could make a reader walk through
a file of any size in small steps."""

_FIRST_WINDOW_BYTES: Final = 1024**2
_WINDOW_BYTES: Final = 2 * 1024**2
"""Large enough for few requests to a remote file, and small against what a header takes."""
_LENGTH: Final = struct.Struct("<Q")


class Reader:
    """Reads little-endian values in order; holds one window of the source in memory.

    Args:
        source: What is read, from its start.
        form: Name of its format, for messages.

    """

    def __init__(self, source: Source, form: str) -> None:
        self._source = source
        self._form = form
        self._size = source.size
        self._end = min(source.size, MAX_HEADER_BYTES)
        self._window = b""
        self._start = 0
        self._at = 0

    @property
    def offset(self) -> int:
        """Bytes from the start of the source to the next value."""
        return self._start + self._at

    @property
    def remaining(self) -> int:
        """Bytes from the next value to the end of what may be read."""
        return self._end - self.offset

    def end_at(self, offset: int) -> None:
        """Let nothing be read from there on; no later than now."""
        self._end = min(self._end, offset)

    def fail(self, why: str, *, offset: int | None = None) -> BadModelFileError:
        """The error to raise, with the place it was found at."""
        at = self.offset if offset is None else offset
        name = self._source.name
        return BadModelFileError(
            f"{name} is not a usable {self._form} file (at byte {at} of {self._size})",
            why=why,
            advice=("gemctl list",),
            metadata={"file": name, "offset": at, "size": self._size},
        )

    def match(self, pattern: re.Pattern[bytes], most: int) -> re.Match[bytes] | None:
        """Pass over what the pattern matches here, of at most so many bytes."""
        count = min(most, max(self.remaining, 0))
        if self._at + count > len(self._window):
            self._refill(count)
        found = pattern.match(self._window, self._at, self._at + count)
        if found is not None:
            self._at = found.end()
        return found

    def take(self, count: int) -> bytes:
        """The next bytes; the caller has bounded their number."""
        self._require(count)
        data = self._window[self._at : self._at + count]
        self._at += count
        return data

    def unpack(self, form: struct.Struct) -> Any:
        """The next value of a one-value struct."""
        self._require(form.size)
        (value,) = form.unpack_from(self._window, self._at)
        self._at += form.size
        return value

    def skip(self, count: int) -> None:
        """Pass over bytes without reading them."""
        if count > self.remaining:
            raise self._truncated(count)
        self._at += count

    def skip_strings(self, count: int) -> None:
        """Pass over strings that each begin with their length."""
        if count > self.remaining // _LENGTH.size:
            raise self._truncated(count * _LENGTH.size)
        left = count
        while left:
            self._require(_LENGTH.size)
            left -= self._skip_strings_in_window(left)

    def _skip_strings_in_window(self, count: int) -> int:
        # A vocabulary has up to a million entries: no calls in this loop.
        window, at, unpack = self._window, self._at, _LENGTH.unpack_from
        end, size, done = len(window) - _LENGTH.size, self._end - self._start, 0
        while done < count and at <= end:
            after = at + _LENGTH.size + unpack(window, at)[0]
            if after > size:
                self._at = at
                raise self._truncated(after - at)
            at = after
            done += 1
        self._at = at
        return done

    def _require(self, count: int) -> None:
        if count > self.remaining:
            raise self._truncated(count)
        if self._at + count > len(self._window):
            self._refill(count)

    def _refill(self, count: int) -> None:
        start = self.offset
        ahead = _WINDOW_BYTES if start else _FIRST_WINDOW_BYTES
        wanted = min(max(count, ahead), self._end - start)
        self._window, self._start, self._at = self._source.read_at(start, wanted), start, 0
        if count > len(self._window):
            raise self._truncated(count)

    def _truncated(self, count: int) -> BadModelFileError:
        if self._end < self._size and self.offset + count > MAX_HEADER_BYTES:
            return self.fail(f"its header goes on beyond the limit of {MAX_HEADER_BYTES} bytes")
        return self.fail(
            f"{count} more bytes should follow and {max(self.remaining, 0)} do: "
            "the file is truncated or damaged"
        )
