"""The note beside a blob that says what it is, and that it is complete."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from gemd.catalog.sources import HubSource, QuantizedSource, RepositorySource
from gemd.errors import ConfigError, ContentMismatchError
from gemd.store.disk import write_whole

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from gemd.catalog import Variant

SourceKind = Literal["hub", "python-package", "local", "quantized"]


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


class Part(BaseModel):
    """One file of a variant that is several.

    Attributes:
        name: Path inside the directory, with slashes.
        path: Where its bytes are: relative to the store's root, or absolute where they lie
            elsewhere. The hub's cache has a link under the name, and the bytes under their hash.
        sha256: Of the content.
        stamp: Of the file when it was hashed.
        owned: Whether gemd put the bytes there.
        linked: Whether gemd made the link.

    """

    model_config = ConfigDict(frozen=True)

    name: str
    path: str
    sha256: str
    stamp: Stamp
    owned: bool = True
    linked: bool = False


class Making(BaseModel):
    """What a variant is that was quantized here, for a catalogue that does not know it.

    Attributes:
        quantization: Such as ``Q4_K_M``.
        engine: What runs it.
        source: Id of the variant it was made from, or the path of the file or directory.
        display_name: Of the model, where the catalogue has no such model.
        context_tokens: Likewise; 0: the file's header says.

    """

    model_config = ConfigDict(frozen=True)

    quantization: str
    engine: Literal["llama", "diffusion"]
    source: str
    display_name: str = ""
    context_tokens: int = 0


class Checked(BaseModel):
    """One check of a verification. Fields as `CheckResult` of the API."""

    model_config = ConfigDict(frozen=True)

    check: str
    passed: bool
    detail: str
    value: float | None = None
    limit: float | None = None


class Manifest(BaseModel):
    """One variant on disk.

    Attributes:
        model: Id in the catalogue.
        variant: Its variant.
        path: The file or directory: relative to the store's root, or absolute where it lies
            elsewhere.
        sha256: Of the content; of a directory of the list of its files (`listing_sha256`).
        stamp: Of the file when it was hashed; of a directory only the size of all files counts.
        parts: The files of a directory, or of a split GGUF file, whose first part `path` is; empty
            of one file.
        owned: Whether gemd put the file there; where it is several each part says so.
        linked: Whether gemd made the link that `path` is; where it is several each part says so.
        source: Kind of source the bytes came from.
        origin: Repository, packages or file, with revision or versions; of a repository the
            commit that was fetched.
        hub_file: Path inside the repository; empty for other sources.
        hub_revision: What the profile asks for there: a branch, tag or commit; empty for other
            sources.
        chosen_revision: What the user asked for in place of that; empty if nothing.
        url: Address of the (first) file that was fetched, without credentials and query; empty
            if none.
        licence: As in the profile.
        accepted_licence: Terms that the user accepted for this pull; empty if none.
        created: When the pull ended, which has checked every byte.
        verified: When a verification since then has found the bytes to be those; None if none has.
        making: Of a variant that was quantized here.
        checks: What its last verification found; empty if there was none but the hashes.
        rejection: Why it is not served: what a verification found wrong; empty if nothing.

    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1, 2] = 2
    model: str
    variant: str
    path: str
    sha256: str
    stamp: Stamp
    parts: tuple[Part, ...] = ()
    owned: bool = True
    linked: bool = False
    source: SourceKind
    origin: str
    hub_file: str = ""
    hub_revision: str = ""
    chosen_revision: str = ""
    url: str = ""
    licence: str = ""
    accepted_licence: str = ""
    created: AwareDatetime
    verified: AwareDatetime | None = None
    making: Making | None = None
    checks: tuple[Checked, ...] = ()
    rejection: str = ""

    def file(self, root: Path) -> Path:
        """The file, in the store at `root` or elsewhere."""
        return root / self.path

    @property
    def is_directory(self) -> bool:
        """Whether it is about a directory and not about one file, be that split or not."""
        return bool(self.parts) and not any(
            part.name == PurePath(self.path).name for part in self.parts
        )

    def folder(self, root: Path) -> Path:
        """Where the names of the parts are."""
        return self.file(root) if self.is_directory else self.file(root).parent

    @property
    def last_verified(self) -> datetime:
        """When all bytes were last found to be the right ones, by the pull or since."""
        return max(self.created, self.verified or self.created)

    def is_about(self, variant: Variant) -> bool:
        """Whether it is about the bytes that the variant means today.

        Those of a variant without a hash are whatever one of its sources had when it was pulled,
        or what was made here. So are those that the user named a revision for.
        """
        if self.source == "quantized":
            return any(isinstance(source, QuantizedSource) for source in variant.sources)
        if variant.sha256 and not self.chosen_revision:
            return variant.sha256 in {self.sha256, *(part.sha256 for part in self.parts[:1])}
        repository = self.origin.rpartition("@")[0]
        return any(
            (source.repository, _file_of(source), source.revision)
            == (repository, self.hub_file, self.hub_revision)
            for source in variant.sources
            if isinstance(source, HubSource | RepositorySource)
        )

    def is_of_same_files(self, other: Manifest) -> bool:
        """Whether the other one is about what the same pull, or the same work, has brought."""
        mine = (self.path, self.sha256, self.created)
        return mine == (other.path, other.sha256, other.created)

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


def _file_of(source: HubSource | RepositorySource) -> str:
    return source.file if isinstance(source, HubSource) else ""


def listing_sha256(hashes: Mapping[str, str]) -> str:
    """Identifies the content of a directory: the SHA-256 of what `sha256sum` would list of it.

    Args:
        hashes: SHA-256 of each file by its path inside the directory.

    """
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()
