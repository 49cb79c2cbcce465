"""The file that becomes the result: written at any place, synchronized, read back once."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

from gemd.errors import ContentMismatchError
from gemd.worker.quantize.files import forget, full, sync_data, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from pathlib import Path

    from gemd.worker.quantize.gguf.journal import Finished
    from gemd.worker.quantize.gguf.plan import Plan

DIRTY_BYTES: Final = 64 << 20
"""At most so much is written before it has to be on the disk and out of the page cache."""
_PIECE_BYTES: Final = 4 << 20


class PartFile:
    """`NAME.part` with its final size: a hole where nothing has been written yet.

    Args:
        path: Of the result; the part is beside it.
        plan: What the result is going to be.

    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._part = part_of(path)
        self._plan = plan
        self._dirty = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._part, flags, 0o600)

    def begin(self, *, anew: bool) -> None:
        """Write the header; if anew, into an empty file of the final size.

        Raises:
            DiskFullError: There is no room for that.

        """
        if anew:
            try:
                os.ftruncate(self._descriptor, 0)
                os.ftruncate(self._descriptor, self._plan.size_bytes)
            except OSError as error:
                raise full(error, self._part, self._plan.size_bytes) or error from None
        self.write(0, memoryview(self._plan.header))
        os.fsync(self._descriptor)

    def holds(self, tensor: Finished) -> bool:
        """Whether it has its final size, and in it what was noted about a tensor."""
        size = os.fstat(self._descriptor).st_size
        if size != self._plan.size_bytes:
            return False
        digest = hashlib.sha256()
        for data in self._pieces(tensor.offset, tensor.offset + tensor.size_bytes):
            digest.update(data)
        return digest.hexdigest() == tensor.sha256

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes in their place.

        Raises:
            DiskFullError: There is no room for them.

        """
        view = data.cast("B")
        at = 0
        try:
            while at < len(view):
                at += os.pwrite(self._descriptor, view[at:], offset + at)
            self._dirty += at
            if self._dirty >= DIRTY_BYTES:
                self.sync()
        except OSError as error:
            raise full(error, self._part, self._plan.size_bytes) or error from None

    def sync(self) -> None:
        """Wait until all that was written is on the disk, and leave none of it in memory."""
        sync_data(self._descriptor)
        forget(self._descriptor)
        self._dirty = 0

    def read_back(
        self, expected: dict[str, str], pool: Executor | None, read: Callable[[int], None]
    ) -> str:
        """SHA-256 of the whole file, every tensor of which is compared with what was written.

        Args:
            expected: SHA-256 of each tensor, by its name.
            pool: Computes the two hashes at once; None for one after the other.
            read: Told how many bytes have been looked at; may raise.

        Raises:
            ContentMismatchError: The disk did not keep what was written.

        """
        whole, at = hashlib.sha256(), 0
        spans = [("", 0, len(self._plan.header))]
        spans += [
            (planned.tensor.name, planned.offset, planned.size_bytes)
            for planned in self._plan.tensors
        ]
        for name, offset, size in spans:
            whole.update(bytes(offset - at))
            at, digest = offset, hashlib.sha256()
            for data in self._pieces(offset, offset + size):
                other = pool.submit(whole.update, data) if pool is not None else None
                digest.update(data)
                if other is None:
                    whole.update(data)
                else:
                    other.result()
                at += len(data)
                read(at)
            wanted = expected[name] if name else hashlib.sha256(self._plan.header).hexdigest()
            if digest.hexdigest() != wanted:
                raise self._mismatch(name, wanted, digest.hexdigest())
        whole.update(bytes(self._plan.size_bytes - at))
        return whole.hexdigest()

    def finish(self) -> None:
        """Give it its final name, for good."""
        os.fsync(self._descriptor)
        put_in_place(self._path)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        for offset in range(start, end, _PIECE_BYTES):
            count = min(_PIECE_BYTES, end - offset)
            yield self._read(offset, count)
            forget(self._descriptor, offset, count)

    def _read(self, offset: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, offset)
        while len(data) < count:
            more = os.pread(self._descriptor, count - len(data), offset + len(data))
            if not more:
                return data
            data += more
        return data

    def _mismatch(self, name: str, wanted: str, found: str) -> ContentMismatchError:
        what = f"tensor {name}" if name else "the header"
        return ContentMismatchError(
            f"{what} of {self._part} is not what was written",
            why=f"SHA-256 {wanted} was written, {found} was read back: the disk fails, or another "
            "program has written to the file",
            advice=("dmesg --level err,warn", f"df -h {self._part.parent}"),
            metadata={
                "path": self._part,
                "tensor": name,
                "expected_sha256": wanted,
                "actual": found,
            },
        )


def part_of(path: Path) -> Path:
    """The name of a result that is not complete."""
    return path.with_name(f"{path.name}.part")


def put_in_place(path: Path) -> None:
    """Give a complete part its final name, for good."""
    part_of(path).replace(path)
    sync_folder(path.parent)
