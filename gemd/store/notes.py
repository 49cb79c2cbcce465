"""Notes of what an unfinished pull puts into the hub's cache.

Others keep files there too. Only such a note tells, until there is a manifest, what of it gemd has
fetched: the next pull goes on with it, a deletion may remove it.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gemd.store.disk import write_whole
from gemd.store.hub_cache import is_safe_name
from gemd.store.kept import stamp_of
from gemd.store.manifest import Stamp  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _safe(name: str) -> str:
    if not is_safe_name(name):
        raise ValueError("is no path inside a repository")
    return name


_Name = Annotated[str, AfterValidator(_safe)]


class Begun(BaseModel):
    """One file of the hub.

    Attributes:
        name: Path inside the repository.
        etag: Name of its blob in the cache.
        size_bytes: Its size.
        ours: Whether gemd puts the blob there, or has put it: it was not there before.
        stamp: Of the blob that gemd puts or links there; None if it does neither.
        linked: Whether gemd makes the link to it, or has made it.

    """

    model_config = ConfigDict(frozen=True)

    name: _Name
    etag: str = Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    size_bytes: int
    ours: bool = False
    stamp: Stamp | None = None
    linked: bool = False

    def still(self, blob: Path) -> Begun:
        """What is true of it now: nothing of a blob that somebody has put there since is gemd's."""
        if self.stamp is None or stamp_of(blob) in {None, self.stamp}:
            return self
        return self.model_copy(update={"ours": False, "stamp": None, "linked": False})


class Note(BaseModel):
    """What one pull is about.

    Attributes:
        cache: The hub cache in which it works.
        repository: ``owner/name``.
        commit: Which state of it.
        files: Those that are wanted.

    """

    model_config = ConfigDict(frozen=True)

    cache: str
    repository: _Name
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    files: tuple[Begun, ...]

    def after(self, earlier: Note | None) -> Note:
        """This one with what is still true of an earlier one of the same variant."""
        if earlier is None or (earlier.cache, earlier.repository) != (self.cache, self.repository):
            return self
        ours = {each.etag for each in earlier.files if each.ours}
        stamps = {each.etag: each.stamp for each in earlier.files}
        linked = {each.name for each in earlier.files if each.linked}
        if earlier.commit != self.commit:
            linked = set()
        files = tuple(
            each.model_copy(
                update={
                    "ours": each.ours or each.etag in ours,
                    "stamp": each.stamp or stamps.get(each.etag),
                    "linked": each.linked or each.name in linked,
                }
            )
            for each in self.files
        )
        return self.model_copy(update={"files": files})

    def still(self, blob: Callable[[str], Path]) -> Note:
        """What is true of it now; `blob` tells where one is."""
        files = tuple(each.still(blob(each.etag)) for each in self.files)
        return self.model_copy(update={"files": files})

    def with_file(self, changed: Begun) -> Note:
        """The same with another word about one file."""
        files = tuple(changed if each.name == changed.name else each for each in self.files)
        return self.model_copy(update={"files": files})

    def file(self, name: str) -> Begun:
        """What it says about a file that is in it."""
        return next(each for each in self.files if each.name == name)


def write_note(place: Path, note: Note) -> None:
    """Writes a note (`Layout.begun`) whole, or not at all."""
    write_whole(place, note.model_dump_json(indent=1).encode() + b"\n")


def read_note(place: Path) -> Note | None:
    """The note; None if there is none, or nothing that is one."""
    try:
        return Note.model_validate_json(place.read_bytes())
    except (OSError, ValidationError):
        return None


def read_announced(place: Path) -> str:
    """The hash in a note of an earlier version; empty if there is nothing that is a hash."""
    try:
        text = place.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
    return text if _SHA256.fullmatch(text) else ""


def drop_note(place: Path) -> None:
    """Removes a note if it is there, and its folder if it was the last one in it."""
    place.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        place.parent.rmdir()
