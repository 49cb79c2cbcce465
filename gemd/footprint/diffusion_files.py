"""A DiffusionGemma checkpoint on this machine: its memory by its own files, before it is loaded."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING, Final

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint.checkpoint import INDEX, read_checkpoint
from gemd.footprint.diffusion import diffusion_shape, is_packed, weights_by_headers
from gemd.footprint.diffusion_config import architecture_of, element_bytes, read_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.footprint.diffusion import DiffusionShape

SINGLE: Final = "model.safetensors"
"""The only file of a checkpoint that has no index."""


def read_diffusion(directory: Path) -> DiffusionShape:
    """The shape of the checkpoint in a directory, its weights to the byte.

    Files may be links, as in the hub client's cache.

    Raises:
        BadModelFileError: A file is missing, damaged, or not the one that the index describes; or
            config.json is of another model.

    """
    with _whole(directory):
        config = read_config(directory)
        architecture = architecture_of(config)
        index = directory / INDEX
        headers = read_checkpoint(index if index.exists() else directory / SINGLE)
    width = element_bytes(config)
    return diffusion_shape(
        architecture,
        weights=weights_by_headers(headers, element_bytes=width),
        packed=is_packed(headers),
        element_bytes=width,
    )


@contextlib.contextmanager
def _whole(directory: Path) -> Iterator[None]:
    """A file that is missing makes the checkpoint a bad one: the directory is there.

    Whatever is wrong with it, the advice is to look at its files, whose sizes tell a download that
    was cut off.
    """
    look = f"ls -lL {shlex.quote(str(directory))}"
    try:
        yield
    except BadModelFileError as error:
        error.advice = (look, *error.advice)
        raise
    except ModelNotFoundError as error:
        raise BadModelFileError(
            f"the checkpoint in {directory} is not whole: {error.message}",
            why="a download may have been cut off, or a file was moved away",
            advice=(look,),
            metadata={"path": directory, **error.metadata},
        ) from None
