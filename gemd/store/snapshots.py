"""Checkpoints that the user's own hub client has fetched: looked for in its cache, never changed.

::

    <cache>/models--<owner>--<name>/refs/<revision>        a commit
    <cache>/models--<owner>--<name>/snapshots/<commit>/…   links into ../../blobs

The layout is documented by huggingface_hub ("Understand caching"). A link is made when its blob is
whole, so that a download that was cut off leaves no link.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.catalog.checkpoints import is_complete
from gemd.catalog.sources import RepositorySource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.catalog import Source, Variant

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_REF_BYTES: Final = 200


def hub_cache(environ: Mapping[str, str]) -> Path | None:
    """Where the user's hub client keeps what it fetched; None if nothing tells a home."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := environ.get(variable):
            return _absolute(named, environ)
    if home := environ.get("HF_HOME"):
        base = _absolute(home, environ)
        return None if base is None else base / "hub"
    if cache := environ.get("XDG_CACHE_HOME"):
        base = _absolute(cache, environ)
    else:
        base = _absolute("~/.cache", environ)
    return None if base is None else base / "huggingface" / "hub"


def repositories(variant: Variant) -> tuple[str, ...]:
    """Those that a variant of several files may have come from."""
    return tuple(
        source.repository for source in variant.sources if isinstance(source, RepositorySource)
    )


def snapshot(sources: Iterable[Source], cache: Path | None) -> Path | None:
    """The directory of the first of these repositories that is whole in the cache."""
    if cache is None:
        return None
    for source in sources:
        if isinstance(source, RepositorySource):
            folder = cache / f"models--{source.repository.replace('/', '--')}"
            commit = _commit(folder, source.revision)
            if commit and is_complete(found := folder / "snapshots" / commit):
                return found
    return None


def _commit(folder: Path, revision: str) -> str:
    """The commit that a revision meant when it was fetched; empty if it never was."""
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        with (folder / "refs" / revision).open(encoding="ascii") as file:
            commit = file.read(_REF_BYTES).strip()
    except (OSError, ValueError):
        return ""
    return commit if _COMMIT.fullmatch(commit) else ""


def _absolute(name: str, environ: Mapping[str, str]) -> Path | None:
    """The path, its tilde being the home of that environment; None if it is not absolute."""
    if name.startswith("~/") and environ.get("HOME"):
        name = f"{environ['HOME']}{name[1:]}"
    path = Path(name)
    return path if path.is_absolute() else None
