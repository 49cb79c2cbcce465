"""What was quantized on this machine: variants out of manifests, and places to work. Pure.

::

    <root>/work/<model>/<variant>/source.json      what it is made from; once that is known
    <root>/work/<model>/<variant>/files/           what the quantizer has written so far
    <root>/work/<model>/<variant>/replaced/        what was there before, until the new one is
    <root>/made/<model>/<variant>/                 the result, with `provenance.json` beside it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.catalog.local import safe_id, told_apart_id
from gemd.catalog.made import MadeModel
from gemd.catalog.sources import QuantizedSource
from gemd.catalog.variant import BLOCK_DIFFUSION, Requirements, Variant
from gemd.store.layout import Layout, checked_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from gemd.store.manifest import Making, Manifest

PROVENANCE: Final = "provenance.json"
_SUFFIX: Final = "-local"
_LONGEST_STEM: Final = 150


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where one variant is made.

    Attributes:
        root: Of the store.
        model: Id of the model.
        variant: Of the variant.

    """

    root: Path
    model: str
    variant: str

    def __post_init__(self) -> None:
        """Refuse names that are no ids: they become paths."""
        checked_id(self.model)
        checked_id(self.variant)

    @property
    def folder(self) -> Path:
        """All that is of this variant until it is accepted."""
        return Layout(self.root).work(self.model, self.variant)

    @property
    def files(self) -> Path:
        """What becomes the result."""
        return self.folder / "files"

    @property
    def source_note(self) -> Path:
        """What it is made from, and what is known of that."""
        return self.folder / "source.json"

    @property
    def replaced(self) -> Path:
        """The variant that was there before, on its way out."""
        return self.folder / "replaced"

    @property
    def made(self) -> Path:
        """The result."""
        return Layout(self.root).made(self.model, self.variant)


def made_models(manifests: Iterable[Manifest]) -> dict[str, MadeModel]:
    """What was made here by model, for `Catalog.know_made`.

    Args:
        manifests: All there are; those of other variants are passed over.

    """
    by_model: dict[str, list[tuple[Manifest, Making]]] = {}
    for manifest in manifests:
        if manifest.making is not None:
            by_model.setdefault(manifest.model, []).append((manifest, manifest.making))
    return {
        model: MadeModel(
            variants=tuple(made_variant(manifest, making) for manifest, making in found),
            display_name=found[0][1].display_name,
            context_tokens=max(making.context_tokens for _, making in found),
        )
        for model, found in by_model.items()
        for found in [sorted(found, key=lambda each: (each[0].created, each[0].variant))]
    }


def made_variant(manifest: Manifest, making: Making) -> Variant:
    """The variant that a manifest is about."""
    llama = making.engine == "llama"
    return Variant(
        id=manifest.variant,
        quantization=making.quantization,
        engine=making.engine,
        file_name=Path(manifest.path).name if llama else "",
        size_bytes=max(manifest.stamp.size_bytes, 1),
        requires=Requirements() if llama else BLOCK_DIFFUSION,
        why=f"Made on this machine from {making.source}.",
        sources=(QuantizedSource(variant=safe_id(Path(making.source).stem)),),
    )


def variant_id(quantization: str) -> str:
    """What a variant of that quantization is called when nobody says otherwise."""
    return f"{quantization.lower()}{_SUFFIX}"


def file_name(model: str, quantization: str) -> str:
    """Of a GGUF file."""
    return f"{model[:_LONGEST_STEM]}-{quantization}.gguf"


def model_id(path: Path, stem: str, taken: Collection[str], own: Mapping[str, str]) -> str:
    """Id of the model that the user's own file or directory becomes.

    Args:
        path: Of it.
        stem: What it is called.
        taken: Names that the catalogue has for something else.
        own: Paths of what models were made from, by their ids.

    """
    plain = safe_id(stem)
    if plain not in taken and own.get(plain, str(path)) == str(path):
        return plain
    return told_apart_id(plain, path)
