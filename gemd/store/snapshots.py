"""Where the user's hub cache is, and which checkpoints are in it that gemd did not pull.

Those are used where they are and never changed. A link of a snapshot (`gemd.store.hub_cache`) is
made when its blob is whole, so that a download that was cut off leaves no link.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gemd.catalog.checkpoints import is_complete
from gemd.catalog.sources import RepositorySource
from gemd.store.hub_cache import CachedRepository

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.catalog import Source


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


def snapshot(sources: Iterable[Source], cache: Path | None) -> Path | None:
    """The directory of the first of these repositories that is whole in the cache."""
    if cache is None:
        return None
    for source in sources:
        if isinstance(source, RepositorySource):
            cached = CachedRepository.named(cache, source.repository)
            commit = cached.commit(source.revision)
            if commit and is_complete(found := cached.snapshot(commit)):
                return found
    return None


def _absolute(name: str, environ: Mapping[str, str]) -> Path | None:
    """The path, its tilde being the home of that environment; None if it is not absolute."""
    if name.startswith("~/") and environ.get("HOME"):
        name = f"{environ['HOME']}{name[1:]}"
    path = Path(name)
    return path if path.is_absolute() else None
