"""Sources of headers that are no files."""

from __future__ import annotations


class BytesSource:
    """Bytes in memory.

    Args:
        data: What there is.
        size: What there is said to be.
        filled: Zeros follow up to that size, as in a file with a hole; else reads come short.

    """

    def __init__(
        self, data: bytes, *, size: int | None = None, name: str = "bytes", filled: bool = False
    ) -> None:
        self._data = data
        self.size = len(data) if size is None else size
        self.name = name
        self._filled = filled

    def read_at(self, offset: int, count: int) -> bytes:
        """See `gemd.footprint.Source`."""
        data = self._data[offset : offset + count]
        return data.ljust(min(count, max(0, self.size - offset)), b"\0") if self._filled else data
