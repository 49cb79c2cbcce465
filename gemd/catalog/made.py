"""Variants that were quantized on this machine, beside those that profiles name. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.catalog.profile import LOCAL, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gemd.catalog.variant import Variant


@dataclass(frozen=True, slots=True)
class MadeModel:
    """What was made here of one model.

    Attributes:
        variants: In the order of their making.
        display_name: Of a model that no profile describes.
        context_tokens: Likewise; 0: the file's header says.

    """

    variants: tuple[Variant, ...]
    display_name: str = ""
    context_tokens: int = 0


def with_made(profiles: Mapping[str, Profile], made: Mapping[str, MadeModel]) -> dict[str, Profile]:
    """The profiles by id, each with its own made variants behind the others.

    A model that no profile describes gets one. A variant that a profile names itself is there
    already.

    Args:
        profiles: By id.
        made: By the model's id.

    """
    merged = dict(profiles)
    for model, each in made.items():
        known = profiles.get(model)
        if known is None:
            merged[model] = _own(model, each)
        elif new := _new(known, each.variants):
            merged[model] = known.model_copy(update={"variants": (*known.variants, *new)})
    return merged


def one_variant(profile: Profile, variant: Variant) -> Profile:
    """The profile of ``model:variant``: the same model with this variant only."""
    return profile.model_copy(
        update={
            "id": f"{profile.model}:{variant.id}",
            "variants": (variant,),
            "checkpoint": None,
        }
    )


def _own(model: str, made: MadeModel) -> Profile:
    return Profile(
        id=model,
        display_name=made.display_name or model,
        family=LOCAL,
        context_tokens=made.context_tokens,
        variants=made.variants,
    )


def _new(profile: Profile, variants: Sequence[Variant]) -> list[Variant]:
    return [variant for variant in variants if profile.variant(variant.id) is None]
