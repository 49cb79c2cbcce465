"""Reading JSON of unknown honesty piece by piece, without building what it describes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.errors import BadModelFileError
    from gemd.footprint.reader import Reader

MAX_DEPTH: Final = 16
"""Of what is passed over."""

_SPACE_BYTES: Final = 2048
_SCALAR_BYTES: Final = 64
_SPACES: Final = rb"[ \t\r\n]{0,2048}+"
_SPACE: Final = re.compile(_SPACES)
_SEPARATOR: Final = re.compile(_SPACES + rb"([,}\]])" + _SPACES)
_SIGNS: Final = {
    sign: re.compile(_SPACES + re.escape(sign) + _SPACES) for sign in (b"{", b"}", b"[", b"]", b":")
}
_STRING: Final = re.compile(rb'"((?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+)"')
_SCALAR: Final = re.compile(
    rb"true|false|null|-?+(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,20})?+(?:[eE][+-]?+[0-9]{1,3})?+"
)


class JsonScan:
    """A cursor over JSON text.

    Args:
        reader: Stands at its start, and ends where it ends.

    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def takes(self, sign: bytes) -> bool:
        """Whether this sign is the next one; if so, it and the space around it are passed."""
        return self._reader.match(_SIGNS[sign], 2 * _SPACE_BYTES) is not None

    def more(self, end: bytes) -> bool:
        """Whether another member follows; else the end of the table or list, which is passed.

        Raises:
            BadModelFileError: Neither follows.

        """
        found = self._reader.match(_SEPARATOR, 2 * _SPACE_BYTES)
        if found is None or found[1] not in {b",", end}:
            raise self._unexpected(f"a comma or {end.decode()}")
        return found[1] == b","

    def members(self, most: int) -> Iterator[str]:
        """The keys of a table whose brace has been passed; the caller reads each value.

        Raises:
            BadModelFileError: It is no table, or a key has more than `most` bytes.

        """
        if self.takes(b"}"):
            return
        while True:
            key = self.string(most)
            if not self.takes(b":"):
                raise self._unexpected("a colon")
            yield key
            if not self.more(b"}"):
                return

    def string(self, most: int) -> str:
        """A text of at most so many bytes.

        Raises:
            BadModelFileError: There is none, it is longer, or no Unicode.

        """
        at = self._reader.offset
        found = self._reader.match(_STRING, most + 2)
        if found is None:
            raise self._unexpected(f"a text of at most {most} bytes")
        try:
            # One that has been matched is JSON; decoding can only fail for its characters.
            if b"\\" not in found[1]:
                return found[1].decode()
            text = str(json.loads(found[0]))
            text.encode()
        except UnicodeError:
            raise self._reader.fail("a text in it is no Unicode", offset=at) from None
        return text

    def skip(self, most: int, depth: int = 0) -> None:
        """Pass over any value.

        Args:
            most: Bytes of any text in it.
            depth: How deep in what is passed over it stands.

        Raises:
            BadModelFileError: It is no value, or nested too deeply.

        """
        if depth > MAX_DEPTH:
            raise self._reader.fail(f"it is nested more than {MAX_DEPTH} deep")
        if self.takes(b"{"):
            for _ in self.members(most):
                self.skip(most, depth + 1)
        elif self.takes(b"["):
            if self.takes(b"]"):
                return
            self.skip(most, depth + 1)
            while self.more(b"]"):
                self.skip(most, depth + 1)
        elif self._reader.match(_SCALAR, _SCALAR_BYTES) is None:
            self.string(most)

    def end(self) -> None:
        """See that nothing but space follows.

        Raises:
            BadModelFileError: Something does.

        """
        while self._reader.remaining and self._space():
            pass
        if self._reader.remaining:
            raise self._unexpected("its end")

    def _space(self) -> int:
        found = self._reader.match(_SPACE, _SPACE_BYTES)
        assert found is not None
        return len(found[0])

    def _unexpected(self, wanted: str) -> BadModelFileError:
        return self._reader.fail(f"its header is no JSON that it may have: {wanted} is missing")
