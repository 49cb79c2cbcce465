"""The file of a service: who wrote it, putting it in its place whole, taking it away again.

A line in it, the seal, says how many folders were made for it and what the rest of it hashes to.
So what `gemctl` wrote can be told from what somebody else wrote or changed, and nothing has to be
kept elsewhere.
"""

from __future__ import annotations

import enum
import hashlib
import os
import re
import shlex
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gemd.cli.failures import CommandError, Exit

_SEAL: Final = re.compile(
    r"^.*sealed by gemctl service install: folders=(\d+) sha256=([0-9a-f]{64}).*\n", re.MULTILINE
)
_PLIST: Final = '<plist version="1.0">\n'


class Author(enum.Enum):
    """Whose a file is."""

    NOBODY = "NOBODY"
    """There is none."""
    GEMCTL = "GEMCTL"
    """As `gemctl` wrote it."""
    EDITED = "EDITED"
    """`gemctl` wrote it, and it was changed since."""
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies where the file of a service belongs.

    Attributes:
        author: Who wrote it.
        body: It without the seal.
        folders: How many folders were made for it.

    """

    author: Author
    body: str = ""
    folders: int = 0


def look(path: Path) -> Found:
    """What lies there.

    Raises:
        CommandError: It cannot be read.

    """
    try:
        content = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        # A link that leads nowhere was made by somebody, such as `systemctl mask`.
        return Found(Author.OTHER if path.is_symlink() else Author.NOBODY)
    except OSError as error:
        raise _failed(path, "read", error) from None
    seal = _SEAL.search(content)
    if seal is None or path.is_symlink():
        return Found(Author.OTHER, content)
    body = content[: seal.start()] + content[seal.end() :]
    author = Author.GEMCTL if _hash(body) == seal[2] else Author.EDITED
    return Found(author, body, int(seal[1]))


def write(path: Path, body: str, before: Found) -> None:
    """Put a file in its place, whole or not at all, with the folders that it needs.

    Args:
        path: Its place.
        body: It without a seal.
        before: What `look` found there.

    Raises:
        CommandError: It cannot be written; then nothing has changed.

    """
    made: list[Path] = []
    try:
        for folder in reversed(path.parents):
            if not folder.exists():
                folder.mkdir(mode=0o755)
                made.append(folder)
        _replace(path, seal(body, folders=before.folders + len(made)))
    except BaseException as error:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise _failed(path, "written", error) from None
        raise


def seal(body: str, *, folders: int) -> str:
    """A body with its seal, as a comment of its own kind."""
    words = f"sealed by gemctl service install: folders={folders} sha256={_hash(body)}"
    if _PLIST in body:
        return body.replace(_PLIST, f"{_PLIST}<!-- {words} -->\n", 1)
    return f"# {words}\n{body}"


def _hash(body: str) -> str:
    return hashlib.sha256(body.encode(errors="surrogateescape")).hexdigest()


def _replace(path: Path, content: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            # systemd complains of units that others cannot read, and this one holds no secret.
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make what was renamed there survive a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some of the network cannot, and the file is in its place.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path, found: Found) -> None:
    """Take a file away, and the folders that were made for it where nothing else is in them.

    Raises:
        CommandError: It cannot be removed.

    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _failed(path, "removed", error) from None
    for folder in list(path.parents)[: found.folders]:
        try:
            folder.rmdir()
        except OSError:
            # Somebody else has put something there since, or needs it now.
            return


def _failed(path: Path, done: str, error: OSError) -> CommandError:
    return CommandError(
        f"{path} cannot be {done}",
        Exit.PRECONDITION,
        why=error.strerror or str(error),
        advice=(f"ls -ld {shlex.quote(str(path.parent))}",),
    )
