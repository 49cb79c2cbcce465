"""The user's hub cache: what gemd fetches from the hub is put where the hub's own client looks.

::

    <cache>/models--<owner>--<name>/blobs/<etag>              whole files; SHA-256, or git's SHA-1
    <cache>/models--<owner>--<name>/blobs/<etag>.gemd.part    unfinished, resumable
    <cache>/models--<owner>--<name>/snapshots/<commit>/<file> links into ../../blobs
    <cache>/models--<owner>--<name>/refs/<revision>           the commit that it meant
    <cache>/.locks/models--<owner>--<name>/<etag>.lock        flock of whoever fetches that blob

The layout is documented by huggingface_hub ("Understand caching"), whose client finds here what
gemd has pulled, and waits for the same locks.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.errors import ConfigError, ContentMismatchError
from gemd.store.disk import FULL, sync_folder
from gemd.store.kept import pointed_at

if TYPE_CHECKING:
    from collections.abc import Iterator

PART: Final = ".gemd.part"
"""Ends the name of a file that gemd has not fetched to its end."""
LOCK_MODE: Final = 0o664
"""As the hub's client makes its lock files."""

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
ETAG: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF_BYTES: Final = 200
_TAG: Final = "CACHEDIR.TAG"
_TAG_TEXT: Final = "Signature: 8a477f597d28d172789f06886806bc55\n"
"""What tells programs that make backups to leave a folder out (bford.info/cachedir)."""

_HALF_MADE: Final = ".gemd-"
"""Begins the names of links that get another one at once, or go; 16 digits follow."""
_HALF_MADE_NAME: Final = re.compile(r"\.gemd-[0-9a-f]{16}")


def is_half_made(link: Path) -> bool:
    """Whether it is a link that whoever made it did not come to give its name."""
    return _HALF_MADE_NAME.fullmatch(link.name) is not None


def is_safe_name(name: str) -> bool:
    """Whether a path inside a repository stays inside when it is used as a path here."""
    return (
        0 < len(name) < 1024  # noqa: PLR2004 - no file system takes more
        and name.isprintable()
        and "\\" not in name
        and all(part not in {"", ".", ".."} for part in name.split("/"))
    )


