"""Why a source does not give a file, and which of several such reasons counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.catalog.sources import RepositorySource
from gemd.errors import (
    AuthRequiredError,
    ContentMismatchError,
    GemdError,
    HubUnreachableError,
    ModelNotFoundError,
    NotImplementedYetError,
    RepoGatedError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.catalog import Profile, Variant
    from gemd.catalog.sources import OneFile


def pull_command(profile: Profile, variant: Variant, *options: str) -> str:
    """What fetches just that variant; the preferred one needs no name."""
    named = () if variant.id == profile.variants[0].id else ("--variant", variant.id)
    return " ".join(("gemctl pull", profile.id, *named, *options))


def fetch_command(profile: Profile, variant: Variant) -> tuple[str, ...]:
    """What fetches a variant of several files into the hub client's cache, and then runs it.

    Of one that is made here, or only named by a place, what fetches another one of the model; none
    if there is none.
    """
    for each in (variant, *profile.variants):
        for source in each.sources:
            if isinstance(source, RepositorySource):
                revision = "" if source.revision == "main" else f" --revision {source.revision}"
                return (
                    f"hf download {source.repository}{revision}",
                    f'gemctl run --model {profile.id} "Hello"',
                )
    return ("gemctl list",)


NEXT_SOURCE = (
    RepoGatedError,
    AuthRequiredError,
    ContentMismatchError,
    ModelNotFoundError,
    HubUnreachableError,
)
"""Errors after which another source may do better; the user can do most about the first."""


def offline(source: OneFile) -> HubUnreachableError:
    """The error about a source that would have to be reached over the network."""
    return HubUnreachableError(
        f"{source.kind} {source.origin} is not asked",
        why="gemd is set to offline",
        advice=("export GEMD_OFFLINE=false",),
        metadata={"source": source.kind, "origin": source.origin, "key": "offline"},
    )


def not_yet(profile: Profile, variant: Variant) -> NotImplementedYetError:
    """The error about a variant that has no source of one file."""
    [*_, source] = variant.sources
    return NotImplementedYetError(
        f"{profile.id} ({variant.id}) cannot be pulled yet",
        why="it is made here by quantizing another variant, which this version of gemd does not do"
        if source.kind == "quantized"
        else f"{source.origin} is several files, and this version of gemd pulls single files only; "
        "what the hub's own client has fetched is used where it is",
        advice=(*fetch_command(profile, variant), f"gemctl plan {profile.id}"),
        metadata={"model": profile.id, "variant": variant.id, "source": source.kind},
    )


def gravest(failures: Sequence[GemdError]) -> GemdError:
    """The failure that the user can do most about, with what the other sources said."""
    rank = {kind: position for position, kind in enumerate(NEXT_SOURCE)}
    worst = min(failures, key=lambda error: rank[type(error)])
    others = "; ".join(str(error) for error in failures if error is not worst)
    if others:
        worst.why = f"{worst.why}; besides, {others}"
        advice = [line for error in (worst, *failures) for line in error.advice]
        worst.advice = tuple(dict.fromkeys(advice))
    return worst
