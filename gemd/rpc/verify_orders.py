"""What the verifier is asked to look at: out of a manifest, or of what a quantizer has made.

Everything here blocks: files are looked at, and small ones read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gemd.errors import UnsupportedInputError
from gemd.rpc.quantize_steps import changed_file, source_files
from gemd.store.kept import files_of
from gemd.store.made import PROVENANCE, Workplace
from gemd.store.provenance import Provenance
from gemd.wire.quantize import TENSORS
from gemd.wire.verify import Examine, WantedFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.catalog import Profile, Variant
    from gemd.rpc.quantize_wish import Finished
    from gemd.store import Store
    from gemd.store.manifest import Manifest
    from gemd.store.provenance import SourceNote

Depth = Literal["files", "full"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A variant on disk.

    Attributes:
        profile: Of the model.
        variant: Which one.
        path: The file or directory.
        manifest: None for what is used as it was found.

    """

    profile: Profile
    variant: Variant
    path: Path
    manifest: Manifest | None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.profile.model}:{self.variant.id}"


@dataclass(frozen=True, slots=True)
class Means:
    """What the verifier may use.

    Attributes:
        threads: To compute with.
        memory_bytes: Of main memory.
        device: Where a block-diffusion model is computed, as torch names it.

    """

    threads: int
    memory_bytes: int
    device: str = "cpu"


def order_of(subject: Subject, root: Path, depth: Depth, means: Means) -> Examine:
    """The order about a variant on disk.

    Args:
        subject: The variant.
        root: Of the store.
        depth: How much to check.
        means: With what.

    Raises:
        UnsupportedInputError: Nothing is known of the files of its engine.

    """
    manifest = subject.manifest
    tensors = source = ""
    if manifest is not None and manifest.making is not None:
        made = Workplace(root, manifest.model, manifest.variant).made
        tensors = str(made / TENSORS)
        provenance = Provenance.read(made / PROVENANCE)
        source = _unchanged(provenance.source) if provenance is not None else ""
    return Examine(
        path=str(subject.path),
        engine=_engine(subject.variant),
        files=_found(subject.path) if manifest is None else _kept(manifest, root),
        quantization=subject.variant.quantization,
        tensors=tensors,
        source=source,
        depth=depth,
        chat_template=subject.profile.chat_template,
        threads=means.threads,
        device=means.device,
        memory_bytes=means.memory_bytes,
    )


def order_of_made(finished: Finished, means: Means) -> Examine:
    """The order about what a quantizer has just made, before it is accepted."""
    order, made, wanted = finished.order, finished.made, finished.wanted
    folder = Path(order.target)
    return Examine(
        path=str(folder / order.name) if wanted.engine == "llama" else str(folder),
        engine=wanted.engine,
        files=tuple(
            WantedFile(
                name=file.name,
                path=str(folder / file.name),
                size_bytes=file.size_bytes,
                sha256=file.sha256,
            )
            for file in made.files
        ),
        quantization=order.quantization,
        tensors=str(folder / TENSORS),
        source=str(finished.source) if finished.source is not None else "",
        depth="full",
        chat_template=wanted.profile.chat_template if wanted.profile else None,
        threads=means.threads,
        device=means.device,
        memory_bytes=means.memory_bytes,
    )


def subjects_of(store: Store, profile: Profile, variants: Iterable[Variant]) -> list[Subject]:
    """Those of the variants that are on disk.

    Raises:
        ContentMismatchError: The manifest of one is damaged.
        ConfigError: It cannot be read.

    """
    found = []
    for variant in variants:
        manifest = store.manifest(profile, variant)
        if manifest is not None:
            # Also where a file of it is missing: that is what is to be found out.
            found.append(Subject(profile, variant, manifest.file(store.root), manifest))
        elif path := store.path_of(profile, variant):
            found.append(Subject(profile, variant, path, None))
    return found


def _engine(variant: Variant) -> Literal["llama", "diffusion", "none"]:
    if variant.engine == "scripted":
        raise UnsupportedInputError(
            f"files of the engine {variant.engine} cannot be verified",
            why="they can be anything",
            metadata={"field": "variant", "variant": variant.id, "engine": variant.engine},
        )
    return variant.engine


def _kept(manifest: Manifest, root: Path) -> tuple[WantedFile, ...]:
    names = [part.name for part in manifest.parts] or [Path(manifest.path).name]
    return tuple(
        WantedFile(
            name=name,
            path=str(kept.place),
            size_bytes=kept.stamp.size_bytes,
            sha256=kept.sha256,
        )
        for name, kept in zip(names, files_of(manifest, root), strict=True)
    )


def _found(path: Path) -> tuple[WantedFile, ...]:
    """Files that nobody has promised anything about, as they are."""
    return tuple(
        WantedFile(name=each.name, path=str(each), size_bytes=each.stat().st_size)
        for each in source_files(path)
        if each.is_file()
    ) or (WantedFile(name=path.name, path=str(path), size_bytes=0),)


def _unchanged(note: SourceNote) -> str:
    """Path of the source if its files are those that were read then; else nothing.

    A file that somebody has replaced would make a good variant look like a bad one.
    """
    return note.path if note.files and not changed_file(note) else ""
