"""What is known of a directory without touching it, and whether it is private."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import failure
from gemd.doctor.words import quoted
from gemd.hardware.files import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.doctor.diagnosis import Finding

_MOUNT_FIELDS: Final = 3
NETWORK_TYPES: Final = frozenset(
    {
        "9p",
        "afs",
        "ceph",
        "cifs",
        "davfs",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.sshfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    }
)
"""File systems behind a network, by the kernel's names. 9p is how WSL shows Windows' drives."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory, or where it would be made.

    Attributes:
        path: Of the directory.
        nearest: Itself, or the nearest above it that exists.
        exists: Whether it does.
        is_directory: Whether `nearest` is one.
        is_link: Whether `path` is a symbolic link.
        owner: User id of `nearest`.
        mode: Permission bits of `nearest`.
        writable: Whether this process may make files in `nearest`.
        open_above: Whether everybody may replace it: its parent is writable and not sticky.
        filesystem: Type by the kernel's name, such as ``ext4`` or ``nfs4``; empty if unknown.
        problem: Why nothing can be said of it; empty if something can.

    """

    path: Path
    nearest: Path
    exists: bool = True
    is_directory: bool = True
    is_link: bool = False
    owner: int = 0
    mode: int = 0o700
    writable: bool = True
    open_above: bool = False
    filesystem: str = ""
    problem: str = ""


def look_at(path: Path, *, root: Path) -> Folder:
    """The directory as it is now.

    Args:
        path: Absolute.
        root: Where /proc is; its list of mounts names the file system.

    """
    try:
        nearest, found = _nearest(path)
        exists = nearest == path
        return Folder(
            path=path,
            nearest=nearest,
            exists=exists,
            is_directory=stat.S_ISDIR(found.st_mode),
            is_link=path.is_symlink(),
            owner=found.st_uid,
            mode=stat.S_IMODE(found.st_mode),
            writable=_may_write(nearest),
            open_above=_is_open(nearest.parent) if exists else False,
            filesystem=filesystem_of(nearest.resolve(), root=root),
        )
    except OSError as error:
        return Folder(path, path, exists=False, problem=error.strerror or str(error))


def _nearest(path: Path) -> tuple[Path, os.stat_result]:
    for candidate in (path, *path.parents):
        try:
            return candidate, candidate.stat()
        except (FileNotFoundError, NotADirectoryError):
            if candidate.is_symlink():
                raise
    raise FileNotFoundError(2, os.strerror(2), str(path))


def _may_write(folder: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def _is_open(folder: Path) -> bool:
    mode = folder.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def filesystem_of(path: Path, *, root: Path) -> str:
    """The type of the file system that an existing path is on; empty if the kernel does not say."""
    found, longest = "", -1
    for line in text_of(root / "proc/self/mounts").splitlines():
        fields = line.split()
        if len(fields) < _MOUNT_FIELDS:
            continue
        # The kernel writes blanks in names as octal escapes.
        place = Path(fields[1].replace("\\040", " ").replace("\\011", "\t"))
        # Of two on one place, the later covers the earlier.
        if path.is_relative_to(place) and len(place.parts) >= longest:
            found, longest = fields[2], len(place.parts)
    return found


def unfit(folder: Folder, role: str, *, user: int, home: Path) -> Iterator[Finding]:
    """Why it cannot be used at all: it is none, or cannot be made or written to."""
    path = quoted(folder.path)
    if folder.problem:
        yield failure(f"{role} {folder.path}: {folder.problem}", f"ls -ld {path}")
    elif not folder.is_directory:
        what = f"{folder.nearest} is no directory"
        yield failure(f"{role} {folder.path}: {what}", f"ls -ld {quoted(folder.nearest)}")
    elif not folder.writable:
        yield failure(
            f"{role} {folder.path}: {folder.nearest} is not writable "
            f"(mode {folder.mode:04o}, owner {folder.owner})",
            *_make_writable(folder, user=user, home=home),
        )


def _make_writable(folder: Folder, *, user: int, home: Path) -> tuple[str, ...]:
    nearest = quoted(folder.nearest)
    at_home = home in folder.path.parents and home != home.parent
    if folder.owner == 0 != user and folder.path.name == "gemd" and folder.exists and at_home:
        # Such as after a `sudo gemd`. Elsewhere, and of another user, it is not ours to take.
        return (f'sudo chown -R "$(id -un)" {nearest}',)
    if folder.owner == user and not folder.mode & stat.S_IWUSR:
        return (f"chmod u+rwx {nearest}",)
    return (f"ls -ld {nearest}",)


def exposed(folder: Folder, role: str, *, user: int, home: Path) -> Iterator[Finding]:
    """Why it is not private, so that the daemon refuses it.

    Args:
        folder: The directory.
        role: What it is for.
        user: Id of this user.
        home: Of this user.

    """
    if not folder.exists or folder.problem or not folder.is_directory:
        return
    path = quoted(folder.path)
    if folder.is_link:
        yield failure(f"{role} {folder.path} is a symbolic link", f"ls -ld {path}")
    elif folder.owner != user:
        yield failure(
            f"{role} {folder.path} belongs to user {folder.owner}, not {user}", f"ls -ld {path}"
        )
    elif folder.mode & 0o077:
        yield failure(
            f"{role} {folder.path} lets others in (mode {folder.mode:04o})",
            f"chmod 700 {path}" if is_ours(folder.path, home) else f"ls -ld {path}",
        )
    if folder.open_above:
        above = folder.path.parent
        yield failure(
            f"others may replace {folder.path}, because {above} is writable for everybody",
            f"chmod o-w {quoted(above)}" if is_ours(above, home) else f"ls -ld {quoted(above)}",
        )


def is_ours(path: Path, home: Path) -> bool:
    """Whether changing it can shut nobody else out: it is gemd's own, or in the user's home."""
    return path.name in {"gemd", "gemd.sock"} or (home in path.parents and home != home.parent)
