"""A variant that goes while another one is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.store.disk import sync_folder
from gemd.store.hub_cache import CachedRepository
from gemd.store.kept import files_of, real
from gemd.store.layout import Layout
from gemd.store.notes import drop_note, write_note
from gemd.store.releasing import Releasing, note_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from gemd.store.kept import Entry, Kept
    from gemd.store.manifest import Manifest
    from gemd.store.releasing import Deleted

WEIGHTS: Final = (".gguf", ".safetensors")
"""Endings of the files that a quantizer removes when they are used up."""


def may_be_used_up(manifest: Manifest, root: Path, entries: Iterable[Entry]) -> bool:
    """Whether its weights are gemd's own and nobody else has a use for them. Blocks.

    Args:
        manifest: Of the variant.
        root: Of the store.
        entries: All manifests; its own may be among them.

    """
    own = (manifest.model, manifest.variant)
    named = {
        real(file.content)
        for entry in entries
        if (entry.manifest.model, entry.manifest.variant) != own
        for file in files_of(entry.manifest, root)
    }
    files = files_of(manifest, root)
    places = {real(file.place) for file in files}
    return all(
        file.owned
        and file.is_intact()
        and real(file.content) not in named
        and _is_alone(file, places)
        for file in files
        if file.place.name.endswith(WEIGHTS)
    )


def forget(root: Path, manifest: Manifest) -> None:
    """Makes a variant none any more, though its files are there: they are about to be used up.

    A note of them stays, as of an unfinished pull: should the work never come to its end, a
    deletion or a clean-up still finds them, and a pull goes on with them.

    Args:
        root: Of the store.
        manifest: Of the variant.

    """
    layout = Layout(root)
    note = note_of(manifest, root)
    if note is not None:
        write_note(layout.begun(manifest.model, manifest.variant), note)
    file = layout.manifest(manifest.model, manifest.variant)
    if file.exists():
        file.unlink()
        sync_folder(file.parent)


def drop_rest(root: Path, manifest: Manifest, entries: Callable[[], Iterable[Entry]]) -> Deleted:
    """Removes what is left of a variant that was used up, and the note of it.

    Args:
        root: Of the store.
        manifest: The one that it had.
        entries: Lists all others.

    """
    layout = Layout(root)
    deleted = Releasing(layout, entries).manifest(manifest)
    drop_note(layout.begun(manifest.model, manifest.variant))
    return deleted


def _is_alone(file: Kept, places: set[Path]) -> bool:
    """Whether no other snapshot has it, and what it links to is no link to something shared."""
    repository = CachedRepository.around(file.place)
    if repository is None:
        return True
    if not file.linked or file.content.is_symlink():
        return False
    return places.issuperset(map(real, repository.links_to(file.content)))
