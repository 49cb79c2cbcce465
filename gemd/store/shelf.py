"""Models on disk: where they are, whether they are what was pulled, how they go."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from gemd.catalog.checkpoints import weights_bytes
from gemd.catalog.sources import LocalSource
from gemd.errors import (
    ConfigError,
    ContentMismatchError,
    DiskFullError,
    InvalidRequestError,
    ModelNotFoundError,
)
from gemd.quantities import human_bytes
from gemd.store.disk import sha256_of
from gemd.store.layout import Layout
from gemd.store.locks import if_idle
from gemd.store.manifest import Manifest, Stamp
from gemd.store.notes import drop_note, read_note
from gemd.store.refusals import fetch_command, pull_command
from gemd.store.snapshots import repositories, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile, Variant


log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ModelFile:
    """A variant that is on disk.

    Attributes:
        path: The file; of the diffusion engine the directory.
        size_bytes: Its size; of a directory that of all files of weights.
        sha256: Its hash; empty for a local file without a promised one.
        source: Kind of source: `hub`, `python-package` or `local`.
        variant: Id of the variant.
        manifest: None for a file that is used as it was found.

    """

    path: Path
    size_bytes: int
    sha256: str
    source: str
    variant: str
    manifest: Manifest | None


@dataclass(frozen=True)
class Entry:
    """A manifest, and whether the file is there as it describes.

    Attributes:
        manifest: What is said to be there.
        path: Where.
        intact: Size, time and inode are those of when it was hashed.

    """

    manifest: Manifest
    path: Path
    intact: bool


@dataclass(frozen=True)
class Deleted:
    """What a deletion freed.

    Attributes:
        freed_bytes: On disk, unfinished downloads included.
        kept_bytes: Files that another variant shares or that belong to others.

    """

    freed_bytes: int
    kept_bytes: int


class Shelf:
    """What lies below one folder. Every method may be called from any thread.

    Args:
        root: The folder; need not exist.
        hub_cache: Where the user's own hub client keeps repositories, which are used where they
            are; None to look for none.

    """

    def __init__(self, root: Path, hub_cache: Path | None = None) -> None:
        self.root = root
        self._layout = Layout(root)
        self._hub_cache = hub_cache

    def locate(self, profile: Profile, variant: str = "") -> ModelFile:
        """The file of a variant, whose content is known to be the promised one.

        It is only hashed again if size, time or inode are not those of the manifest. Blocks.

        Args:
            profile: The model.
            variant: Id of the variant; empty for the first one that is on disk.

        Raises:
            ModelNotFoundError: It is not on disk; the advice is the pull.
            ContentMismatchError: It is, and is not what was pulled.
            ConfigError: The note about it cannot be read.

        """
        candidates = [self.chosen(profile, variant)] if variant else profile.variants
        for candidate in candidates:
            if path := self.as_found(candidate):
                return found_file(profile, candidate, path)
            manifest = self._manifest(profile, candidate)
            if manifest and manifest.file(self.root).is_file():
                return self._verified(profile, candidate, manifest)
        raise _not_on_disk(profile, candidates[0])

    def on_disk(self, profile: Profile, variant: str = "") -> bool:
        """Whether a variant (or any) was pulled and its file is there; content is not checked."""
        candidates = [self.chosen(profile, variant)] if variant else profile.variants
        return any(self.path_of(profile, candidate) for candidate in candidates)

    def path_of(self, profile: Profile, variant: Variant) -> Path | None:
        """Where a variant's file is if it is on disk; content is not checked."""
        if path := self.as_found(variant):
            return path if is_there(variant, path) else None
        try:
            manifest = self._manifest(profile, variant)
        except (ContentMismatchError, ConfigError):
            return None
        path = manifest.file(self.root) if manifest else None
        return path if path and path.is_file() else None

    def as_found(self, variant: Variant) -> Path | None:
        """Where bytes of the user's are that nobody promised a hash for: they are used there.

        A profile may name a place of which nothing is left, and only that one; of several files
        there is also what the user's hub client has fetched. None if it is to be pulled.
        """
        places = [source.path for source in variant.sources if isinstance(source, LocalSource)]
        if variant.pullable:
            return None
        there = next((path for path in places if is_there(variant, path)), None)
        if there is None and variant.several_files:
            there = snapshot(variant.sources, self._hub_cache)
        return there or (places[0] if variant.as_found else None)

    def entries(self) -> list[Entry]:
        """Every manifest, by model and variant; those that cannot be read are left out."""
        found = []
        for file in sorted(self._layout.manifests.glob("*/*.json")):
            with contextlib.suppress(ContentMismatchError, ConfigError):
                if manifest := Manifest.read(file):
                    path = manifest.file(self.root)
                    found.append(Entry(manifest, path, _stamp(path) == manifest.stamp))
        return found

    def delete(self, profile: Profile, variant: str = "") -> Deleted:
        """Removes a variant, or all of the model, and what unfinished pulls left.

        What another model's pull is just fetching stays.

        Raises:
            InvalidRequestError: Its file is used as found; such files are never removed.

        """
        doomed = (self.chosen(profile, variant),) if variant else profile.variants
        for candidate in doomed:
            if (path := self.as_found(candidate)) is not None:
                raise _not_ours(profile, candidate, path)
        hashes = {candidate.id: candidate.sha256 for candidate in doomed}
        if not variant:
            # Also what a profile of this model had that was replaced since.
            hashes = dict.fromkeys(sorted(self._layout.variants(profile.id)), "") | hashes
        results = [self._delete_variant(profile.id, each, hashes[each]) for each in hashes]
        return Deleted(
            freed_bytes=sum(result.freed_bytes for result in results),
            kept_bytes=sum(result.kept_bytes for result in results),
        )

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

    def _manifest(self, profile: Profile, variant: Variant) -> Manifest | None:
        """Its manifest, if that is about the bytes which the profile names today."""
        manifest = Manifest.read(self._layout.manifest(profile.id, variant.id))
        return manifest if manifest and manifest.is_about(variant) else None

    def _verified(self, profile: Profile, variant: Variant, manifest: Manifest) -> ModelFile:
        path = manifest.file(self.root)
        stamp = _stamp(path)
        if stamp is None:
            raise _not_on_disk(profile, variant)
        if stamp != manifest.stamp:
            self._check_again(profile, variant, manifest, stamp)
        return ModelFile(
            path, stamp.size_bytes, manifest.sha256, manifest.source, variant.id, manifest
        )

    def _check_again(
        self, profile: Profile, variant: Variant, manifest: Manifest, stamp: Stamp
    ) -> None:
        path = manifest.file(self.root)
        found = f"{stamp.size_bytes} bytes"
        if stamp.size_bytes == manifest.stamp.size_bytes:
            found = sha256_of(path)
        if found != manifest.sha256:
            raise ContentMismatchError(
                f"{path} is not the file that was pulled for {profile.id}",
                why=f"{manifest.stamp.size_bytes} bytes with SHA-256 {manifest.sha256} were "
                f"pulled, {found} was found",
                advice=(pull_command(profile, variant, "--force"),),
                metadata={
                    "model": profile.id,
                    "variant": variant.id,
                    "path": path,
                    "expected_sha256": manifest.sha256,
                    "size_bytes": stamp.size_bytes,
                    "expected_size_bytes": manifest.stamp.size_bytes,
                },
            )
        renewed = manifest.model_copy(update={"stamp": stamp})
        try:
            renewed.write(self._layout.manifest(profile.id, variant.id))
        except (DiskFullError, OSError) as error:
            # The file is the right one all the same; it will be hashed again next time.
            log.warning("store.not_noted", path=str(path), error=str(error))

    def _delete_variant(self, model: str, variant: str, sha256: str) -> Deleted:
        file = self._layout.manifest(model, variant)
        manifest = None
        with contextlib.suppress(ContentMismatchError):
            manifest = Manifest.read(file)
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            file.parent.rmdir()
        note = self._layout.announced(model, variant)
        noted = read_note(note)
        freed = sum(map(self._discarded, {sha256, noted}))
        if not self._layout.has_unfinished(noted):
            drop_note(note)
        if manifest is None:
            return Deleted(freed, 0)
        released = self._released(manifest.file(self.root))
        return Deleted(freed + released.freed_bytes, released.kept_bytes)

    def _discarded(self, sha256: str) -> int:
        """Removes what unfinished pulls of a file left, if none goes on; the bytes it took."""
        if not self._layout.has_unfinished(sha256):
            return 0
        with if_idle(self._layout.lock(sha256)) as idle:
            return self._layout.discard_unfinished(sha256) if idle else 0

    def _released(self, path: Path) -> Deleted:
        """Removes a file, if it is the store's and no manifest names it any more."""
        shared = any(entry.path == path for entry in self.entries())
        if shared or path.parent != self._layout.blobs:
            stamp = _stamp(path)
            return Deleted(0, stamp.size_bytes if stamp else 0)
        return Deleted(_removed(path), 0)


