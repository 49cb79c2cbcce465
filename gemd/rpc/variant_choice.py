"""Which variant of a model is fetched, or loaded, where nobody names one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from gemd.errors import GemdError
from gemd.residency.decisions import Alternative, Decision, DecisionKind, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gemd.catalog import Profile, Variant
    from gemd.catalog.choice import Plan, Verdict
    from gemd.catalog.choice import Reason as Finding

log = structlog.get_logger(__name__)


def choose_variant(
    profile: Profile, plan: Plan | None, *, now: float
) -> tuple[Variant, Decision | None]:
    """The variant that is fetched, and why; no decision if there is nothing to choose from.

    It is the one that the plan takes, as far as it can be fetched; where none of them fits, the
    profile's first: another machine may share the store.

    Args:
        profile: The model; the order of its variants is that of preference.
        plan: What of it suits this machine; None if nothing is seen of the machine.
        now: Monotonic second of the decision.

    """
    offered = [each for each in profile.variants if each.pullable] or list(profile.variants)
    if len(offered) == 1:
        return offered[0], None
    verdicts = _verdicts(plan)
    taken = first_that_fits(offered, plan)
    first, *more = _reasons(profile, plan, verdicts.get(taken.id))
    decision = Decision(
        time=now,
        kind=DecisionKind.VARIANT,
        model=profile.id,
        summary=f"{taken.id} of {profile.id} is fetched: {first.message}",
        # By its id a client knows the decision about a pull that it follows.
        reasons=(replace(first, metadata={**first.metadata, "variant": taken.id}), *more),
        alternatives=tuple(
            Alternative(each.id, _reason(verdicts[each.id].reason))
            for each in profile.variants
            if each is not taken and each.id in verdicts
        ),
    )
    return taken, decision


def first_that_fits(variants: Sequence[Variant], plan: Plan | None) -> Variant:
    """That one which the plan takes, else the first that would fit, else the first.

    Args:
        variants: Of one model, at least one, in the order of preference.
        plan: What of it suits this machine; None if nothing is known.

    """
    verdicts = _verdicts(plan)
    fitting = [each for each in variants if each.id in verdicts and verdicts[each.id].fits]
    planned = [each for each in fitting if verdicts[each.id].chosen]
    return next(iter(planned or fitting or variants))


async def plan_of(
    profile: Profile, suits: Callable[[Profile], Awaitable[Plan | None]]
) -> Plan | None:
    """What of a model suits this machine; None if that cannot be told.

    A damaged file may be the reason, which the pull that asks is to mend.
    """
    try:
        return await suits(profile)
    except GemdError:
        log.warning("variant.unplanned", model=profile.id, exc_info=True)
        return None


def _verdicts(plan: Plan | None) -> dict[str, Verdict]:
    return {} if plan is None else {each.candidate.variant.id: each for each in plan.verdicts}


def _reasons(profile: Profile, plan: Plan | None, verdict: Verdict | None) -> tuple[Reason, ...]:
    if plan is None:
        message = "nothing is seen of this machine, and it is the first of the model's variants"
        return (Reason("MACHINE_UNKNOWN", message),)
    if verdict is None:
        message = "nothing tells yet how much memory it takes, and it is the first of the variants"
        return (Reason("SIZE_UNKNOWN", message),)
    if not verdict.fits:
        why = verdict.reason.message
        message = (
            f"no variant of {profile.id} fits this machine ({why}), and it is the first of them"
        )
        return (Reason("NONE_FITS", message),)
    if verdict.chosen:
        return tuple(_reason(each) for each in plan.models[0].reasons)
    return (_reason(verdict.reason),)


def _reason(found: Finding) -> Reason:
    return Reason(found.code, found.message, found.metadata)
