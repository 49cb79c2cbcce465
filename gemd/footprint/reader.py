"""A bounds-checked cursor over the first part of a file of unknown honesty."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from gemd.errors import BadModelFileError

if TYPE_CHECKING:
    from typing import BinaryIO

_WINDOW_BYTES: Final = 1024 * 1024
_LENGTH: Final = struct.Struct("<Q")


class Reader:
    """Reads little-endian values in order; holds one window of the file in memory.

    Reading, and not mapping, because a file that shrinks under a mapping ends the
    process with SIGBUS.

    Args:
        file: Open for reading at its start, unbuffered.
        size: Bytes the file had when it was opened; nothing is believed beyond it.
        name: For messages.

    """

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._window = b""
        self._start = 0
        self._at = 0

    @property
    def offset(self) -> int:
        """Bytes from the start of the file to the next value."""
        return self._start + self._at

    @property
    def remaining(self) -> int:
        """Bytes from the next value to the end of the file."""
        return self._size - self.offset

    def fail(self, why: str, *, offset: int | None = None) -> BadModelFileError:
        """The error to raise, with the place it was found at."""
        at = self.offset if offset is None else offset
        return BadModelFileError(
            f"{self._name} is not a usable GGUF file (at byte {at} of {self._size})",
            why=why,
            advice=("gemctl list",),
            metadata={"file": self._name, "offset": at, "size": self._size},
        )

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
        end, size, done = len(window) - _LENGTH.size, self._size - self._start, 0
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
        self._file.seek(start)
        wanted = min(max(count, _WINDOW_BYTES), self._size - start)
        parts: list[bytes] = []
        while wanted and (part := self._file.read(wanted)):
            parts.append(part)
            wanted -= len(part)
        self._window, self._start, self._at = b"".join(parts), start, 0
        if count > len(self._window):
            raise self._truncated(count)

    def _truncated(self, count: int) -> BadModelFileError:
        return self.fail(
            f"{count} more bytes should follow and {max(self.remaining, 0)} do: "
            "the file is truncated or damaged"
        )
