"""A variant that was made here gets its place: one rename, and the manifest last."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from gemd.store.disk import remove_tree, sha256_of, sync_folder
from gemd.store.made import PROVENANCE
from gemd.store.manifest import Manifest, Part, Stamp, listing_sha256
from gemd.store.provenance import Provenance
from gemd.wire.quantize import TENSORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.store.kept import Entry
    from gemd.store.made import Workplace


def seal(place: Workplace, provenance: Provenance) -> None:
    """Makes what lies in the work folder complete: from here on only `accept` is left to do.

    Args:
        place: Where it lies.
        provenance: Of it.

    """
    wanted = {TENSORS, *(file.name for file in provenance.files)}
    for path in sorted(place.files.iterdir()):
        # Journals and the like: what the quantizer needed to go on.
        if path.name not in wanted:
            remove_tree(path)
    provenance.write(place.files / PROVENANCE)


def sealed(place: Workplace, entry: Entry | None, check: Callable[[], None]) -> Provenance | None:
    """What is complete in the work folder, or lies in its place already without a manifest.

    What lies there without one has lain for nobody knows how long: it is read.

    Args:
        place: Where it would be.
        entry: The variant that there is.
        check: Called between pieces of it; ends the reading by raising.

    """
    found = _complete(place.files)
    if found is not None:
        return found
    found = _complete(place.made)
    if found is None:
        return None
    if entry is not None and entry.manifest.created == found.created:
        return found if entry.intact and not entry.manifest.rejection else None
    same = all(
        sha256_of(place.made / each.name, check=check) == each.sha256 for each in found.files
    )
    return found if same else None


def accept(
    place: Workplace, provenance: Provenance, record: Callable[[Manifest], object]
) -> Manifest:
    """Puts what is sealed in its place, and what was there before away.

    A kill at any moment leaves either the old variant or, for whoever does it again, all that is
    needed for the new one.

    Args:
        place: Where it lies.
        provenance: Of it.
        record: Writes the manifest, for good.

    """
    if (place.files / PROVENANCE).exists():
        place.made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place.made.exists():
            if place.replaced.exists():
                shutil.rmtree(place.replaced)
            place.made.rename(place.replaced)
        place.files.rename(place.made)
        sync_folder(place.made.parent)
    manifest = manifest_of(place, provenance)
    record(manifest)
    discard_work(place)
    return manifest


def discard_work(place: Workplace) -> None:
    """Removes all that was needed for the work."""
    if place.folder.exists():
        shutil.rmtree(place.folder)
    with contextlib.suppress(OSError):
        # Another variant of the model may be at work.
        place.folder.parent.rmdir()


def manifest_of(place: Workplace, provenance: Provenance) -> Manifest:
    """The manifest of what lies in its place. Blocks: looks at each file."""
    where = place.made.relative_to(place.root)
    parts = tuple(
        Part(
            name=file.name,
            path=str(where / file.name),
            sha256=file.sha256,
            stamp=Stamp.of((place.made / file.name).stat()),
        )
        for file in provenance.files
    )
    common = {
        "model": provenance.model,
        "variant": provenance.variant,
        "source": "quantized",
        "origin": provenance.source.origin,
        "licence": provenance.licence,
        "created": provenance.created,
        "making": provenance.making,
        "checks": provenance.checks,
    }
    if provenance.making.engine == "llama":
        [part] = parts
        return Manifest.model_validate(
            {"path": part.path, "sha256": part.sha256, "stamp": part.stamp, **common}
        )
    folder = place.made.stat()
    return Manifest.model_validate(
        {
            "path": str(where),
            "sha256": listing_sha256({part.name: part.sha256 for part in parts}),
            "stamp": Stamp(
                size_bytes=provenance.size_bytes, mtime_ns=folder.st_mtime_ns, inode=folder.st_ino
            ),
            "parts": parts,
            **common,
        }
    )


def _complete(folder: Path) -> Provenance | None:
    found = Provenance.read(folder / PROVENANCE)
    if found is None or any(_size(folder / each.name) != each.size_bytes for each in found.files):
        return None
    return found


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