@dataclass(frozen=True, slots=True)
class CachedRepository:
    """The folder of one repository.

    Attributes:
        cache: The hub cache it is in.
        folder_name: Such as ``models--owner--name``.

    """

    cache: Path
    folder_name: str

    @classmethod
    def named(cls, cache: Path, repository: str) -> CachedRepository:
        """That of ``owner/name``."""
        return cls(cache, f"models--{repository.replace('/', '--')}")

    @classmethod
    def around(cls, place: Path) -> CachedRepository | None:
        """That in which a file of a snapshot is; None if the path is no such file's."""
        for parent in place.parents:
            folder = parent.parent
            if parent.name == "snapshots" and folder.name.startswith("models--"):
                return cls(folder.parent, folder.name)
        return None

    @property
    def folder(self) -> Path:
        """Of blobs, snapshots and refs."""
        return self.cache / self.folder_name

    @property
    def blobs(self) -> Path:
        """Folder of the contents."""
        return self.folder / "blobs"

    @property
    def snapshots(self) -> Path:
        """Folder of one folder per commit."""
        return self.folder / "snapshots"

    @property
    def refs(self) -> Path:
        """Folder of one file per branch or tag that was asked for."""
        return self.folder / "refs"

    def blob(self, etag: str) -> Path:
        """A whole file."""
        if not ETAG.fullmatch(etag):
            raise ValueError(f"{etag!r} is no hash")
        return self.blobs / etag

    def part(self, etag: str) -> Path:
        """The unfinished file that becomes that blob."""
        return self.blob(etag).with_name(f"{etag}{PART}")

    def lock(self, etag: str) -> Path:
        """The lock file of a blob."""
        return self.cache / ".locks" / self.folder_name / f"{self.blob(etag).name}.lock"

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit."""
        if not COMMIT.fullmatch(commit):
            raise ValueError(f"{commit!r} is no commit")
        return self.snapshots / commit

    def place(self, commit: str, file: str) -> Path:
        """Where a file of a commit is found."""
        if not is_safe_name(file):
            raise ValueError(f"{file!r} is no path inside a repository")
        return self.snapshot(commit) / file

    def commit(self, revision: str) -> str:
        """What a revision meant when it was fetched; empty if it never was."""
        if COMMIT.fullmatch(revision):
            return revision
        if not is_safe_name(revision):
            return ""
        try:
            with (self.refs / revision).open(encoding="ascii") as file:
                found = file.read(_REF_BYTES).strip()
        except (OSError, ValueError):
            return ""
        return found if COMMIT.fullmatch(found) else ""

    def make(self, commit: str) -> None:
        """Creates the folders that a pull of that commit needs, with the user's usual permissions.

        Raises:
            OSError: A folder or a link cannot be made.

        """
        for folder in (self.cache, self.blobs, self.snapshot(commit)):
            folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError), (self.cache / _TAG).open("x") as file:
            file.write(_TAG_TEXT)
        # A file system without links is told before gigabytes are fetched onto it.
        probe = self.blobs / f"{_HALF_MADE}{secrets.token_hex(8)}"
        probe.symlink_to("nothing")
        probe.unlink(missing_ok=True)

    def finish(self, etag: str) -> None:
        """Makes a verified part the blob, for good."""
        part = self.part(etag)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(self.blob(etag))
        sync_folder(self.blobs)

    def etag(self, commit: str, file: str) -> str:
        """Which blob the file of that commit is a link to; empty if it is none."""
        target = pointed_at(self.place(commit, file))
        name = target.name
        return name if target.parent == self.blobs and ETAG.fullmatch(name) else ""

    def link(self, commit: str, file: str, etag: str) -> None:
        """Puts a link to a blob in the file's place; another link gives way."""
        place, blob = self.place(commit, file), self.blob(etag)
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f"{_HALF_MADE}{secrets.token_hex(8)}")
        beside.symlink_to(os.path.relpath(blob, place.parent))
        try:
            beside.replace(place)
        except BaseException:
            beside.unlink()
            raise
        sync_folder(place.parent)

    def point(self, revision: str, commit: str) -> None:
        """Writes down what a revision means; nothing is to be written about a commit."""
        if revision == commit or self.commit(revision) == commit:
            return
        if not is_safe_name(revision):
            raise ValueError(f"{revision!r} is no revision")
        ref = self.refs / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        beside = ref.with_name(f"{ref.name}.{secrets.token_hex(4)}.tmp")
        try:
            beside.write_text(commit, encoding="ascii")
            beside.replace(ref)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_folder(ref.parent)

    def links_to(self, blob: Path) -> Iterator[Path]:
        """The files of all snapshots that are links to a blob."""
        for folder, _, files in os.walk(self.snapshots):
            for name in files:
                if pointed_at(place := Path(folder, name)) == blob:
                    yield place

    def unlink(self, place: Path) -> None:
        """Removes a link, and the folders that are empty without it."""
        place.unlink(missing_ok=True)
        for folder in place.parents:
            if folder == self.snapshots:
                break
            if not _removed_if_empty(folder):
                break

    def drop_if_empty(self, commit: str) -> None:
        """Removes the folder of a commit of which nothing was linked.

        Not that of another one: the hub's client makes it long before it links a file there.
        """
        _removed_if_empty(self.snapshot(commit))

    def tidy(self) -> None:
        """Removes refs to commits that are gone, and what is empty then."""
        for folder, _, files in os.walk(self.refs, topdown=False):
            for name in files:
                ref = Path(folder, name)
                commit = self.commit(ref.relative_to(self.refs).as_posix())
                if commit and not self.snapshot(commit).is_dir():
                    ref.unlink(missing_ok=True)
            _removed_if_empty(Path(folder))
        for probe in filter(is_half_made, self.blobs.glob(f"{_HALF_MADE}*")):
            probe.unlink(missing_ok=True)
        if _has_files(self.snapshots):
            # The hub's client, which has made a folder there, is about to open a file in `blobs`.
            return
        _removed_if_empty(self.blobs)
        # A repository without the folder of snapshots is a damaged one to the hub's client.
        with contextlib.suppress(OSError):
            if {each.name for each in self.folder.iterdir()} <= {"snapshots"}:
                _removed_if_empty(self.snapshots)
                _removed_if_empty(self.folder)


def _has_files(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is not None
    except OSError:
        return False


def _removed_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def cache_refusals(cache: Path) -> Iterator[None]:
    """Turns what the cache's file system refuses inside the block into `ConfigError`.

    A full disk passes: it is no matter of settings (`disk_errors`).
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ConfigError(
            f"cannot keep models in the hub cache {cache}",
            why=str(error),
            advice=(f"ls -ld {cache}", 'export HF_HUB_CACHE="$HOME/hub"', 'export HF_HOME="$HOME"'),
            metadata={"path": cache, "key": "HF_HUB_CACHE"},
        ) from error


def no_cache() -> ConfigError:
    """The error where nothing says which folder the hub cache is."""
    return ConfigError(
        "there is no place for files of the hub",
        why="neither HF_HUB_CACHE nor HF_HOME, XDG_CACHE_HOME or HOME is an absolute path",
        advice=('export HF_HUB_CACHE="$HOME/hub"', "export HF_HOME=…"),
        metadata={"key": "HF_HUB_CACHE"},
    )


def unsafe(what: str, name: str, repository: str) -> ContentMismatchError:
    """The error about a name that the hub gives and that would lead out of its folder."""
    return ContentMismatchError(
        f"the hub's answer about {repository} cannot be used",
        why=f"the {what} {name[:200]!r} is none that a file here may have",
        advice=("set GEMD_HUB_ENDPOINT to another mirror",),
        metadata={"repository": repository, "name": name[:200]},
    )
