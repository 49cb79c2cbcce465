"""The file that remembers what was typed: private, and not without end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from prompt_toolkit.history import FileHistory

from gemd.paths import ensure_private_directory

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES: Final = 1 << 20
"""From this size on, the older half goes when a conversation begins."""
LONGEST: Final = 1 << 14
"""Characters of one text; what is longer was pasted, and would drive everything else out."""
_ENTRY: Final = b"\n# "
"""Between two entries, as `FileHistory` writes them."""


class PrivateHistory(FileHistory):
    """Texts of earlier conversations, in a file that only its user can read.

    Args:
        file: Made, with its directory, if it is not there.

    Raises:
        ConfigError: Its directory is not private, or cannot be made.
        OSError: The file cannot be opened.

    """

    def __init__(self, file: Path) -> None:
        ensure_private_directory(file.parent)
        # Never through a link that somebody else may have put there.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(file, flags, 0o600), "r+b") as opened:
            os.fchmod(opened.fileno(), 0o600)
            content = opened.read()
            if len(content) > MOST_BYTES:
                kept = newest(content)
                opened.seek(0)
                opened.write(kept)
                opened.truncate()
        super().__init__(str(file))

    def store_string(self, string: str) -> None:
        """Add a text; on a disk that takes no more it is only not remembered."""
        if len(string) > LONGEST:
            return
        try:
            super().store_string(string)
        except OSError:
            return


def newest(content: bytes) -> bytes:
    """The whole entries in the second half of a history file."""
    begin = content.find(_ENTRY, len(content) // 2)
    return content[begin:] if begin >= 0 else b""