def _removed(path: Path) -> int:
    """Removes a file; its size."""
    stamp = _stamp(path)
    path.unlink(missing_ok=True)
    return stamp.size_bytes if stamp else 0


def _stamp(path: Path) -> Stamp | None:
    try:
        return Stamp.of(path.stat())
    except OSError:
        return None


def is_there(variant: Variant, path: Path) -> bool:
    """Whether a place has what the variant is: one file, or a directory of several."""
    return path.is_dir() if variant.several_files else path.is_file()


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


def size_of(variant: Variant, path: Path) -> int:
    """Bytes of a file, or of the weights in a directory; 0 if nothing is there."""
    if variant.several_files:
        return weights_bytes(path)
    stamp = _stamp(path)
    return stamp.size_bytes if stamp else 0


def _not_ours(profile: Profile, variant: Variant, path: Path) -> InvalidRequestError:
    """The error about bytes that somebody else put there."""
    cached = not any(
        isinstance(each, LocalSource) and each.path == path for each in variant.sources
    )
    return InvalidRequestError(
        f"gemd does not delete {path}",
        why="it was not pulled but found in the cache of the hub's own client"
        if cached
        else "it was not pulled but named by its path",
        advice=tuple(f"hf cache rm model/{each}" for each in repositories(variant) if cached),
        metadata={"field": "model", "model": profile.id, "path": path},
    )


def _not_on_disk(profile: Profile, variant: Variant) -> ModelNotFoundError:
    advice = [pull_command(profile, variant)]
    size = human_bytes(variant.size_bytes)
    why = f"nothing was pulled yet; {variant.id} is {size}"
    if variant.several_files:
        # Whether it would run here is worth knowing before so much is fetched.
        advice = [*fetch_command(profile, variant), f"gemctl plan {profile.id}"]
        why = (
            f"{variant.id} is several files of {size} together, which this "
            "version of gemd does not pull itself, but uses where the hub's own client has put them"
        )
    return ModelNotFoundError(
        f"the weights of {profile.id} are not on disk",
        why=why,
        advice=advice,
        metadata={
            "model": profile.id,
            "variant": variant.id,
            "size_bytes": variant.size_bytes,
        },
    )
