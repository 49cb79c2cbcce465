"""The folder of engines while it changes: one writer, work beside the builds, one rename each.

::

    .lock                           held by who installs or removes
    .work-llama-cuda-0.3.36-cp311   what is being built
    .old-llama-cuda-0.3.36-cp311    the build that is just being replaced
    logs/llama-cuda-0.3.36-cp311.log
    llama-cuda-0.3.36-cp311/        a build, whole and verified
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from gemd.engine.builds.build import RECORD
from gemd.errors import DiskFullError, OperationConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_WORK: Final = ".work-"
_OLD: Final = ".old-"


@contextlib.contextmanager
def only_writer(engines_dir: Path) -> Iterator[None]:
    """Makes the folder, holds its lock, and clears what an earlier writer has left behind.

    Raises:
        OperationConflictError: Another process holds the lock.
        DiskFullError: The folder cannot be made or locked.

    """
    try:
        engines_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(engines_dir / ".lock", flags, 0o600)
    except OSError as error:
        raise unwritable(engines_dir, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperationConflictError(
                f"another gemctl installs or removes an engine in {engines_dir}",
                why="one at a time: both would build the same files",
                advice=("gemctl engine list",),
                metadata={"path": engines_dir},
            ) from None
        except OSError as error:
            # Some network file systems have no locks.
            raise unwritable(engines_dir / ".lock", error) from error
        _clear(engines_dir)
        yield
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> DiskFullError:
    """The error of a file that cannot be written."""
    return DiskFullError(
        f"cannot write {path}",
        why=error.strerror or str(error),
        advice=(f"ls -ld {path.parent}", f"df -h {path.parent}"),
        metadata={"path": path, "errno": error.errno or 0},
    )


def _clear(engines_dir: Path) -> None:
    for path in engines_dir.iterdir():
        if path.name.startswith(_OLD):
            whole = engines_dir / path.name.removeprefix(_OLD)
            if not whole.exists() and (path / RECORD).exists():
                # Whoever replaced it ended between its two renames. One without a record was
                # being removed.
                path.rename(whole)
                continue
        if path.name.startswith((_WORK, _OLD)):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def workplace(engines_dir: Path, name: str) -> Iterator[Path]:
    """An empty directory on the file system of the builds; gone afterwards."""
    work = engines_dir / f"{_WORK}{name}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def log_file(engines_dir: Path, name: str) -> Path:
    """Where the log of an installation is kept; its folder is made."""
    folder = engines_dir / "logs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{name}.log"


def publish(target: Path, place: Path, record: Mapping[str, Any]) -> None:
    """Puts a directory in its place, with its record, over the one that was there.

    Args:
        target: The directory, on the same file system.
        place: Where it is to be.
        record: Content of its `engine.json`.

    """
    with (target / RECORD).open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
    # All of it: thousands of files one by one would take minutes.
    os.sync()
    old = place.with_name(f"{_OLD}{place.name}")
    try:
        if place.exists():
            place.rename(old)
        target.rename(place)
    except BaseException:
        # An interrupt between the two, too: the build that worked comes back.
        if old.exists() and not place.exists():
            old.rename(place)
        raise
    descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    # Workers that run have its files open, and keep them until they end.
    shutil.rmtree(old, ignore_errors=True)


def discard(place: Path) -> int:
    """Removes a build; the bytes that its files took."""
    old = place.with_name(f"{_OLD}{place.name}")
    size = sum(path.lstat().st_size for path in place.rglob("*") if not path.is_dir())
    # A half-removed build must not be taken for one.
    (place / RECORD).unlink(missing_ok=True)
    place.rename(old)
    shutil.rmtree(old, ignore_errors=True)
    return size
