"""Which long work was begun and has not ended, for the daemon that comes after this one.

A folder with one file for each operation, ``<id>.json``. What it holds is what the work needs to
be begun again, and not how far it is: that is told by the bytes on disk.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import TYPE_CHECKING, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from gemd.errors import DiskFullError
from gemd.store.disk import write_whole
from gemd.store.operation import Kind, Operation, State
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)


class Begun(BaseModel):
    """One operation that has not ended.

    Attributes:
        id: Of the operation.
        kind: What is done.
        model: What it is done to; empty of what is done to the whole store.
        variant: Id of the variant; empty for all of them.
        request_id: Of the call that began it; empty if it had none.
        created: When it was begun, in seconds since the epoch.
        resume: What the work needs to be begun again; its kind says what that is.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    kind: Kind
    model: str
    variant: str
    request_id: str = ""
    created: float = Field(allow_inf_nan=False)
    resume: dict[str, JsonValue]

    def operation(self, now: float) -> Operation:
        """The operation as it is begun again."""
        running = State.RUNNING
        return Operation(self.id, self.kind, running, self.model, self.variant, self.created, now)


class OperationJournal:
    """The folder.

    Args:
        folder: Created by the first entry.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None

    def claim(self) -> bool:
        """Whether this process may go on with what is in there, now and until `release`.

        Not while another does: daemons of several sockets have one folder of state.
        """
        if self._lock is not None:
            return True
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(self._folder / "lock", flags, 0o600)
        except OSError as error:
            log.warning("operations.unreadable", path=str(self._folder), error=str(error))
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            log.warning("operations.left_to_others", path=str(self._folder), error=str(error))
            return False
        self._lock = lock
        return True

    def release(self) -> None:
        """Let another process go on with them."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(self, begun: Begun) -> None:
        """Puts an entry in, for good, or not at all. Blocks until it is on the disk.

        Raises:
            DiskFullError: No room.
            OSError: The folder cannot be written to.

        """
        write_whole(self._file(begun.id), begun.model_dump_json(indent=2).encode() + b"\n")

    def remove(self, operation_id: str) -> None:
        """Takes an entry out.

        It may come back in a loss of power; work that is done already ends at once when it is
        begun again.
        """
        try:
            self._file(operation_id).unlink(missing_ok=True)
        except OSError as error:
            log.warning("operations.not_removed", operation=operation_id, error=str(error))

    def read(self) -> list[Begun]:
        """All entries, oldest first.

        One that cannot be understood is set aside as ``<id>.json.bad`` and logged: it must not
        keep the others, or the daemon, from going on.
        """
        found = [begun for file in self._files() if (begun := self._read(file))]
        return sorted(found, key=lambda begun: (begun.created, begun.id))

    def _files(self) -> list[Path]:
        try:
            return sorted(self._folder.glob("*.json"))
        except OSError as error:
            log.warning("operations.unreadable", path=str(self._folder), error=str(error))
            return []

    def _read(self, file: Path) -> Begun | None:
        try:
            begun = Begun.model_validate_json(file.read_bytes())
            if begun.id == file.stem:
                return begun
            reason = f"it is about operation {begun.id}"
        except ValidationError as error:
            reason = f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
        except OSError as error:
            # What cannot be read now, as without permission, may be readable next time.
            log.warning("operations.unreadable", path=str(file), error=str(error))
            return None
        log.warning("operations.set_aside", path=str(file), error=reason)
        try:
            file.replace(file.with_name(f"{file.name}.bad"))
        except OSError as error:
            log.warning("operations.not_set_aside", path=str(file), error=str(error))
        return None

    def _file(self, operation_id: str) -> Path:
        return self._folder / f"{operation_id}.json"


class JournalEntry:
    """An entry from when it is begun to be written until it is struck out; of one event loop.

    It is written in a thread: on a disk that takes in gigabytes a small file may wait for seconds.

    Args:
        journal: Where it goes.
        begun: What it says.
        written: Whether it is there already.

    """

    def __init__(self, journal: OperationJournal, begun: Begun, *, written: bool = False) -> None:
        self._journal = journal
        self._begun = begun
        self._writing = None
        if not written:
            self._writing = asyncio.get_running_loop().create_task(self._write())
        self.struck = False
        """Whether it is out, or will be as soon as it is in."""

    async def written(self) -> None:
        """Return when it is on the disk, or cannot be brought there."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def strike(self) -> None:
        """Take it out."""
        if self.struck:
            return
        self.struck = True
        if self._writing is None or self._writing.done():
            self._journal.remove(self._begun.id)
        else:
            self._writing.add_done_callback(lambda _: self._journal.remove(self._begun.id))

    async def _write(self) -> None:
        try:
            await in_thread(lambda _: self._journal.write(self._begun))
        except (DiskFullError, OSError) as error:
            # The work is done all the same; only after a restart it has to be asked for again.
            log.warning("operation.not_recorded", operation=self._begun.id, error=str(error))
