"""One form of a model's weights."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from gemd.catalog.sources import (
    HubSource,
    LocalSource,
    PackageSource,
    QuantizedSource,
    RepositorySource,
    Source,
)
from gemd.catalog.values import Bytes, Id, Value, Vendor

DIRECTORIES: Final = frozenset({"diffusion", "none"})
"""Engines of weights that are a directory wherever they come from."""

ElementType = Literal["bf16", "fp8", "nvfp4"]
"""How a group of weights is stored: 2, 1 and 9/16 bytes each, the scales of blocks included."""


class WeightGroups(Value):
    """Bytes of a GGUF file's tensors by where llama.cpp may put them."""

    embedding: int = Field(ge=0)
    """Of the input tokens: ``token_embd``."""
    per_layer_embedding: int = Field(default=0, ge=0)
    """Gemma's ``per_layer_token_embd``."""
    experts: int = Field(default=0, ge=0)
    """Of a mixture: all ``*_exps`` tensors."""
    output: int = Field(ge=0)
    """Whatever belongs to no layer and is none of the above: output norm, output matrix if any."""
    rest: int = Field(gt=0)
    """All else in the layers: attention, shared feed-forward, norms, router."""

    @property
    def total(self) -> int:
        """All tensors, without what pads them."""
        return self.embedding + self.per_layer_embedding + self.experts + self.output + self.rest


class Formats(Value):
    """Element type of each group of a diffusion model's weights (`architecture.GROUPS`)."""

    experts: ElementType = "bf16"
    attention: ElementType = "bf16"
    dense: ElementType = "bf16"
    embeddings: ElementType = "bf16"
    vision: ElementType = "bf16"
    other: ElementType = "bf16"


class Requirements(Value):
    """What a GPU has to be for this variant. Nothing is required where a field is empty."""

    vendors: tuple[Vendor, ...] = ()
    """One of them."""
    compute_capability: str = Field(default="", pattern=r"^([0-9]{1,2}\.[0-9])?$")
    """The least one, of NVIDIA's GPUs: ``8.0``."""

    @property
    def capability(self) -> tuple[int, int]:
        """That as numbers which compare; zeros if nothing is required."""
        major, _, minor = (self.compute_capability or "0.0").partition(".")
        return int(major), int(minor)


BLOCK_DIFFUSION = Requirements(vendors=("nvidia",), compute_capability="8.0")
"""What the kernels of the diffusion engine require. Its reference path, which is there for tests,
computes on any processor (`gemd.rpc.diffusion_placing`)."""


class Variant(Value):
    """One form of a model's weights."""

    id: Id
    quantization: str = Field(min_length=1)
    engine: Literal["llama", "diffusion", "scripted", "none"] = "llama"
    """A name of `gemd.worker.host.ENGINES`: ``llama`` runs GGUF files, ``diffusion`` directories
    with a DiffusionGemma checkpoint, and ``scripted`` is there for tests. ``none`` is of a
    directory of weights out of which others are made, and which nothing runs."""
    file_name: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._+-]*)?$", max_length=200)
    """Of the one file that it is; empty if it is several."""
    size_bytes: Bytes
    """Of the file, or of all files together. A prediction where `announced` or `several_files`."""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """Of the whole file. Empty if every source is local: then the bytes are as found; or if every
    one is a file on the hub: then the hub says at the time of the pull what they are."""
    weights: WeightGroups | None = None
    """Of a GGUF file; None if unknown."""
    formats: Formats | None = None
    """Of a diffusion model."""
    requires: Requirements = Requirements()
    why: str = ""
    """In one sentence, why it stands where it stands among the variants."""
    sources: tuple[Source, ...] = Field(min_length=1)
    """In the order in which they are tried."""

    @property
    def announced(self) -> bool:
        """Whether the hub, and not the profile, says which bytes it is."""
        return not self.sha256 and all(isinstance(source, HubSource) for source in self.sources)

    @property
    def as_found(self) -> bool:
        """Whether it is the user's own, a file or a directory that nobody promised a hash for."""
        return not self.sha256 and all(isinstance(source, LocalSource) for source in self.sources)

    @property
    def several_files(self) -> bool:
        """Whether it is a directory of files and not one file."""
        return self._is_several(self.sources[0])

    @property
    def made_here(self) -> bool:
        """Whether it is nowhere to be had: it is quantized on this machine."""
        return all(isinstance(source, QuantizedSource) for source in self.sources)

    @property
    def pullable(self) -> bool:
        """Whether a pull brings it: it is neither the user's own nor to be made here."""
        return not (self.as_found or self.made_here)

    @property
    def needs(self) -> Requirements:
        """What a GPU has to be for it: what it says itself, or else what its engine requires."""
        if self.engine == "diffusion" and self.requires == Requirements():
            return BLOCK_DIFFUSION
        return self.requires

    def _is_several(self, source: Source) -> bool:
        """What the diffusion engine runs is a directory, also where it is on this machine."""
        return isinstance(source, RepositorySource) or (
            isinstance(source, LocalSource | QuantizedSource) and self.engine in DIRECTORIES
        )

    @model_validator(mode="after")
    def _sources_agree(self) -> Variant:
        if len({self._is_several(source) for source in self.sources}) > 1:
            raise ValueError("either every source is one file, or none is")
        if self.engine in DIRECTORIES and (self.file_name or not self.several_files):
            raise ValueError(
                f"the engine {self.engine} is for directories, no GGUF file: file_name must be "
                "empty"
            )
        if self.several_files == bool(self.file_name):
            raise ValueError("file_name is required for one file, and must be empty for several")
        if self.several_files and self.sha256:
            raise ValueError("sha256 is of one file, and the sources are of several")
        unpinned = self.several_files or self.announced or self.as_found or self.made_here
        if not (self.sha256 or unpinned):
            raise ValueError(
                "sha256 is required unless every source is local, or every source is of the hub"
            )
        for source in self.sources:
            if isinstance(source, PackageSource):
                total = sum(part.member_size_bytes for part in source.parts)
                if total != self.size_bytes:
                    raise ValueError(
                        f"the parts are {total} bytes together, size_bytes says {self.size_bytes}"
                    )
        return self

    @model_validator(mode="after")
    def _figures_agree(self) -> Variant:
        if self.weights and self.engine != "llama":
            raise ValueError("weights are of a GGUF file, which the engine llama runs")
        if self.formats and self.engine != "diffusion":
            raise ValueError("formats are of a model that the engine diffusion runs")
        if self.weights and self.weights.total > self.size_bytes:
            raise ValueError(
                f"the weights are {self.weights.total} bytes together, "
                f"size_bytes says {self.size_bytes}"
            )
        return self
