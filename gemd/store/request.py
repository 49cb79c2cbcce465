"""What a pull is asked for, where that may come from, and what it brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.catalog.sources import HubSource, QuantizedSource, RepositorySource, kind_of
from gemd.errors import InvalidRequestError
from gemd.store.refusals import made_here

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog import Profile, Source, Variant
    from gemd.store.manifest import Manifest, Part, SourceKind, Stamp


@dataclass(frozen=True)
class Request:
    """What is to be pulled.

    Attributes:
        profile: The model.
        variant: One of its variants, or its checkpoint.
        force: Also if it is there: the source is asked again, and every byte is checked.
        source: Kind of the only source to use; empty for all.
        revision: What to ask the hub for in place of the profile's; empty for the profile's.

    """

    profile: Profile
    variant: Variant
    force: bool = False
    source: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Got:
    """Verified files, and where they came from. Fields that are not explained are a manifest's.

    Attributes:
        path: The file, the first part of a split one, or the directory.
        source: Kind of source.
        origin: Repository, packages or file, with revision or versions.
        sha256: Of its content; of several files of their list.
        stamp: Of the file when it was hashed; of several files with the size of all.
        url: Address of the first file that was fetched; empty if none was.
        hub_file: Path inside the repository; empty for other sources and for several files.
        hub_revision: What the profile asks the hub for; empty for other sources.
        parts: The files, where they are several.
        owned: Whether gemd put the bytes there.
        linked: Whether gemd made the link that `path` is.

    """

    path: Path
    source: SourceKind
    origin: str
    sha256: str
    stamp: Stamp
    url: str = ""
    hub_file: str = ""
    hub_revision: str = ""
    parts: tuple[Part, ...] = ()
    owned: bool = True
    linked: bool = False


def as_recorded(manifest: Manifest, root: Path) -> Got:
    """What a manifest is about, as if it had just been brought."""
    return Got(
        path=manifest.file(root),
        source=manifest.source,
        origin=manifest.origin,
        sha256=manifest.sha256,
        stamp=manifest.stamp,
        url=manifest.url,
        hub_file=manifest.hub_file,
        hub_revision=manifest.hub_revision,
        parts=manifest.parts,
        owned=manifest.owned,
        linked=manifest.linked,
    )


def at_revision(
    source: HubSource | RepositorySource, request: Request
) -> HubSource | RepositorySource:
    """The source at the revision that is wanted."""
    if not request.revision:
        return source
    return source.model_copy(update={"revision": request.revision})


def sources_of(request: Request) -> list[Source]:
    """Those that may bring what is asked for, in their order.

    Raises:
        InvalidRequestError: There is none.

    """
    variant = request.variant
    if variant.made_here:
        raise made_here(request.profile, variant)
    known = _able(request)
    if not known:
        raise InvalidRequestError(
            f"{request.profile.id} ({variant.id}) has no revisions",
            why="it does not come from the hub",
            metadata={"field": "revision", "model": request.profile.id, "variant": variant.id},
        )
    chosen = _of_kind(request.source, known)
    if not chosen:
        kinds = ", ".join(dict.fromkeys(map(kind_of, known)))
        raise InvalidRequestError(
            f"{request.profile.id} has no source {request.source!r}",
            why=f"it has {kinds}",
            metadata={"field": "source", "model": request.profile.id, "source": request.source},
        )
    return chosen


def asked(request: Request) -> list[Source]:
    """Those sources in their order, each at the revision that is wanted; may be none.

    What two requests for one variant have in common here, they bring from the same places.
    """
    return [
        at_revision(each, request) if isinstance(each, HubSource | RepositorySource) else each
        for each in _of_kind(request.source, _able(request))
    ]


def unusual(variant: Variant, revision: str) -> str:
    """The revision, unless it is the one that the profile asks for anyway."""
    usual = {
        source.revision
        for source in variant.sources
        if isinstance(source, HubSource | RepositorySource)
    }
    return "" if revision in usual else revision


def _able(request: Request) -> list[Source]:
    """Those that can have what is asked for."""
    known: list[Source] = [
        each for each in request.variant.sources if not isinstance(each, QuantizedSource)
    ]
    if request.variant.several_files or request.revision:
        known = [each for each in known if isinstance(each, HubSource | RepositorySource)]
    return known


def _of_kind(kind: str, sources: list[Source]) -> list[Source]:
    return [each for each in sources if kind in {"", kind_of(each)}]
