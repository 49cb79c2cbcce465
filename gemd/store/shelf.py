"""Models on disk: where they are, whether they are what was pulled, how they go."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from gemd.catalog.sources import LocalSource
from gemd.errors import (
    ConfigError,
    ContentMismatchError,
    DiskFullError,
    InvalidRequestError,
    ModelNotFoundError,
)
from gemd.store.disk import sha256_of
from gemd.store.found import is_there, size_of
from gemd.store.kept import Entry, files_of, places_of, stamp_of, stays_ours
from gemd.store.layout import Layout
from gemd.store.locks import if_idle
from gemd.store.manifest import Manifest
from gemd.store.notes import drop_note, read_announced, read_note, write_note
from gemd.store.refusals import another_file, not_on_disk, not_ours, rejected
from gemd.store.releasing import NOTHING, Deleted, Releasing, note_of
from gemd.store.snapshots import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.catalog import Profile, Variant
    from gemd.store.kept import Kept
    from gemd.store.manifest import Stamp

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ModelFile:
    """A variant that is on disk.

    Attributes:
        path: The file, the first one of a split GGUF, or the directory.
        size_bytes: Its size; of several files that of all, and of a directory that was found that
            of all files of weights.
        sha256: Its hash, or of several files that of their list; empty for what was found.
        source: Kind of source: `hub`, `python-package`, `local` or `quantized`.
        variant: Id of the variant.
        manifest: None for a file that is used as it was found.

    """

    path: Path
    size_bytes: int
    sha256: str
    source: str
    variant: str
    manifest: Manifest | None


class Shelf:
    """What lies below one folder, and in the user's hub cache. Callable from any thread.

    Args:
        root: The folder; need not exist.
        hub_cache: Where the user's own hub client keeps repositories, which are used where they
            are; None to look for none.

    Attributes:
        changed: Called, in whatever thread, after a manifest was written or removed.

    """

    def __init__(self, root: Path, hub_cache: Path | None = None) -> None:
        self.root = root
        self.hub_cache = hub_cache
        self.changed: list[Callable[[], None]] = []
        self._layout = Layout(root)
        self._releasing = Releasing(self._layout, self.entries)

    def locate(self, profile: Profile, variant: str = "") -> ModelFile:
        """The files of a variant, whose content is known to be the promised one.

        Only those are hashed again whose size, time or inode are not those of the manifest. Blocks.

        Args:
            profile: The model.
            variant: Id of the variant; empty for the first on disk, those found bad being last.

        Raises:
            ModelNotFoundError: It is not on disk; the advice is the pull.
            ContentMismatchError: It is, and is not what was pulled, or a verification found it bad.
            ConfigError: The note about it cannot be read.

        """
        candidates = [self.chosen(profile, variant)] if variant else profile.variants
        for candidate in sorted(candidates, key=lambda each: self._is_rejected(profile, each)):
            manifest = self.manifest(profile, candidate)
            if manifest and self.is_kept(manifest):
                return self._verified(profile, candidate, manifest)
            if path := self.as_found(candidate):
                return found_file(profile, candidate, path)
        raise not_on_disk(profile, candidates[0])

    def on_disk(self, profile: Profile, variant: str = "") -> bool:
        """Whether a variant (or any) was pulled and its files are there; content is not checked."""
        candidates = [self.chosen(profile, variant)] if variant else profile.variants
        return any(self.path_of(profile, candidate) for candidate in candidates)

    def loadable(self, profile: Profile) -> list[Variant]:
        """The variants that are on disk and were not found to be bad, in the profile's order."""
        return [
            each
            for each in profile.variants
            if self.path_of(profile, each) is not None and not self._is_rejected(profile, each)
        ]

    def path_of(self, profile: Profile, variant: Variant) -> Path | None:
        """Where a variant is if it is on disk; content is not checked."""
        with contextlib.suppress(ContentMismatchError, ConfigError):
            manifest = self.manifest(profile, variant)
            if manifest and self.is_kept(manifest):
                return manifest.file(self.root)
        path = self.as_found(variant)
        return path if path and is_there(variant, path) else None

    def as_found(self, variant: Variant) -> Path | None:
        """Where bytes of the user's are that nobody promised a hash for: they are used there.

        A profile may name a place of which nothing is left, and only that one; of several files
        there is also what the user's hub client has fetched. None if it is to be pulled.
        """
        places = [source.path for source in variant.sources if isinstance(source, LocalSource)]
        if variant.pullable and not variant.several_files:
            return None
        there = next((path for path in places if is_there(variant, path)), None)
        if there is None and variant.several_files:
            there = snapshot(variant.sources, self.hub_cache)
        return there or (places[0] if variant.as_found else None)

    def entries(self) -> list[Entry]:
        """Every manifest, by model and variant; those that cannot be read are left out."""
        found = []
        for file in sorted(self._layout.manifests.glob("*/*.json")):
            with contextlib.suppress(ContentMismatchError, ConfigError):
                if manifest := Manifest.read(file):
                    found.append(Entry.of(manifest, self.root))
        return found

    def entry(self, model: str, variant: str) -> Entry | None:
        """The manifest of one variant; None if there is none.

        Raises:
            ContentMismatchError: It is damaged.
            ConfigError: It cannot be read.

        """
        manifest = Manifest.read(self._layout.manifest(model, variant))
        return Entry.of(manifest, self.root) if manifest else None

    def record(self, manifest: Manifest) -> None:
        """Writes a manifest: from now on the variant is on disk. Blocks.

        Files of the one that it replaces go, as in a deletion, unless the new one has them too.
        """
        file = self._layout.manifest(manifest.model, manifest.variant)
        replaced = None
        with contextlib.suppress(ContentMismatchError, ConfigError):
            replaced = Manifest.read(file)
        if replaced and replaced.is_of_same_files(manifest):
            # Another word about what is there: a pull that was cut off goes on later.
            manifest.write(file)
        else:
            self._replace(file, replaced, manifest)
        self._tell()

    def delete(self, profile: Profile, variant: str = "") -> Deleted:
        """Removes a variant, or all of the model, and what unfinished pulls left.

        Only what gemd put there goes, and is still as it was put there. What another model's pull
        is just fetching stays.

        Raises:
            InvalidRequestError: Its file is used as found; such files are never removed.

        """
        doomed = (self.chosen(profile, variant),) if variant else profile.every_variant
        known = self._layout.variants(profile.model) if _is_kept_by_id(profile) else set()
        for candidate in doomed:
            path = None if candidate.id in known else self.as_found(candidate)
            if path is not None:
                raise not_ours(profile, candidate, path)
        hashes = {candidate.id: candidate.sha256 for candidate in doomed}
        if not variant:
            # Also what a profile of this model had that was replaced since.
            hashes = dict.fromkeys(sorted(known), "") | hashes
        result = NOTHING
        for each, sha256 in hashes.items():
            result += self._delete_variant(profile.model, each, sha256)
        self._tell()
        return result

    def remove(self, entry: Entry) -> Deleted:
        """As `delete`, of one manifest, also if the catalogue does not know its model."""
        manifest = entry.manifest
        sha256 = "" if manifest.parts else manifest.sha256
        result = self._delete_variant(manifest.model, manifest.variant, sha256)
        self._tell()
        return result

    def discard_unfinished(self, model: str, variant: str) -> int:
        """Removes what an unfinished pull has put into the hub's cache; the bytes it took."""
        return self._unfinished(model, variant, "")

    def chosen(self, profile: Profile, variant: str = "") -> Variant:
        """The variant of that id; the profile's preferred one for "".

        Raises:
            InvalidRequestError: There is none.

        """
        found = profile.variant(variant) if variant else profile.variants[0]
        if found is None:
            known = ", ".join(known.id for known in profile.variants)
            raise InvalidRequestError(
                f"{profile.id} has no variant {variant!r}",
                why=f"it has {known}",
                metadata={"field": "variant", "model": profile.id, "variant": variant},
            )
        return found

    def manifest(self, profile: Profile, variant: Variant) -> Manifest | None:
        """Its manifest, if that is about the bytes which the profile names today.

        Raises:
            ContentMismatchError: It is damaged.
            ConfigError: It cannot be read.

        """
        if variant.as_found:
            return None
        manifest = Manifest.read(self._layout.manifest(profile.model, variant.id))
        return manifest if manifest and manifest.is_about(variant) else None

    def is_kept(self, manifest: Manifest) -> bool:
        """Whether the files of a manifest are there; content is not checked."""
        return all(file.place.is_file() for file in files_of(manifest, self.root))

    def _is_rejected(self, profile: Profile, variant: Variant) -> bool:
        with contextlib.suppress(ContentMismatchError, ConfigError):
            return bool((found := self.manifest(profile, variant)) and found.rejection)
        return False

    def _replace(self, file: Path, replaced: Manifest | None, manifest: Manifest) -> None:
        begun = self._layout.begun(manifest.model, manifest.variant)
        note = read_note(begun)
        old = self._layout.replaced(manifest.model, manifest.variant)
        # An update: nobody would find the old files any more.
        goes = replaced if replaced and self._is_more(replaced, manifest) else None
        if goes is not None:
            self._note_down(goes, old)
        manifest.write(file)
        if note is not None:
            # Of a source that another one did better than, or of files that it did without.
            self._releasing.note(note)
        if goes is not None:
            self._releasing.manifest(goes)
            drop_note(old)
        drop_note(self._layout.announced(manifest.model, manifest.variant))
        drop_note(begun)

    def _verified(self, profile: Profile, variant: Variant, manifest: Manifest) -> ModelFile:
        if manifest.rejection:
            raise rejected(profile, variant, manifest.rejection)
        renewed: dict[int, dict[str, object]] = {}
        for position, file in enumerate(files_of(manifest, self.root)):
            stamp = stamp_of(file.place)
            if stamp is None:
                raise not_on_disk(profile, variant)
            if stamp != file.stamp:
                self._check_again(profile, variant, file, stamp)
                renewed[position] = self._seen_again(file, stamp)
        if renewed:
            manifest = self._renewed(manifest, renewed)
        return ModelFile(
            manifest.file(self.root),
            manifest.stamp.size_bytes,
            manifest.sha256,
            manifest.source,
            variant.id,
            manifest,
        )

    def _check_again(self, profile: Profile, variant: Variant, file: Kept, stamp: Stamp) -> None:
        found = f"{stamp.size_bytes} bytes"
        if stamp.size_bytes == file.stamp.size_bytes:
            found = sha256_of(file.place)
        if found != file.sha256:
            raise another_file(profile, variant, file, stamp.size_bytes, found)

    def _seen_again(self, file: Kept, stamp: Stamp) -> dict[str, object]:
        """What a manifest says now of a file that has another stamp and the right content."""
        ours = file.place.is_relative_to(self.root) or stays_ours(file.stamp, stamp)
        return {"stamp": stamp, "owned": file.owned and ours, "linked": file.linked and ours}

    def _renewed(self, manifest: Manifest, changes: dict[int, dict[str, object]]) -> Manifest:
        """The manifest with what has changed of files that are the right ones all the same."""
        if manifest.parts:
            parts = tuple(
                part.model_copy(update=changes.get(position, {}))
                for position, part in enumerate(manifest.parts)
            )
            renewed = manifest.model_copy(update={"parts": parts})
        else:
            renewed = manifest.model_copy(update=changes[0])
        file = self._layout.manifest(manifest.model, manifest.variant)
        try:
            # Reading takes minutes, in which others may have pulled, verified or deleted it.
            if Manifest.read(file) == manifest:
                renewed.write(file)
        except (DiskFullError, ContentMismatchError, ConfigError, OSError) as error:
            # The files are the right ones all the same; they will be hashed again next time.
            log.warning("store.not_noted", path=manifest.path, error=str(error))
        return renewed

    def _delete_variant(self, model: str, variant: str, sha256: str) -> Deleted:
        file = self._layout.manifest(model, variant)
        manifest = None
        with contextlib.suppress(ContentMismatchError):
            manifest = Manifest.read(file)
        result = Deleted(self._unfinished(model, variant, sha256), 0)
        if manifest:
            self._note_down(manifest, self._layout.begun(model, variant))
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            file.parent.rmdir()
        if manifest:
            result += self._releasing.manifest(manifest)
            drop_note(self._layout.begun(model, variant))
        return result

    def _is_more(self, one: Manifest, other: Manifest) -> bool:
        return not places_of(one, self.root) <= places_of(other, self.root)

    def _note_down(self, gone: Manifest, place: Path) -> None:
        """Leaves word of what goes with a manifest, should this process not come to remove it."""
        note = note_of(gone, self.root)
        # On a full disk, which a deletion is to mend, it has to do without.
        with contextlib.suppress(DiskFullError, OSError):
            if note is not None:
                write_note(place, note)

    def _unfinished(self, model: str, variant: str, sha256: str) -> int:
        """Removes what unfinished pulls of a variant left; the bytes it took."""
        old = self._layout.announced(model, variant)
        noted = read_announced(old)
        freed = sum(map(self._discarded, {sha256, noted}))
        if not self._layout.has_unfinished(noted):
            drop_note(old)
        for place in (self._layout.begun(model, variant), self._layout.replaced(model, variant)):
            if note := read_note(place):
                freed_there, done = self._releasing.note(note)
                freed += freed_there
                if done:
                    drop_note(place)
        return freed

    def _discarded(self, sha256: str) -> int:
        """Removes what unfinished pulls of a file left, if none goes on; the bytes it took."""
        if not self._layout.has_unfinished(sha256):
            return 0
        with if_idle(self._layout.lock(sha256)) as idle:
            return self._layout.discard_unfinished(sha256) if idle else 0

    def _tell(self) -> None:
        for listener in self.changed:
            listener()


def _is_kept_by_id(profile: Profile) -> bool:
    """Whether there can be manifests of it: a file named by its path is used as it is."""
    return not all(variant.as_found for variant in profile.variants)


def found_file(profile: Profile, variant: Variant, path: Path) -> ModelFile:
    """Such a file as a `ModelFile`.

    Raises:
        ModelNotFoundError: It is gone.

    """
    if not path.exists():
        what = "directory" if variant.several_files else "model file"
        raise ModelNotFoundError(
            f"there is no {what} {path} any more",
            why="it was moved or removed",
            advice=(f"ls -l {path.parent}",),
            metadata={"model": profile.id, "path": path},
        )
    return ModelFile(path, size_of(variant, path), "", "local", variant.id, None)
