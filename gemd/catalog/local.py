"""A model that is named by the path of its file or directory."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
from pathlib import Path

from gemd.catalog.checkpoints import SUFFIX, directory_profile, telling_name, weights_bytes
from gemd.catalog.profile import Profile
from gemd.catalog.sources import LocalSource
from gemd.catalog.variant import Variant
from gemd.errors import InvalidRequestError, ModelNotFoundError
from gemd.footprint.diffusion_config import CONFIG

PREFIX = "local/"
"""Starts the id of every profile made here; catalogue ids have no slash."""

_SUFFIX = ".gguf"


def is_path(name: str) -> bool:
    """Whether a model argument is a path and not an id."""
    return name.startswith("/")


def size_on_disk(name: str) -> int | None:
    """Bytes of a regular file, or of the weights in a directory.

    None if there is neither that can be looked at.
    """
    try:
        status = os.stat(name)  # noqa: PTH116 - one call and no Path on the way to every answer
    except (OSError, ValueError):
        return None
    if stat.S_ISDIR(status.st_mode):
        return weights_bytes(name)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def local_profile(name: str) -> Profile:
    """A profile for the file or directory at an absolute path. It is referenced, never copied.

    Raises:
        ModelNotFoundError: There is no such file or directory.
        InvalidRequestError: It is neither a regular ``.gguf`` file nor a directory with a
            DiffusionGemma checkpoint.

    """
    # Not resolved: in a cache of links the link has the telling name, not its target.
    path = Path(os.path.normpath(name))
    if os.path.isdir(path):  # noqa: PTH112 - unlike Path's, never raises
        return directory_profile(path, model_id=PREFIX + safe_id(telling_name(path)))
    if path.suffix.lower() != _SUFFIX or "\0" in name:
        raise _no_model(path)
    try:
        size = path.stat().st_size
        regular = path.is_file()
    except OSError as error:
        raise ModelNotFoundError(
            f"there is no model file {path}",
            why=error.strerror or type(error).__name__,
            advice=(f"ls -l {path.parent}",),
            metadata={"model": name, "path": path},
        ) from error
    if not regular or size == 0:
        raise InvalidRequestError(
            f"cannot serve {path}",
            why="it is empty" if regular else "it is not a regular file",
            metadata={"field": "model", "path": path, "size_bytes": size},
        )
    return Profile(
        id=PREFIX + safe_id(path.stem),
        display_name=path.name,
        family="local",
        variants=(
            Variant(
                id="file",
                quantization="unknown",
                file_name=safe_id(path.stem) + _SUFFIX,
                size_bytes=size,
                sources=(LocalSource(path=path),),
            ),
        ),
    )


def _no_model(path: Path) -> ModelNotFoundError | InvalidRequestError:
    """Why a path that is no directory and does not end as a model file does is no model."""
    name = str(path)
    why = f"a model file ends in {_SUFFIX}"
    advice: tuple[str, ...] = ("gemctl list",)
    if "\0" in name:
        why = "there is a NUL in its name, which no file has"
    elif not os.path.lexists(path):
        return ModelNotFoundError(
            f"there is no model file and no checkpoint {path}",
            why=f"no file or directory has that name; {why}, and a checkpoint is a directory",
            advice=(f"ls -l {shlex.quote(str(path.parent))}",),
            metadata={"model": name, "path": path},
        )
    elif path.suffix == SUFFIX or path.name == CONFIG:
        why += ", and a checkpoint is named by its directory"
        advice = (f'gemctl run --model {shlex.quote(str(path.parent))} "Hello"', *advice)
    return InvalidRequestError(
        f"cannot serve {name!r}",
        why=why,
        advice=advice,
        metadata={"field": "model", "path": repr(name)},
    )


def safe_id(text: str) -> str:
    """An id that looks like `text` and follows `ID_PATTERN`."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:80]
    return plain or "file"


def told_apart(profile: Profile, path: Path) -> Profile:
    """The profile under an id that also tells the file's folder, for a second file of one name."""
    return profile.model_copy(update={"id": told_apart_id(profile.id, path)})


def told_apart_id(known: str, path: Path) -> str:
    """An id that also tells the file's folder."""
    return f"{known}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
