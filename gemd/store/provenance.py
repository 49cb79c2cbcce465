"""Where a variant that was made here came from: written beside it, before it is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from gemd.store.disk import write_whole
from gemd.store.manifest import (  # noqa: TC001 - pydantic reads the annotations
    Checked,
    Making,
    Manifest,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


class _Note(BaseModel):
    """A small file in JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def write(self, file: Path) -> None:
        """Writes it whole, or not at all."""
        write_whole(file, self.model_dump_json(indent=2).encode() + b"\n")

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """What is in a file; None if it is not there, or not one of these."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None


class SourceFile(BaseModel):
    """One file of what something was made from.

    Attributes:
        name: Path inside its directory, or its name.
        size_bytes: Its size.
        mtime_ns: When its content was last changed.
        sha256: Of the content.

    """

    model_config = ConfigDict(frozen=True)

    name: str
    size_bytes: int
    mtime_ns: int
    sha256: str


class SourceNote(_Note):
    """What a variant is made from.

    Attributes:
        source: Id of the variant, or path of the user's own file or directory.
        path: Where it is.
        quantization: Its own.
        origin: Repository and commit, packages, or path.
        files: Its files.
        fetched: Whether it was fetched for this, so that it may go.
        manifest: The one it had, of what was fetched for this and goes: it is no variant any more.

    """

    format: Literal[1] = 1
    source: str
    path: str = ""
    quantization: str = ""
    origin: str = ""
    files: tuple[SourceFile, ...] = ()
    fetched: bool = False
    manifest: Manifest | None = None


class Recipe(BaseModel):
    """What was asked for; of two results with one recipe and one source, the bytes are the same.

    Attributes:
        quantization: Such as ``Q4_K_M``.
        quantize_dense: NVFP4: the dense layers too.
        importance_sha256: Of the importance matrix; empty if there was none.

    """

    model_config = ConfigDict(frozen=True)

    quantization: str
    quantize_dense: bool = False
    importance_sha256: str = ""


class ResultFile(BaseModel):
    """One file of the result."""

    model_config = ConfigDict(frozen=True)

    name: str
    size_bytes: int
    sha256: str


class Provenance(_Note):
    """How a variant was made. Its being there says that the files beside it are complete.

    Attributes:
        model: Id of the model.
        variant: Of the variant.
        making: What it is.
        recipe: What was asked for.
        source: What it was made from.
        licence: Of the source.
        plan: Tensors by the type that they have.
        fallbacks: Tensors that have another type than their mixture plans, for their width.
        versions: Of what wrote it.
        files: Of the result.
        checks: What was looked at before it was accepted.
        created: When it was complete.

    """

    format: Literal[1] = 1
    model: str
    variant: str
    making: Making
    recipe: Recipe
    source: SourceNote
    licence: str = ""
    plan: dict[str, int]
    fallbacks: int = 0
    versions: dict[str, str]
    files: tuple[ResultFile, ...]
    checks: tuple[Checked, ...] = ()
    created: AwareDatetime

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)

    def is_of(self, recipe: Recipe, source: SourceNote) -> bool:
        """Whether it is the result of that."""
        return (
            self.recipe == recipe
            and self.source.source == source.source
            and {(file.name, file.sha256) for file in self.source.files}
            == {(file.name, file.sha256) for file in source.files}
        )
