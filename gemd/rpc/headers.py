"""What model files say of themselves: those on disk, and those on the hub that were looked at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint import gguf_shape, read_diffusion, read_gguf_model

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile, Variant
    from gemd.footprint import DiffusionShape
    from gemd.footprint.shape import GgufShape
    from gemd.store.look import Look, Looks


class Headers:
    """Shapes of models by their headers. For use from any thread: no state but a cache.

    Args:
        looks: What was seen of files on the hub.

    """

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._local: dict[Path, tuple[tuple[int, int], GgufShape | None]] = {}
        self._directories: dict[Path, tuple[object, DiffusionShape]] = {}

    def shape(self, profile: Profile, variant: Variant, file: Path | None) -> GgufShape | None:
        """The shape of a variant's file; None if nobody has looked into one.

        Args:
            profile: The model.
            variant: Of it.
            file: Where it is on this machine; None if it is not.

        """
        known = self.file(profile, variant, file)
        return None if known is None else self._of_file(known)

    def checkpoint(self, directory: Path) -> DiffusionShape | None:
        """The shape of a checkpoint on this machine; None if it cannot be read."""
        try:
            mark = _mark(directory)
            known = self._directories.get(directory)
            if known is None or known[0] != mark:
                known = self._directories[directory] = (mark, read_diffusion(directory))
        except (OSError, BadModelFileError):
            # As below.
            return None
        return known[1]

    def file(self, profile: Profile, variant: Variant, file: Path | None) -> Path | None:
        """The file of a variant, or one with its header; arguments as in `shape`."""
        if variant.engine != "llama":
            return None
        return file or self._looks.seen(profile, variant)

    async def look(self, profile: Profile, variant: Variant) -> Look:
        """Read the header of a variant's file on the hub; raises as `Looks.look`."""
        return await self._looks.look(profile, variant)

    def _of_file(self, file: Path) -> GgufShape | None:
        try:
            found = file.stat()
            mark = (found.st_size, found.st_mtime_ns)
            known = self._local.get(file)
            if known is None or known[0] != mark:
                known = self._local[file] = (mark, gguf_shape(read_gguf_model(file)))
        except (OSError, BadModelFileError, ModelNotFoundError):
            # A load will say what is wrong with it; a plan goes by the profile.
            return None
        return known[1]


def _mark(directory: Path) -> object:
    """What changes when a file of a checkpoint does; headers of thousands of tensors are slow."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith((".json", ".safetensors")) and entry.is_file():
                status = entry.stat()
                found.append((entry.name, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
