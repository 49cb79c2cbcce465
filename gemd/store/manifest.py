"""The note beside a blob that says what it is, and that it is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from gemd.catalog.sources import HubSource
from gemd.errors import ConfigError, ContentMismatchError
from gemd.store.disk import write_whole

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from gemd.catalog import Variant

SourceKind = Literal["hub", "python-package", "local"]


class Stamp(BaseModel):
    """What shows cheaply that a file is the one that was hashed."""

    model_config = ConfigDict(frozen=True)

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Stamp:
        """The stamp of a file by its `os.stat`."""
        return cls(size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, inode=stat.st_ino)


class Manifest(BaseModel):
    """One variant on disk.

    Attributes:
        model: Id in the catalogue.
        variant: Its variant.
        path: The file: relative to the store's root, or absolute where it belongs to others.
        sha256: Of the content.
        stamp: Of the file when it was hashed.
        source: Kind of source the bytes came from.
        origin: Repository, packages or file, with revision or versions; of a repository the
            commit that was fetched.
        hub_file: Path inside the repository; empty for other sources.
        hub_revision: What was asked for there: a branch, tag or commit; empty for other sources.
        url: Address of the (first) file that was fetched, without credentials and query; empty
            if none.
        licence: As in the profile.
        accepted_licence: Terms that the user accepted for this pull; empty if none.
        created: When the pull ended.

    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    model: str
    variant: str
    path: str
    sha256: str
    stamp: Stamp
    source: SourceKind
    origin: str
    hub_file: str = ""
    hub_revision: str = ""
    url: str = ""
    licence: str = ""
    accepted_licence: str = ""
    created: AwareDatetime

    def file(self, root: Path) -> Path:
        """The file, in the store at `root` or elsewhere."""
        return root / self.path

    def is_about(self, variant: Variant) -> bool:
        """Whether it is about the bytes that the variant means today.

        Those of a variant without a hash are whatever one of its sources had when it was pulled.
        """
        if not variant.announced:
            return self.sha256 == variant.sha256
        repository = self.origin.rpartition("@")[0]
        return any(
            (source.repository, source.file, source.revision)
            == (repository, self.hub_file, self.hub_revision)
            for source in variant.sources
            if isinstance(source, HubSource)
        )

    def write(self, file: Path) -> None:
        """Writes it whole, or not at all."""
        write_whole(file, self.model_dump_json(indent=2).encode() + b"\n")

    @classmethod
    def read(cls, file: Path) -> Manifest | None:
        """The manifest in a file; None if there is none.

        Raises:
            ContentMismatchError: It is damaged.
            ConfigError: It cannot be read.

        """
        try:
            return cls.model_validate_json(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigError(
                f"the manifest {file} cannot be read",
                why=error.strerror or type(error).__name__,
                advice=(f"ls -ld {file.parent} {file}",),
                metadata={"path": file, "key": "store_dir"},
            ) from error
        except ValidationError as error:
            raise ContentMismatchError(
                f"the manifest {file} is damaged",
                why=error.errors()[0]["msg"],
                advice=(f"gemctl pull {file.parent.name} --variant {file.stem} --force",),
                metadata={"path": file, "model": file.parent.name},
            ) from error
