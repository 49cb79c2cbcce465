"""Bytes of the user's that are used as they were found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.catalog.checkpoints import weights_bytes
from gemd.store.disk import size_of_file

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Variant


def is_there(variant: Variant, path: Path) -> bool:
    """Whether a place has what the variant is: one file, or a directory of several."""
    return path.is_dir() if variant.several_files else path.is_file()


def size_of(variant: Variant, path: Path) -> int:
    """Bytes of a file, or of the weights in a directory; 0 if nothing is there."""
    return weights_bytes(path) if variant.several_files else size_of_file(path)
