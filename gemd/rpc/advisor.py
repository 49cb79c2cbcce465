"""What suits this machine, or another: facts are gathered here, `gemd.catalog.choice` decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gemd.catalog import HubSource
from gemd.catalog.choice import (
    DEFAULT_FAST_CONTEXT,
    Candidate,
    DiffusionSized,
    EngineSized,
    GgufSized,
    Limits,
    Question,
    Reason,
    Wishes,
    choose,
    expert_share,
    memory_of,
    profile_sized,
    strong_of,
)
from gemd.engine.builds.choice import AUTO, choose_build
from gemd.errors import (
    BadModelFileError,
    ContentMismatchError,
    EngineMissingError,
    GemdError,
    InvalidRequestError,
)
from gemd.hardware import device_profile, inventory_of, inventory_of_table
from gemd.quantities import Budget
from gemd.rpc.convert.plans import Ask
from gemd.rpc.placing import limits_of
from gemd.rpc.planned_engines import DIFFUSION, ELSEWHERE, engines_here
from gemd.store.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from gemd.catalog import Profile, Variant
    from gemd.catalog.choice import Memory, Plan, Sized
    from gemd.config import Settings
    from gemd.engine.builds.build import Build
    from gemd.hardware import Cpu, Inventory, Sample
    from gemd.rpc.engine_figures import EngineFigures
    from gemd.rpc.headers import Headers
    from gemd.rpc.library import Library

_CPU: Final = "cpu"


@dataclass(frozen=True, slots=True)
class Advice:
    """A plan, and the question that it answers."""

    plan: Plan
    question: Question


class Advisor:
    """Makes plans.

    Args:
        library: Catalogue and store.
        settings: Budgets, margins, and what a plan shall reach.
        cpu: The processor of this machine.
        profiles: The folder of device profiles.
        builds: The engine builds that are installed.
        headers: What is known of files by their own words.
        figures: Asks the engine's planner.
        factors: By model and file name, what was measured against what was predicted, by device.

    """

    def __init__(
        self,
        *,
        library: Library,
        settings: Settings,
        cpu: Cpu,
        profiles: Path,
        builds: Callable[[], Sequence[Build]],
        headers: Headers,
        figures: EngineFigures,
        factors: Callable[[str, str], Mapping[str, float]],
    ) -> None:
        self._library = library
        self._settings = settings
        self._cpu = cpu
        self._profiles = profiles
        self._builds = builds
        self._sample: Callable[[], Awaitable[Sample | None]] = _unseen
        self._headers = headers
        self._figures = figures
        self._factors = factors
        self._settled = False
        self.strong: str | None = None
        """Id of the model that is this machine's strong tier; None if nothing fits."""
        self.planned: Plan | None = None
        """What suits this machine by what is in it; None as long as nothing was seen of it."""

    def look_with(self, sample: Callable[[], Awaitable[Sample | None]]) -> None:
        """See this machine through these eyes from now on."""
        self._sample = sample

    async def plan(self, ask: Ask) -> Advice:
        """What suits the machine that is asked about.

        Raises:
            ModelNotFoundError: No profile goes by the name.
            ResourceNotFoundError: There is no such device profile.
            InvalidRequestError: The model has no such variant, or nothing tells its size.
            BadModelFileError: It is on disk, and its header cannot be read.

        """
        wishes = self._wishes(ask)
        sample = None if ask.device_profile else await self._sample()
        if sample is not None and not self._settled:
            # Nothing was seen of the machine when the daemon started.
            await self.settle(sample)

        def advise() -> Advice:
            return self._advise(ask, wishes, sample)

        advice = await in_thread(lambda _: advise(), abandon=True)
        missed = None
        first = self._first(ask, advice) if wishes.models else None
        if first is not None and self._may_look(*first):
            missed = await self._looked(*first)
            if missed is None:
                advice = await in_thread(lambda _: advise(), abandon=True)
        if first is not None and not _asked_for(advice):
            await self._library.examine(*first)
            raise _size_unknown(wishes.name, missed)
        advice = await self._told(advice)
        unread = self._unread(advice.plan) if missed is None else missed.message
        return replace(advice, plan=_without(advice.plan, unread)) if unread else advice

    def _unread(self, plan: Plan) -> str:
        """What keeps the file of a planned model from telling its size; empty if nothing does."""
        for model in plan.models:
            candidate = model.placed.candidate
            file = self._library.file_of(candidate.profile, candidate.variant)
            if file is None:
                continue
            if self._own(candidate.profile, candidate.variant, file) is None:
                return f"the header of {file} cannot be read, and a load will say why"
        return ""

    def _first(self, ask: Ask, advice: Advice) -> tuple[Profile, Variant] | None:
        """What the plan took of a name; where nothing tells a size, what the name means."""
        if advice.plan.models:
            candidate = advice.plan.models[0].placed.candidate
            return candidate.profile, candidate.variant
        if _asked_for(advice):
            return None
        profile = self._library.resolve(ask.model)
        return profile, profile.variant(ask.variant) or profile.variants[0]

    async def _looked(self, profile: Profile, variant: Variant) -> GemdError | None:
        """Look at a file of the hub before it is fetched; why that failed, or None.

        Raises:
            BadModelFileError: The file itself is wrong, and no pull would mend that.
            ContentMismatchError: The same.

        """
        try:
            await self._headers.look(profile, variant)
        except (BadModelFileError, ContentMismatchError):
            raise
        except GemdError as error:
            return error
        return None

    async def _told(self, advice: Advice) -> Advice:
        """The same with the engine's own figures for the models of the plan, where it has them."""
        told = {}
        for model in advice.plan.models:
            candidate = model.placed.candidate
            file = self._headers.file(
                candidate.profile,
                candidate.variant,
                self._library.file_of(candidate.profile, candidate.variant),
            )
            if file is not None:
                figures = await self._figures.told(model.placed, file)
                if figures is not None:
                    told[candidate.key] = figures
        if not told:
            return advice
        question = replace(
            advice.question,
            candidates=[
                replace(each, sized=EngineSized(each.sized, told[each.key]))
                if each.key in told
                else each
                for each in advice.question.candidates
            ],
        )
        return Advice(choose(question), question)

    async def suits(self, profile: Profile) -> Plan | None:
        """What of one model suits this machine by what is in it; None if nothing is seen of it.

        As `settle`, and by what is known of the model already: its source is not asked. An engine
        may be installed when its weights are there.
        """
        sample = await self._sample()
        if sample is None:
            return None
        ask = Ask(model=profile.id, ignore_others=True)
        question = await in_thread(
            lambda _: self._question(ask, self._wishes(ask), sample, roughly=True), abandon=True
        )
        return choose(replace(question, engines=ELSEWHERE))

    async def settle(self, sample: Sample | None) -> None:
        """Decide what the names of choices mean on this machine, and which model is its strong one.

        By what is in it, not by what other programs hold at the moment: a name shall not change
        its meaning while a browser runs.

        Args:
            sample: The last one; None leaves everything for the first plan that has one.

        """
        if sample is None:
            return
        self._settled = True
        ask = Ask(ignore_others=True)
        question = await in_thread(
            lambda _: self._question(ask, self._wishes(ask), sample, roughly=True), abandon=True
        )
        for choice in self._library.catalog.choices:
            model = strong_of(question, choice.choice)
            self._library.catalog.settle(choice.id, model or choice.choice[-1])
        self.planned = choose(question)
        strong = self.planned.of("strong")
        self.strong = None if strong is None else strong.placed.candidate.profile.id

    def _may_look(self, profile: Profile, variant: Variant) -> bool:
        """Whether the hub could tell more of a file that is not here and was not looked at."""
        if variant.engine != "llama" or self._library.file_of(profile, variant) is not None:
            return False
        of_hub = any(isinstance(each, HubSource) for each in variant.sources)
        seen = self._headers.shape(profile, variant, None) is not None
        return of_hub and not seen and not self._settings.offline

    def _advise(self, ask: Ask, wishes: Wishes, sample: Sample | None) -> Advice:
        question = self._question(ask, wishes, sample)
        return Advice(choose(question), question)

    def _question(
        self, ask: Ask, wishes: Wishes, sample: Sample | None, *, roughly: bool = False
    ) -> Question:
        """What is asked; `roughly` reads no header where a profile tells the size as well."""
        machine = self._machine(ask.device_profile, sample)
        here = not ask.device_profile
        memory = memory_of(machine, self._limits(ask, machine), ignore_others=ask.ignore_others)
        backend = self._backend(memory) if here else ""
        if backend == _CPU:
            # Whoever set the processor as the backend has consented to it.
            memory, wishes, backend = memory.only(()), replace(wishes, cpu_consent=True), ""
        return Question(
            machine,
            memory,
            self._candidates(wishes, here=here, roughly=roughly),
            wishes,
            engines_here(self._builds(), memory) if here else ELSEWHERE,
            backend,
        )

    def _backend(self, memory: Memory) -> str:
        """What a load here computes with, as `Placer` has it; empty if that is not installed."""
        usable = {backend for gpu in memory.gpus for backend in gpu.backends}
        wanted = self._settings.engine_backend
        if wanted != AUTO or not usable:
            return wanted if usable else ""
        try:
            return choose_build(self._builds(), wanted, usable=usable).backend
        except EngineMissingError:
            return ""

    def _wishes(self, ask: Ask) -> Wishes:
        settings = self._settings
        wishes = Wishes(
            context_tokens=ask.context_tokens or settings.plan_context,
            fast_context_tokens=ask.context_tokens or DEFAULT_FAST_CONTEXT,
            min_speed=settings.plan_min_speed,
            sequences=settings.parallel,
            cpu_consent=ask.cpu_consent or settings.cpu_consent,
            loaded_tokens=0 if ask.device_profile else settings.context_tokens,
        )
        if not ask.model:
            return wishes
        choice = self._library.catalog.choice(ask.model)
        if choice is not None:
            return replace(wishes, name=choice.id, models=frozenset(choice.choice), why=choice.why)
        profile = self._library.resolve(ask.model)
        if ask.variant and profile.variant(ask.variant) is None:
            ids = ", ".join(each.id for each in profile.variants)
            raise InvalidRequestError(
                f"{profile.id} has no variant {ask.variant!r}",
                why=f"it has {ids}",
                advice=(f"gemctl plan {profile.id}",),
                metadata={"field": "variant", "model": profile.id, "variants": ids},
            )
        variant = ask.variant
        if profile.id != profile.model:
            # MODEL:VARIANT; candidates go by the model.
            variant = profile.variants[0].id
        return replace(wishes, name=profile.id, models=frozenset({profile.model}), variant=variant)

    def _limits(self, ask: Ask, machine: Inventory) -> Limits:
        """Those of the settings; a budget that is asked for is of the GPUs, or else of the RAM."""
        limits = limits_of(self._settings)
        if ask.budget_bytes is None:
            return limits
        budget = Budget(absolute_bytes=ask.budget_bytes)
        if any(not gpu.unusable_reason for gpu in machine.gpus):
            return replace(limits, gpu_budget=budget)
        return replace(limits, ram_budget=budget)

    def _candidates(self, wishes: Wishes, *, here: bool, roughly: bool) -> list[Candidate]:
        """Every variant whose size is known, in each model's own order of preference."""
        found = []
        for profile in self._library.profiles():
            # A base model answers nobody's question; whoever wants one names it.
            if profile.kind == "base" and profile.id not in wishes.models:
                continue
            for variant in profile.variants:
                candidate = self._candidate(profile, variant, here=here, roughly=roughly)
                if candidate is not None:
                    found.append(candidate)
        return found

    def _machine(self, profile: str, sample: Sample | None) -> Inventory:
        if profile:
            return inventory_of_table(device_profile(self._profiles, profile), name=profile)
        if sample is None:
            raise InvalidRequestError(
                "nothing is known of this machine's memory yet",
                why="no sensor has answered since the daemon started",
                advice=("gemctl devices",),
            )
        return inventory_of(sample, self._cpu)

    def _candidate(
        self, profile: Profile, variant: Variant, *, here: bool, roughly: bool
    ) -> Candidate | None:
        file = self._library.file_of(profile, variant)
        sized = self._sized(profile, variant, file, roughly=roughly)
        if sized is None:
            return None
        factors = self._factors(profile.id, file.name) if here and file is not None else {}
        return Candidate(profile, variant, sized, on_disk=file is not None, factors=factors)

    def _sized(
        self, profile: Profile, variant: Variant, file: Path | None, *, roughly: bool
    ) -> Sized | None:
        """By the header of the file if it is here or was looked at, else by the profile."""
        cached = self._settings.prompt_cache
        by_profile = profile_sized(profile, variant, prompt_cache_bytes=cached)
        if roughly and by_profile is not None:
            return by_profile
        return self._own(profile, variant, file) or by_profile

    def _own(self, profile: Profile, variant: Variant, file: Path | None) -> Sized | None:
        """By what its files say themselves; None if they are not here, or cannot be read."""
        if variant.engine == DIFFUSION:
            checkpoint = None if file is None else self._headers.checkpoint(file)
            return None if checkpoint is None else DiffusionSized(checkpoint)
        shape = self._headers.shape(profile, variant, file)
        if shape is None:
            return None
        return GgufSized(shape, expert_share(profile), self._settings.prompt_cache)


def _asked_for(advice: Advice) -> bool:
    """Whether the size of anything that was asked for is known."""
    question = advice.question
    return any(question.wishes.asks_for(each) for each in question.candidates)


def _size_unknown(name: str, missed: GemdError | None) -> InvalidRequestError:
    return InvalidRequestError(
        f"nothing tells how much memory {name} takes",
        why="its profile has no weights and architecture that describe it, and "
        + ("no header of its file is at hand" if missed is None else missed.message),
        advice=(f"gemctl pull {name}",),
        metadata={"field": "model", "model": name},
    )


async def _unseen() -> Sample | None:
    """What is seen of this machine before there are eyes."""
    return None


def _without(plan: Plan, missed: str) -> Plan:
    """The plan with why the file itself was not asked."""
    why = Reason("HEADER_NOT_READ", f"figures are those of the profile: {missed}")
    return replace(plan, reasons=(*plan.reasons, why))
