"""Notes of which file is being fetched for a variant whose hash only the hub knows.

A part file is named by the hash of what it becomes. Without a hash in the profile, only such a
note tells whose it is: the next pull may go on with it, a deletion may remove it.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from gemd.store.disk import write_whole

if TYPE_CHECKING:
    from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")


def write_note(note: Path, sha256: str) -> None:
    """Writes a note (`Layout.announced`) whole, or not at all."""
    write_whole(note, f"{sha256}\n".encode())


def read_note(note: Path) -> str:
    """The hash in a note; empty if there is none, or nothing that is a hash."""
    try:
        text = note.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
    return text if _SHA256.fullmatch(text) else ""


def drop_note(note: Path) -> None:
    """Removes a note if it is there, and its folder if it was the last one in it."""
    note.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        note.parent.rmdir()
