"""Why a source does not give a file, and which of several such reasons counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.catalog.sources import LocalSource, RepositorySource, kind_of
from gemd.errors import (
    AuthRequiredError,
    ContentMismatchError,
    GemdError,
    HubUnreachableError,
    InvalidRequestError,
    ModelNotFoundError,
    RepoGatedError,
)
from gemd.quantities import human_bytes
from gemd.store.made import variant_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gemd.catalog import Profile, Source, Variant
    from gemd.store.kept import Kept


def pull_command(profile: Profile, variant: Variant, *options: str) -> str:
    """What fetches just that variant; the preferred one needs no name."""
    named = () if variant.id == profile.variants[0].id else ("--variant", variant.id)
    return " ".join(("gemctl pull", profile.id, *named, *options))


def quantize_command(profile: Profile, variant: Variant) -> str:
    """What makes a variant that is nowhere to be had; one of the usual name needs none."""
    usual = variant.id == variant_id(variant.quantization)
    named = "" if usual else f" --variant {variant.id}"
    return f"gemctl quantize {profile.model} --to {variant.quantization}{named}"


NEXT_SOURCE = (
    RepoGatedError,
    AuthRequiredError,
    ContentMismatchError,
    ModelNotFoundError,
    HubUnreachableError,
)
"""Errors after which another source may do better; the user can do most about the first."""


def offline(source: Source) -> HubUnreachableError:
    """The error about a source that would have to be reached over the network."""
    return HubUnreachableError(
        f"{kind_of(source)} {source.origin} is not asked",
        why="gemd is set to offline",
        advice=("export GEMD_OFFLINE=false",),
        metadata={"source": kind_of(source), "origin": source.origin, "key": "offline"},
    )


def made_here(profile: Profile, variant: Variant) -> InvalidRequestError:
    """The error about a pull of a variant that is nowhere to be had."""
    return InvalidRequestError(
        f"{profile.id} ({variant.id}) cannot be pulled",
        why=f"it is {variant.sources[-1].origin}, by quantizing",
        advice=(quantize_command(profile, variant),),
        metadata={"field": "variant", "model": profile.id, "variant": variant.id},
    )


def rejected(profile: Profile, variant: Variant, rejection: str) -> ContentMismatchError:
    """The error about a variant that a verification found bad."""
    again = (
        quantize_command(profile, variant) + " --force"
        if variant.made_here
        else pull_command(profile, variant, "--force")
    )
    return ContentMismatchError(
        f"{profile.id} ({variant.id}) is not served: a verification found it bad",
        why=rejection,
        advice=(f"gemctl verify {profile.model} --variant {variant.id}", again),
        metadata={"model": profile.id, "variant": variant.id, "rejection": rejection},
    )


def another_file(
    profile: Profile, variant: Variant, file: Kept, size_bytes: int, found: str
) -> ContentMismatchError:
    """The error about a file that is not what was pulled; `found` is its hash or says what."""
    return ContentMismatchError(
        f"{file.place} is not the file that was pulled for {profile.id}",
        why=f"{file.stamp.size_bytes} bytes with SHA-256 {file.sha256} were pulled, {found} was "
        "found",
        advice=(pull_command(profile, variant, "--force"),),
        metadata={
            "model": profile.id,
            "variant": variant.id,
            "path": file.place,
            "expected_sha256": file.sha256,
            "size_bytes": size_bytes,
            "expected_size_bytes": file.stamp.size_bytes,
        },
    )


def not_ours(profile: Profile, variant: Variant, path: Path) -> InvalidRequestError:
    """The error about a deletion of bytes that somebody else put there."""
    cached = not any(
        isinstance(each, LocalSource) and each.path == path for each in variant.sources
    )
    return InvalidRequestError(
        f"gemd does not delete {path}",
        why="it was not pulled but found in the cache of the hub's own client"
        if cached
        else "it was not pulled but named by its path",
        advice=tuple(
            f"hf cache rm model/{each.repository}"
            for each in variant.sources
            if cached and isinstance(each, RepositorySource)
        ),
        metadata={"field": "model", "model": profile.id, "path": path},
    )


def not_on_disk(profile: Profile, variant: Variant) -> ModelNotFoundError:
    """The error about a variant that has to be fetched or made first."""
    size = human_bytes(variant.size_bytes)
    why = f"nothing was pulled yet; {variant.id} is {size}"
    advice = [pull_command(profile, variant)]
    if variant.made_here:
        why = f"{variant.id} is {variant.sources[-1].origin}, by quantizing; it is {size}"
        advice = [quantize_command(profile, variant)]
    if variant.several_files:
        # Whether it would run here is worth knowing before so much is fetched.
        advice.append(f"gemctl plan {profile.id}")
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
