"""Who answers a request that names no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.errors import ModelNotFoundError
from gemd.routing.route import EMBEDDED, NAMED_DEFAULT, NAMED_STRONG, Default
from gemd.rpc.named_model import AUTO, LOOK_AGAIN_S, named_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.catalog import Profile
    from gemd.rpc.library import Library


class DefaultModel:
    """Decides it for every request.

    Args:
        setting: The setting `default_model`.
        origin: What set it, as in `gemd.config.Resolved.origins`.
        library: What models there are, and which are on disk.
        planned: The id of the model that suits this machine; None if none does.
        strong: The strong model that a setting names; None if none does.
        clock: Monotonic seconds.

    """

    def __init__(
        self,
        setting: str,
        origin: str,
        *,
        library: Library,
        planned: Callable[[], str | None],
        strong: Callable[[], Profile | None] = lambda: None,
        clock: Callable[[], float],
    ) -> None:
        self._setting = setting
        self._origin = origin
        self._library = library
        self._planned = planned
        self._strong = strong
        self._clock = clock
        self._looked: tuple[float, str, bool] | None = None

    def choose(self) -> Default:
        """Who, and why.

        Raises:
            ModelNotFoundError: The setting names nobody, or there is no model at all.

        """
        if self._setting != AUTO:
            profile = named_model(
                self._library, self._setting, key="default_model", origin=self._origin
            )
            return Default(profile, NAMED_DEFAULT, f"{profile.id} is the default")
        named = self._strong()
        if named is not None:
            return Default(named, NAMED_STRONG, f"{named.id} is the strong model of the settings")
        planned = self._planned()
        suits = None if planned is None else self._library.resolve(planned)
        if suits is not None and self._is_on_disk(suits):
            return Default(
                suits, "PLANNED_MODEL", f"{suits.id} is on disk and suits this machine best"
            )
        embedded = next(
            (each for each in self._library.profiles() if "default" in each.roles), None
        )
        if embedded is not None:
            return Default(embedded, EMBEDDED, _instead(suits))
        if suits is not None:
            return Default(suits, "PLANNED_MODEL", f"{suits.id} suits this machine best")
        raise ModelNotFoundError(
            "no model answers a request that names none",
            why="the catalogue has none for that, and nothing in it fits this machine",
            advice=("gemctl list", "gemctl plan"),
        )

    def _is_on_disk(self, profile: Profile) -> bool:
        now = self._clock()
        if self._looked is None or now >= self._looked[0] or self._looked[1] != profile.id:
            there = self._library.store.on_disk(profile)
            self._looked = (now + LOOK_AGAIN_S, profile.id, there)
        return self._looked[2]


def _instead(suits: Profile | None) -> str:
    """Why the embedded model answers, and what would do better."""
    if suits is None:
        return "the embedded model answers, because nothing larger fits this machine"
    size = suits.variants[0].size_bytes / 2**30
    return (
        f"the embedded model answers; {suits.display_name} would suit this machine better: "
        f"gemctl pull {suits.id} ({size:.1f} GiB)"
    )
