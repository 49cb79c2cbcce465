"""The choice of weights for a machine: which models, which variants, where, and why. Pure.

The rule for the strong tier: the highest quality rank that fits at the context asked for and is
predicted at the least speed or more; else the fastest that fits. The pair: a fast tier is worth
its memory only beside a strong one that outranks it, or beside a verifier; else the tiers take
turns, and the strong one, which can answer anything, stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gemd.catalog.choice import reasons
from gemd.catalog.choice.devices import planned_devices
from gemd.catalog.choice.placing import Misfit, Site, best_place
from gemd.catalog.choice.values import Plan, PlannedModel, Where
from gemd.catalog.choice.verdicts import verdicts_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from gemd.catalog.choice.pools import Memory
    from gemd.catalog.choice.values import Candidate, Engines, Placed, Wishes
    from gemd.catalog.profile import Role
    from gemd.hardware.inventory import Inventory

READ_BYTES_PER_S: Final = 2 * 10**9
"""What a disk is taken to deliver when a tier is swapped in; nobody measured it."""
START_S: Final = 2.0
"""A worker's start beside the reading of its weights."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is chosen from, for whom and where.

    Attributes:
        machine: What is in it.
        memory: What models may have of its memories.
        candidates: Every variant there is, in each model's own order of preference.
        wishes: What the user asks.
        engines: What can run there.
        backend: What a load would compute with on a GPU; empty for the best that it can run.

    """

    machine: Inventory
    memory: Memory
    candidates: Sequence[Candidate]
    wishes: Wishes
    engines: Engines
    backend: str = ""

    def site(self, memory: Memory | None = None, *, fast: bool = False) -> Site:
        """Where a model is placed: all of the memory, or what is left of it.

        Args:
            memory: What is left; None is all.
            fast: For the fast tier and who checks its drafts: short requests, one after the other.

        """
        wishes = self.wishes
        return Site(
            self.machine,
            self.memory if memory is None else memory,
            wishes.fast_context_tokens if fast else wishes.context_tokens,
            1 if fast else wishes.sequences,
            self.backend,
            wishes.cpu_consent,
        )

    def runnable(self, roles: AbstractSet[Role] | None) -> list[list[Candidate]]:
        """Variants that an engine runs, by model, the highest quality first; None is any role."""
        models: dict[str, list[Candidate]] = {}
        for each in self.candidates:
            plays = roles is None or not roles.isdisjoint(each.profile.roles)
            if plays and each.variant.engine in self.engines.considered:
                models.setdefault(each.profile.id, []).append(each)
        return sorted(models.values(), key=lambda group: -group[0].profile.quality)


def choose(question: Question) -> Plan:
    """What to run on a machine."""
    models = _named(question) if question.wishes.models else _best(question)
    warm = [each.placed for each in models if each.warm]
    notes = reasons.of_plan(question, models)
    return Plan(
        models=models,
        devices=planned_devices(question.memory, warm),
        verdicts=verdicts_of(question, models),
        reasons=notes,
        needs_cpu_consent=_leaves_a_gpu(question, models) and not question.wishes.cpu_consent,
        swap_s=_swap_s(models),
    )


def strong_of(question: Question, models: Collection[str]) -> str | None:
    """Which of these models the rule takes for the strong tier; None if none of them fits."""
    narrowed = replace(
        question, candidates=[each for each in question.candidates if each.profile.id in models]
    )
    picked = _strong(narrowed, question.memory)
    return None if picked is None else picked.candidate.profile.id


def _named(question: Question) -> tuple[PlannedModel, ...]:
    """Of what was asked for the best by the rule, each model in its first variant that fits."""
    asked = [each for each in question.candidates if question.wishes.asks_for(each)]
    groups = replace(question, candidates=asked).runnable(None)
    for on_cpu in (False, True):
        placed = [
            found
            for group in groups
            if (found := _first(group, question.site(fast=_is_fast(group)), on_cpu=on_cpu))
        ]
        if placed:
            best = _ruled(placed, question.wishes.min_speed)
            usual: Role = "fast" if best.candidate.sized.canvas else "strong"
            role = next(iter(best.candidate.profile.roles), usual)
            return (PlannedModel(best, role, True, reasons.of_named(question, best)),)
    return ()


def _is_fast(group: Sequence[Candidate]) -> bool:
    return any(each.sized.canvas for each in group)


def _best(question: Question) -> tuple[PlannedModel, ...]:
    alone = _strong(question, question.memory)
    fast = _fast(question)
    if fast is None:
        return () if alone is None else (_planned(question, alone, _role_of(alone)),)
    if alone is None:
        return (_planned(question, fast, "fast"),)
    if not _is_faster(fast, alone):
        return (_planned(question, alone, "strong"),)
    rest = question.memory.less(fast.demand)
    beside = _strong_beside(question, rest, fast)
    if beside is not None:
        strong = reasons.of_model(question, beside, "strong", beside=True)
        return _planned(question, fast, "fast"), PlannedModel(beside, "strong", True, strong)
    verifier = _first_of(question.runnable({"verifier"}), question.site(rest, fast=True))
    if verifier is not None:
        return (
            _planned(question, fast, "fast"),
            _planned(question, verifier, "verifier"),
            _planned(question, alone, _role_of(alone), warm=False),
        )
    return (
        _planned(question, alone, _role_of(alone)),
        _planned(question, fast, "fast", warm=False),
    )


def _role_of(alone: Placed) -> Role:
    """The embedded model is no strong tier where it answers for want of one."""
    return "strong" if "strong" in alone.candidate.profile.roles else "default"


def _planned(question: Question, placed: Placed, role: Role, *, warm: bool = True) -> PlannedModel:
    return PlannedModel(placed, role, warm, reasons.of_model(question, placed, role))


def _strong(question: Question, memory: Memory) -> Placed | None:
    """By the rule; on the processor alone only where no GPU takes any of them."""
    site = question.site(memory)
    for on_cpu in (False, True) if memory.gpus else (True,):
        placed = [
            found
            for group in question.runnable({"strong"})
            if (found := _first(group, site, on_cpu=on_cpu)) is not None
        ]
        if placed:
            return _ruled(placed, question.wishes.min_speed)
    return _first_of(question.runnable({"default"}), site, on_cpu=True)


def _ruled(placed: Sequence[Placed], min_speed: float) -> Placed:
    """The first that is quick enough, or of which nobody knows; else the quickest."""
    quick = (each for each in placed if _is_quick(each, min_speed))
    return next(quick, None) or max(placed, key=lambda each: each.speed.decode or 0.0)


def _is_quick(placed: Placed, min_speed: float) -> bool:
    return placed.speed.decode is None or placed.speed.decode >= min_speed


def _strong_beside(question: Question, rest: Memory, fast: Placed) -> Placed | None:
    """The strong model for what the fast one leaves of the memory."""
    outranking = [
        group
        for group in question.runnable({"strong"})
        if group[0].profile.quality > fast.candidate.profile.quality
    ]
    for group in outranking:
        found = _first(group, question.site(rest), on_cpu=False)
        if found is not None and _is_quick(found, question.wishes.min_speed):
            return found
    return None


def _fast(question: Question) -> Placed | None:
    return _first_of(question.runnable({"fast"}), question.site(fast=True))


def _is_faster(fast: Placed, strong: Placed) -> bool:
    """Whether a full canvas comes sooner than as many tokens of the strong model."""
    if fast.speed.decode is None or strong.speed.decode is None:
        return True
    return fast.speed.decode > strong.speed.decode


def _first_of(
    groups: Iterable[Sequence[Candidate]], site: Site, *, on_cpu: bool = False
) -> Placed | None:
    """The best model that fits at all."""
    found = (_first(group, site, on_cpu=on_cpu) for group in groups)
    return next((each for each in found if each is not None), None)


def _first(group: Sequence[Candidate], site: Site, *, on_cpu: bool) -> Placed | None:
    """The first variant of a model that fits."""
    for candidate in group:
        found = best_place(candidate, site, on_cpu=on_cpu)
        if not isinstance(found, Misfit):
            return found
    return None


def _leaves_a_gpu(question: Question, models: Sequence[PlannedModel]) -> bool:
    """Whether a load of any of it is one on the processor of a machine whose GPU could compute.

    The embedded default is made for that: it is there to answer before anything else is.
    """
    answering = [each for each in models if each.role != "default"]
    return bool(question.memory.gpus and answering) and any(
        each.placed.where is Where.CPU for each in answering
    )


def _swap_s(models: Sequence[PlannedModel]) -> float | None:
    """How long the slower of the two changes takes."""
    if all(each.warm for each in models):
        return None
    tiers = [each for each in models if each.role in {"fast", "strong"}]
    most = max(each.placed.candidate.sized.weights_bytes for each in tiers)
    return START_S + most / READ_BYTES_PER_S
