"""`models`: which are on disk, and whether their files are still those that were pulled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import conclude, failure, failure_of, warning
from gemd.doctor.words import counted, listed, quoted
from gemd.errors import GemdError
from gemd.quantities import human_bytes as size
from gemd.store import Manifest
from gemd.store.disk import sha256_of
from gemd.store.hub_cache import CachedRepository
from gemd.store.kept import files_of, stamp_of
from gemd.store.layout import Layout
from gemd.store.notes import read_note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "models"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A file of a variant that was pulled or made.

    Attributes:
        model: Id of the model.
        variant: Of its variant.
        path: Of the file.
        size_bytes: Of the file when it was pulled.
        found: What its file is now; None if it is gone.
        touched: Whether size, time or inode are others than they were.
        sha256: Of the content when it was pulled.
        found_sha256: Of the content now; empty if it was not read.

    """

    model: str
    variant: str
    path: Path
    size_bytes: int
    found: int | None
    touched: bool = False
    sha256: str = ""
    found_sha256: str = ""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What is on disk.

    Attributes:
        root: Folder of all models.
        models: Those that were pulled.
        damaged: Notes about models that cannot be read.
        unfinished: Downloads that have begun.
        unfinished_bytes: Of those.
        thorough: Whether contents were read.
        problem: Why the folder cannot be read; empty if it can.

    """

    root: Path
    models: tuple[ModelFacts, ...] = ()
    damaged: tuple[GemdError, ...] = ()
    unfinished: int = 0
    unfinished_bytes: int = 0
    thorough: bool = False
    problem: str = ""


def examine_models(around: Surroundings, errand: Errand) -> Diagnosis:
    """Look at them and judge; a thorough look reads every file."""
    layout = Layout(around.paths.store_dir)
    try:
        return check_models(_gather(layout, errand))
    except OSError as error:
        return check_models(StoreFacts(layout.root, problem=str(error)))


def check_models(facts: StoreFacts) -> Diagnosis:
    """Judge them."""
    if facts.problem:
        found = failure(
            f"{facts.root} cannot be read: {facts.problem}", f"ls -la {quoted(facts.root)}"
        )
        return conclude(NAME, [found], facts="")
    total = sum(each.found or 0 for each in facts.models)
    names = [
        model for model, _ in dict.fromkeys((each.model, each.variant) for each in facts.models)
    ]
    if names:
        how = "every byte read" if facts.thorough else "by size and time"
        seen = f"{counted(len(names), 'model')}, {size(total)}, {how}: {listed(names)}"
    else:
        seen = f"none was pulled yet into {facts.root}"
    if facts.unfinished:
        seen += (
            f"; {counted(facts.unfinished, 'unfinished download')} "
            f"({size(facts.unfinished_bytes)}), resumed by the next pull"
        )
    return conclude(NAME, _findings(facts), facts=seen)


def _findings(facts: StoreFacts) -> Iterator[Finding]:
    for error in facts.damaged:
        yield failure_of(error)
    for each in facts.models:
        again = f"gemctl pull {each.model} --variant {each.variant} --force"
        if each.found is None:
            yield failure(f"{each.model}: its file {each.path} is gone", again)
        elif each.found_sha256 and each.found_sha256 != each.sha256:
            yield failure(
                f"{each.model}: {each.path} has SHA-256 {each.found_sha256[:12]}… and was pulled "
                f"with {each.sha256[:12]}…",
                again,
            )
        elif each.found != each.size_bytes:
            yield failure(
                f"{each.model}: {each.path} has {each.found} bytes and was pulled with "
                f"{each.size_bytes}",
                again,
            )
        elif each.touched and not each.found_sha256:
            yield warning(
                f"{each.model}: {each.path} was touched since it was pulled; the next load reads "
                "all of it to see whether it is the same",
                "gemctl doctor models --thorough",
            )


def _gather(layout: Layout, errand: Errand) -> StoreFacts:
    models: list[ModelFacts] = []
    damaged = []
    for note in _notes(layout.manifests):
        try:
            manifest = Manifest.read(note)
        except GemdError as error:
            damaged.append(error)
            continue
        if manifest is not None:
            models += _files(manifest, layout.root, errand)
    parts = [*layout.partial.glob("*.part"), *_parts_in_the_cache(layout)]
    parts = [file for file in parts if file.is_file()]
    return StoreFacts(
        root=layout.root,
        models=tuple(models),
        damaged=tuple(damaged),
        unfinished=len(parts),
        # A download is a file with holes where nothing has arrived yet.
        unfinished_bytes=sum(file.stat().st_blocks * 512 for file in parts),
        thorough=errand.thorough,
    )


def _notes(folder: Path) -> Iterator[Path]:
    """The notes on models; `Path.glob` would pass over a folder that may not be read.

    Raises:
        OSError: One may not, as after a pull of another user.

    """
    for model in sorted(folder.iterdir()) if folder.exists() else ():
        if model.is_dir():
            yield from sorted(note for note in model.iterdir() if note.suffix == ".json")


def _parts_in_the_cache(layout: Layout) -> Iterator[Path]:
    """Files of the hub that pulls have begun."""
    for place in layout.root.glob("begun/*/*.json"):
        if note := read_note(place):
            repository = CachedRepository.named(Path(note.cache), note.repository)
            yield from {repository.part(each.etag) for each in note.files}


def _files(manifest: Manifest, root: Path, errand: Errand) -> Iterator[ModelFacts]:
    for file in files_of(manifest, root):
        stamp = stamp_of(file.place)
        read = errand.thorough and stamp is not None
        yield ModelFacts(
            model=manifest.model,
            variant=manifest.variant,
            path=file.place,
            size_bytes=file.stamp.size_bytes,
            found=None if stamp is None else stamp.size_bytes,
            touched=stamp is not None and stamp != file.stamp,
            sha256=file.sha256,
            found_sha256=sha256_of(file.place, check=errand.stop.check) if read else "",
        )
