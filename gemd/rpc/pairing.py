"""Which models are the two tiers, and how they stand at the moment: facts for `gemd.routing`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.config import mend
from gemd.errors import UnsupportedInputError
from gemd.hardware import RAM
from gemd.residency.states import State
from gemd.routing.decide import Standing, Tiers
from gemd.routing.route import Pair
from gemd.routing.speeds import Speed, fingerprint
from gemd.rpc.named_model import AUTO, LOOK_AGAIN_S, named_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.catalog import Profile
    from gemd.catalog.choice import Placed, Plan
    from gemd.catalog.profile import Role
    from gemd.config import Settings
    from gemd.residency.manager import Manager
    from gemd.residency.states import Residence
    from gemd.routing.route import Candidate
    from gemd.routing.speeds import Speeds
    from gemd.rpc.library import Library

NONE: Final = "none"
TYPICAL_TOKENS: Final = 256
"""Of an answer that others wait for."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings say of the tiers.

    Attributes:
        fast: `auto`, `none` or a model.
        strong: `auto` or a model.
        checker: `auto`, `none` or a model.
        origins: By the settings' keys, what set each.

    """

    fast: str
    strong: str
    checker: str
    origins: Mapping[str, str]

    @classmethod
    def of(cls, settings: Settings, origins: Mapping[str, str]) -> Wishes:
        """Those of the settings in force."""
        return cls(settings.fast_model, settings.strong_model, settings.checker_model, origins)


class Pairing:
    """Finds the pair for each request.

    Args:
        wishes: Of the settings.
        library: What models there are, and which are on disk.
        planned: What suits this machine; None as long as that is not known.
        manager: Who is warm.
        speeds: What models were measured to do.
        on_battery: Whether the machine runs on battery, if that is known.

    """

    def __init__(
        self,
        wishes: Wishes,
        *,
        library: Library,
        planned: Callable[[], Plan | None],
        manager: Manager,
        speeds: Callable[[], Speeds],
        on_battery: Callable[[], bool | None],
    ) -> None:
        self._wishes = wishes
        self._library = library
        self._planned = planned
        self._manager = manager
        self._speeds = speeds
        self._on_battery = on_battery
        self._looked: tuple[float, Pair] | None = None
        self._fingerprints: dict[str, tuple[float, str]] = {}

    def pair(self) -> Pair:
        """The models of the two tiers.

        Raises:
            ModelNotFoundError: A setting names a model that no profile describes.

        """
        now = self._manager.time()
        if self._looked is None or now >= self._looked[0]:
            self._looked = (now + LOOK_AGAIN_S, self._look())
        return self._looked[1]

    @property
    def strong_named(self) -> Profile | None:
        """The strong model that a setting names."""
        if self._wishes.strong == AUTO:
            return None
        return self._named("strong_model", self._wishes.strong)

    def tiers(self) -> Tiers:
        """How the models of the pair stand at this moment; what was drafted so far is not in it."""
        pair = self.pair()
        strong = self._standing(pair.strong)
        checks = pair.checker
        if checks is not None and strong is not None and checks.id == strong.model:
            checker: Standing | None = strong
        else:
            checker = self._standing(checks)
        return Tiers(
            fast=self._standing(pair.fast),
            strong=strong,
            checker=checker,
            named=AUTO not in {self._wishes.fast, self._wishes.strong},
            sparing=self._sparing(),
        )

    def _sparing(self) -> str:
        if self._manager.pressures():
            return "memory is short"
        return "the machine runs on battery" if self._on_battery() else ""

    def fingerprint(self, model: str) -> str:
        """What measured speeds of a model hold for: its file on this machine's devices."""
        now = self._manager.time()
        until, known = self._fingerprints.get(model, (now, ""))
        if now >= until:
            known = self._fingerprint(model)
            self._fingerprints[model] = now + LOOK_AGAIN_S, known
        return known

    def _fingerprint(self, model: str) -> str:
        profile = self._library.resolve(model)
        variant = next(
            (each for each in profile.variants if self._library.file_of(profile, each)),
            profile.variants[0],
        )
        return fingerprint(
            variant=f"{variant.file_name} of {variant.size_bytes} bytes",
            device=" and ".join(self._manager.gpus) or "the processor",
            engine=variant.engine,
        )

    def _look(self) -> Pair:
        plan = self._planned()
        strong = self.strong_named or self._planned_one(plan, "strong")
        fast, code, off = self._fast(plan)
        if fast is not None and strong is not None and fast.id == strong.id:
            fast, code, off = None, "SAME_MODEL", f"{strong.id} is the strong model as well"
        checker = None if fast is None else self._checker(fast, strong)
        return Pair(fast=fast, strong=strong, checker=checker, off_reason=code, off=off)

    def _fast(self, plan: Plan | None) -> tuple[Profile | None, str, str]:
        """Who drafts; if nobody, why."""
        origin = self._wishes.origins.get("fast_model", "a setting")
        if self._wishes.fast == NONE:
            return None, "SWITCHED_OFF", f"{origin} sets fast_model to none"
        if self._wishes.fast != AUTO:
            return self._fast_named(origin)
        found = self._planned_one(plan, "fast")
        if found is not None:
            return found, "", ""
        planned = None if plan is None else plan.of("fast")
        if planned is None:
            return None, "NOT_PLANNED", "no fast model suits this machine (gemctl plan --all)"
        name = planned.placed.candidate.profile.id
        return None, "NOT_ON_DISK", f"{name} would draft, and is not on disk"

    def _fast_named(self, origin: str) -> tuple[Profile | None, str, str]:
        named = self._named("fast_model", self._wishes.fast)
        if not self._library.store.on_disk(named):
            why = f"{origin} sets fast_model to {named.id}, which is not on disk"
            return None, "NOT_ON_DISK", f"{why} (gemctl pull {named.id})"
        return named, "", ""

    def _checker(self, fast: Profile, strong: Profile | None) -> Profile | None:
        if self._wishes.checker == NONE:
            return None
        if self._wishes.checker != AUTO:
            named = self._named("checker_model", self._wishes.checker)
            self._check_scores(named)
            # A drafter finds its own draft likely, whatever it is.
            return None if named.id == fast.id else named
        if strong is None or self._is_warm(strong):
            return strong
        warm = [
            each
            for each in self._library.profiles()
            if "verifier" in each.roles and each.id != fast.id and self._is_warm(each)
        ]
        return max(warm, key=lambda each: each.quality, default=strong)

    def _check_scores(self, named: Profile) -> None:
        if any(each.engine != "diffusion" for each in named.variants):
            return
        origin = self._wishes.origins.get("checker_model", "default")
        raise UnsupportedInputError(
            f"{named.id} cannot score drafts",
            why=f"{origin} sets checker_model to it, and it is a block-diffusion model",
            advice=(mend("checker_model", origin), "gemctl stop"),
            metadata={"model": named.id, "origin": origin, "field": "checker_model"},
        )

    def _planned_one(self, plan: Plan | None, role: Role) -> Profile | None:
        """The model that plays a part in the plan, if it is on disk."""
        found = None if plan is None else plan.of(role)
        if found is None:
            return None
        profile = found.placed.candidate.profile
        return profile if self._library.store.on_disk(profile) else None

    def _is_warm(self, profile: Profile) -> bool:
        return self._manager.residence(profile.id).state is State.READY

    def _named(self, key: str, name: str) -> Profile:
        origin = self._wishes.origins.get(key, "default")
        return named_model(self._library, name, key=key, origin=origin)

    def _standing(self, candidate: Candidate | None) -> Standing | None:
        if candidate is None:
            return None
        profile = self._library.resolve(candidate.id)
        residence = self._manager.residence(profile.id)
        speed = self._speeds().of(profile.id, self._predicted(profile.id))
        worker = residence.worker
        context = (
            worker.ready.context_tokens
            if worker is not None
            else self._library.context_tokens(profile)
        )
        return Standing(
            model=profile.id,
            quality=profile.quality,
            warm=residence.state is State.READY,
            queue_s=_queue_s(residence, speed),
            speed=speed,
            context_tokens=context,
            on_gpu=any(device != RAM for device in residence.booked) or self._plans_gpu(profile.id),
        )

    def _predicted(self, model: str) -> Speed:
        placed = self._placed(model)
        if placed is None:
            return Speed()
        speed = placed.speed
        return Speed(decode_tps=None if speed.canvas_s else speed.decode, canvas_s=speed.canvas_s)

    def _plans_gpu(self, model: str) -> bool:
        placed = self._placed(model)
        return placed is not None and placed.gpu is not None

    def _placed(self, model: str) -> Placed | None:
        """The model's place in the plan."""
        plan = self._planned()
        for each in () if plan is None else plan.models:
            if each.placed.candidate.profile.id == model:
                return each.placed
        return None


def _queue_s(residence: Residence, speed: Speed) -> float:
    """Seconds until a new request gets a place of the worker, as far as they can be told.

    As many requests as wait have to end first, and one place becomes free at a time; an answer
    counts with the length of a canvas.
    """
    if residence.worker is None:
        return 0.0
    places = residence.worker.ready.max_sequences
    ahead = residence.active + residence.waiting - places + 1
    if ahead <= 0:
        return 0.0
    answer_s = speed.canvas_s
    if answer_s is None:
        answer_s = TYPICAL_TOKENS / speed.decode_tps if speed.decode_tps else 0.0
    return ahead * answer_s / places
