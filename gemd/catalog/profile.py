"""What a profile says about a model. Values only; reading the files is `gemd.catalog.files`."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from gemd.catalog.architecture import GROUPS, Architecture
from gemd.catalog.sources import QuantizedSource
from gemd.catalog.values import Bytes, Repository, Value
from gemd.catalog.variant import Variant  # noqa: TC001 - pydantic reads the annotations
from gemd.errors import BadModelFileError

Role = Literal["fast", "strong", "verifier", "embedding", "default"]
Modality = Literal["text", "image", "audio", "video"]

LOCAL: Final = "local"
"""Family of models that no file of the catalogue describes."""


class SamplingDefaults(Value):
    """What a request that leaves a sampling field unset gets. Meanings as in `wire.Sampling`."""

    temperature: float | None = Field(default=None, ge=0)
    """0 is greedy. None is the engine's own: greedy for llama, the released schedule for
    diffusion."""
    top_k: int = Field(default=0, ge=0)
    """0 keeps all tokens."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, lt=1)
    repeat_penalty: float = Field(default=1.0, gt=0)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    max_tokens: int | None = Field(default=None, ge=1, lt=1 << 32)
    """None is no limit but the context's. A request with spans has none: they end its text."""


class Projector(Value):
    """What turns images or sound into embeddings, a file beside the weights.

    For information: no engine of this version takes media, and no pull fetches it.
    """

    repository: Repository
    """On the model hub."""
    file: str = Field(min_length=1)
    """Path inside the repository."""
    size_bytes: Bytes


BenchmarkName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=50)]


class Profile(Value):
    """One model of the catalogue."""

    id: str
    """As `values.ID_PATTERN`; ``local/<stem>`` for a file named by its path."""
    display_name: str = Field(min_length=1)
    family: str = Field(min_length=1)
    licence: str = ""
    """An SPDX id where there is one, else its usual name; empty if unknown."""
    licence_url: str = ""
    licence_acceptance: str = ""
    """Name of the terms that the user has to accept before a pull; empty if none."""
    parameters: int = Field(default=0, ge=0, lt=1 << 63)
    """Weights of the language model, embeddings included; 0 if unknown."""
    active_parameters: int = Field(default=0, ge=0)
    """Of a mixture: those that one token passes. 0: all of them."""
    quality: int = Field(default=0, ge=0)
    """Rank within the catalogue; the higher answers better. 0: unknown, below all others."""
    benchmarks: Mapping[BenchmarkName, float] = Field(default={})
    """Published figures in percent, such as ``mmlu_pro``; the file names their source."""
    context_tokens: int = Field(default=0, ge=0, lt=1 << 31)
    """The longest context the model was made for; 0: the file's header says."""
    roles: tuple[Role, ...] = ()
    modalities: tuple[Modality, ...] = ("text",)
    """What the model was made for; this version passes text only."""
    kind: Literal["chat", "base"] = "chat"
    """A base model continues text; it has no chat template."""
    chat_template: str | None = Field(default=None, min_length=1)
    """Jinja source used instead of the one in the file."""
    defaults: SamplingDefaults = SamplingDefaults()
    projector: Projector | None = None
    architecture: Architecture = Field(default={})
    """Hyperparameters, so that memory is known before there is a file."""
    variants: tuple[Variant, ...] = Field(min_length=1)
    """Preferred one first."""
    checkpoint: Variant | None = None
    """The unquantized weights, out of which GGUF variants can be made here; nothing runs them."""

    @model_validator(mode="after")
    def _variants_differ(self) -> Profile:
        ids = [variant.id for variant in self.variants]
        if self.checkpoint is not None:
            ids.append(self.checkpoint.id)
            if self.checkpoint.engine != "none":
                raise ValueError("the checkpoint needs the engine none: nothing runs it")
        if any(variant.engine == "none" for variant in self.variants):
            raise ValueError("a variant with the engine none can only be the checkpoint")
        if len(set(ids)) != len(ids):
            raise ValueError(f"variant ids repeat: {', '.join(ids)}")
        for variant in self.variants:
            for source in variant.sources:
                # What was made of the user's own file has no other variant beside it.
                if self.family == LOCAL or not isinstance(source, QuantizedSource):
                    continue
                if source.variant == variant.id or source.variant not in ids:
                    raise ValueError(
                        f"{variant.id} cannot be made from {source.variant!r}; "
                        f"the variants are {', '.join(ids)}"
                    )
        return self

    @model_validator(mode="after")
    def _figures_agree(self) -> Profile:
        if self.active_parameters > self.parameters:
            raise ValueError(
                f"active_parameters is {self.active_parameters}, more than all {self.parameters}"
            )
        for variant in self.variants:
            if variant.formats:
                for key, least in _COUNTS.items():
                    count = self.architecture.get(key)
                    if isinstance(count, bool) or not isinstance(count, int) or count < least:
                        raise ValueError(
                            f"formats of {variant.id} need {key} in the architecture, "
                            f"a whole number of at least {least}"
                        )
            _check_size(self.architecture, variant)
        return self

    def __hash__(self) -> int:
        # Tables cannot be hashed; profiles that are equal have equal ids.
        return hash(self.id)

    @property
    def model(self) -> str:
        """The id under which its files are kept: without the variant of ``model:variant``."""
        return self.id.partition(":")[0]

    @property
    def every_variant(self) -> tuple[Variant, ...]:
        """The variants, and the unquantized weights of which others are made."""
        return (*self.variants, *((self.checkpoint,) if self.checkpoint else ()))

    def variant(self, variant_id: str) -> Variant | None:
        """The variant of that id, the checkpoint included."""
        return next((each for each in self.every_variant if each.id == variant_id), None)


_COUNTS = {"canvas_length": 1} | {f"parameters.{group}": 0 for group in GROUPS}
"""What the formats of a diffusion model are about, and the least that each can be."""


def _check_size(architecture: Architecture, variant: Variant) -> None:
    """Refuses figures out of which no plan could make a size: it would break the others' too."""
    if not architecture or not (variant.formats or variant.weights):
        return
    # Most profiles that are made in a daemon's life are of files and have no figures.
    from gemd.footprint import diffusion_shape, profile_shape  # noqa: PLC0415 - as said

    try:
        if variant.formats:
            diffusion_shape(architecture, variant.formats.model_dump())
        elif variant.weights:
            profile_shape(architecture, variant.weights.model_dump())
    except BadModelFileError as error:
        key, value = (error.metadata[fact] for fact in ("key", "value"))
        key = key.removeprefix(f"{architecture['name']}.")
        what = "is missing" if value == "None" else f"is {value}"
        raise ValueError(
            f"the size of {variant.id} cannot be told from the architecture: {key} {what}"
        ) from error
