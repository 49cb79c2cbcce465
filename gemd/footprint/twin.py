"""A file with a model's header and a hole in place of its weights.

llama.cpp plans a context for it without ever touching a weight (`no_alloc`), so that its own
figures can be had before a download, and with a disk that has no room for one.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError, DiskFullError

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.footprint.gguf import GgufHeader
    from gemd.footprint.source import Source

_PIECE_BYTES: Final = 1024**2
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def sparse_twin(source: Source, header: GgufHeader, path: Path) -> None:
    """Write the bytes before the weights, and give the file the size of the whole.

    Of a split model each part needs a twin beside the others, under its own name. The file is
    for this process only (0600), and nothing is done to make it outlive a crash.

    Args:
        source: Where the header was read from; a remote one hands out again what it has.
        header: Of that source; it bounds what is written.
        path: Must not exist.

    Raises:
        DiskFullError: There is no room for the header.
        BadModelFileError: The source has become shorter, or the file cannot be made.

    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            end = min(header.data_offset, header.file_size)
            for offset in range(0, end, _PIECE_BYTES):
                count = min(_PIECE_BYTES, end - offset)
                data = source.read_at(offset, count)
                if len(data) != count:
                    raise _refused(source, offset, "it has become shorter meanwhile")
                file.write(data)
            file.truncate(header.file_size)
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"there is no room for a header of {header.data_offset} bytes at {path.parent}",
                why=error.strerror or "",
                advice=(f"df -h {path.parent}",),
                metadata={"path": path.parent, "needed_bytes": header.data_offset},
            ) from None
        raise _refused(source, 0, error.strerror or str(error)) from None


def _refused(source: Source, offset: int, why: str) -> BadModelFileError:
    return BadModelFileError(
        f"no twin of {source.name} can be made (at byte {offset} of {source.size})",
        why=why,
        advice=("gemctl list",),
        metadata={"file": source.name, "offset": offset, "size": source.size},
    )
