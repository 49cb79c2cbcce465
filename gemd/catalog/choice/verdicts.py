"""What was found about every variant, taken or not. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.catalog.choice.placing import Misfit, best_place
from gemd.catalog.choice.reasons import no_engine, reason, supported, unsupported
from gemd.catalog.choice.values import Speed, Verdict
from gemd.catalog.variant import Requirements
from gemd.hardware import RAM
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.catalog.choice.choose import Question
    from gemd.catalog.choice.values import Candidate, Placed, PlannedModel, Reason


def verdicts_of(question: Question, models: Sequence[PlannedModel]) -> tuple[Verdict, ...]:
    """One for each variant that was asked about, best first.

    Those that are taken, then those that fit, then the rest; among these by quality, then in the
    model's own order.
    """
    asked = [each for each in question.candidates if question.wishes.asks_for(each)]
    taken = {each.placed.candidate.key: each for each in models}
    found = [_verdict(question, each, taken) for each in asked]
    return tuple(sorted(found, key=_rank))


def _rank(verdict: Verdict) -> tuple[bool, bool, int]:
    return not verdict.chosen, not verdict.fits, -verdict.candidate.profile.quality


def _verdict(
    question: Question,
    candidate: Candidate,
    taken: dict[tuple[str, str], PlannedModel],
) -> Verdict:
    chosen = taken.get(candidate.key)
    if chosen is not None:
        return _fitting(question, candidate, chosen.placed, chosen.reasons[0], chosen=True)
    engine = candidate.variant.engine
    if engine not in question.engines.considered:
        missing = engine in question.engines.shipped
        if missing and not supported(question, candidate):
            return _unfit(candidate, unsupported(candidate))
        return _unfit(candidate, no_engine(question, engine))
    found = best_place(candidate, question.site(fast=bool(candidate.sized.canvas)), on_cpu=True)
    if isinstance(found, Misfit):
        why = _too_large(question, candidate, found)
        return _unfit(candidate, why, needed=found.needed, available=found.available)
    why = _left(question, candidate, found, list(taken.values()))
    return _fitting(question, candidate, found, why, chosen=False)


def _fitting(
    question: Question, candidate: Candidate, placed: Placed, why: Reason, *, chosen: bool
) -> Verdict:
    memory = question.memory
    device = memory.pool_of[RAM if placed.gpu is None else placed.gpu.device]
    return Verdict(
        candidate,
        chosen=chosen,
        fits=True,
        needed_bytes=placed.demand[device],
        available_bytes=memory.pools[device].available,
        speed=placed.speed,
        reason=why,
    )


def _too_large(question: Question, candidate: Candidate, misfit: Misfit) -> Reason:
    if not misfit.pool or not (
        candidate.variant.needs == Requirements() or supported(question, candidate)
    ):
        return unsupported(candidate)
    return reason(
        "TOO_LARGE",
        f"it takes {human_bytes(misfit.needed)} of {misfit.pool} at least, and models may have "
        f"{human_bytes(misfit.available)} there",
        device=misfit.pool,
        needed_bytes=misfit.needed,
        available_bytes=misfit.available,
    )


def _left(
    question: Question, candidate: Candidate, placed: Placed, models: list[PlannedModel]
) -> Reason:
    """Why a variant that fits by itself is not part of the plan."""
    profile = candidate.profile
    for model in models:
        other = model.placed.candidate
        if other.profile.id == profile.id:
            return reason(
                "OTHER_VARIANT",
                f"{other.variant.quantization} of the same model stands before it",
                variant=other.variant.id,
            )
    if "fast" in profile.roles:
        return reason("NO_FAST_TIER", "the plan has no fast tier; its reasons say why")
    if "strong" not in profile.roles:
        return reason("NOT_NEEDED", "it is there for machines on which nothing better fits")
    strong = next((each for each in models if each.role in {"strong", "default"}), None)
    return _outdone(question, candidate, placed, strong)


def _outdone(
    question: Question, candidate: Candidate, placed: Placed, strong: PlannedModel | None
) -> Reason:
    """Why another strong model was taken."""
    speed, least = placed.speed.decode, question.wishes.min_speed
    if speed is not None and speed < least:
        return reason(
            "TOO_SLOW",
            f"predicted at {speed:.1f} tokens/s, less than the {least:g} that are asked for",
            tokens_per_second=round(speed, 1),
            min_tokens_per_second=least,
        )
    quality = candidate.profile.quality
    if strong is not None and quality > strong.placed.candidate.profile.quality:
        return reason(
            "NO_ROOM_BESIDE",
            "it fits by itself, but not beside the fast tier at the speed that is asked for",
        )
    return reason(
        "LOWER_QUALITY",
        f"it fits, and its quality rank {quality} is lower than that of the one taken",
        quality=quality,
    )


def _unfit(candidate: Candidate, why: Reason, *, needed: int = 0, available: int = 0) -> Verdict:
    return Verdict(
        candidate,
        chosen=False,
        fits=False,
        needed_bytes=needed,
        available_bytes=available,
        speed=Speed(),
        reason=why,
    )
