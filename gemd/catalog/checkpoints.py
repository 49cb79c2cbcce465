"""A model that is a directory: a DiffusionGemma checkpoint as the hub's clients leave it on disk.

Only names, sizes and config.json are looked at here, because a name is resolved before every
answer. Headers and index are read when it is loaded (`gemd.footprint.read_diffusion`).
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, Any, Final

from gemd.catalog.profile import Profile
from gemd.catalog.sources import LocalSource
from gemd.catalog.variant import BLOCK_DIFFUSION, Variant
from gemd.errors import GemdError, InvalidRequestError
from gemd.footprint.checkpoint import INDEX
from gemd.footprint.diffusion_config import (
    CONFIG,
    MODEL_TYPE,
    context_of,
    described_as,
    quantization_of,
    read_config,
)
from gemd.footprint.diffusion_files import SINGLE

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX: Final = ".safetensors"

_SHARD: Final = re.compile(r".+-(\d{5})-of-(\d{5})\.safetensors")
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")
_SNAPSHOTS: Final = "snapshots"
_REPOSITORY: Final = re.compile(r"models--.+--(.+)")
"""A folder of the hub client's cache; what follows the owner is the repository's name."""
_SHOWN: Final = 5


def weights_bytes(directory: Path | str) -> int:
    """Bytes of all files of weights in a directory; 0 if it has none or cannot be looked at."""
    return sum(_weights(directory).values())


def is_complete(directory: Path) -> bool:
    """Whether a checkpoint is there with all the files that their names promise."""
    names = _weights(directory)
    if not names or not (directory / CONFIG).is_file():
        return False
    if SINGLE in names:
        return True
    shards = [found for name in names if (found := _SHARD.fullmatch(name))]
    return (
        bool(shards)
        and (directory / INDEX).is_file()
        and len(shards) == max(int(found[2]) for found in shards)
    )


def telling_name(path: Path) -> str:
    """What to call a checkpoint: in the hub client's cache its directory is called by a commit."""
    if path.parent.name == _SNAPSHOTS and (found := _REPOSITORY.fullmatch(path.parent.parent.name)):
        return found[1]
    return path.name or "checkpoint"


def directory_profile(path: Path, *, model_id: str) -> Profile:
    """A profile for the checkpoint in a directory. Its files are referenced, never copied.

    Args:
        path: Of the directory.
        model_id: Of the profile.

    Raises:
        InvalidRequestError: It holds something else; the text says what.

    """
    names = _names(path)
    config = _config(path, names)
    size = _size(path, names)
    try:
        context, quantization = context_of(config), quantization_of(config)
    except GemdError as error:
        raise _refused(path, str(error)) from None
    return Profile(
        id=model_id,
        display_name=telling_name(path),
        family="local",
        context_tokens=context,
        variants=(
            Variant(
                id="directory",
                quantization=quantization,
                engine="diffusion",
                size_bytes=size,
                requires=BLOCK_DIFFUSION,
                sources=(LocalSource(path=path),),
            ),
        ),
    )


def _names(path: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(path))  # noqa: PTH208 - names, not paths
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from None


def _config(path: Path, names: frozenset[str]) -> dict[str, Any]:
    """Its config.json, if that is of the one architecture that is served from a directory."""
    if CONFIG not in names:
        gguf = sorted(name for name in names if name.lower().endswith(".gguf"))
        if gguf:
            file = shlex.quote(str(path / gguf[0]))
            raise _refused(
                path,
                f"it is a directory with {_listed(gguf)}, and a GGUF model is named by its file",
                f'gemctl run --model {file} "Hello"',
            )
        raise _refused(path, f"it is a directory without a {CONFIG}, so it is no checkpoint")
    try:
        config = read_config(path)
    except GemdError as error:
        raise _refused(path, str(error)) from None
    if config.get("model_type") != MODEL_TYPE:
        raise _refused(
            path,
            f"its {CONFIG} is of a model of the type {described_as(config)}; of directories gemd "
            f"serves {MODEL_TYPE} only, and other models as GGUF files",
        )
    return config


def _size(path: Path, names: frozenset[str]) -> int:
    found = _weights(path)
    if INDEX not in names and found and SINGLE not in found:
        raise _refused(
            path, f"it has {_listed(sorted(found))} and no {INDEX} that says what is in which file"
        )
    size = sum(found.values())
    if size:
        return size
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if pickles:
        raise _refused(
            path,
            f"its weights are {_listed(pickles)}: such files are programs that build weights, and "
            f"gemd reads *{SUFFIX} only",
        )
    if any(name.endswith(SUFFIX) for name in names):
        raise _refused(path, f"its *{SUFFIX} files are empty, or links to files that are gone")
    raise _refused(path, f"it has a {CONFIG} and no *{SUFFIX} files: a download may be unfinished")


def _weights(directory: Path | str) -> dict[str, int]:
    """Sizes of the files of weights that can be looked at, through links, by name."""
    found = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and entry.is_file():
                    found[entry.name] = entry.stat().st_size
    except (OSError, ValueError):
        return {}
    return found


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _refused(path: Path, why: str, *advice: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"cannot serve {path}",
        why=why,
        advice=(*advice, f"ls -lL {shlex.quote(str(path))}", "gemctl list"),
        metadata={"field": "model", "path": path},
    )
