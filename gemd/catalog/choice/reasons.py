"""Why a model was taken, where it lies, what holds for a plan as a whole: sentences with numbers.

Pure. Every number of a sentence is in its metadata too, sizes in bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.catalog.choice.placing import Misfit, best_place, runs_on
from gemd.catalog.choice.speed import ASSUMED_RAM_BANDWIDTH
from gemd.catalog.choice.values import Reason, Where
from gemd.hardware import RAM
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.catalog.choice.choose import Question
    from gemd.catalog.choice.values import Candidate, Placed, PlannedModel
    from gemd.catalog.profile import Role
    from gemd.catalog.variant import Requirements

_DIFFUSION_BACKEND: Final = "cuda"
"""Where the one engine that gemd does not bring along is of use."""
_VENDORS: Final = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel", "apple": "Apple"}


def reason(code: str, message: str, **facts: object) -> Reason:
    """A reason; facts that are None are left out."""
    known = {name: str(fact) for name, fact in facts.items() if fact is not None}
    return Reason(code, message, known)


def needs(requires: Requirements) -> str:
    """What a GPU would have to be, for a sentence."""
    vendors = " or ".join(_VENDORS.get(each, each) for each in requires.vendors)
    least = requires.compute_capability
    return f"a GPU{f' of {vendors}' if vendors else ''}" + (
        f" with compute capability {least} or more" if least else " that its engine can use"
    )


def install_command(engine: str, backend: str) -> str:
    """What to type to get an engine, as `gemd.engine.builds.install_command` has it."""
    other = "" if engine == "llama" else f" --engine {engine}"
    return f"gemctl engine install --backend {backend}{other}"


def no_engine(question: Question, engine: str) -> Reason:
    """Why a plan for this machine leans on no such engine."""
    if engine not in question.engines.shipped:
        return reason(
            "ENGINE_NOT_IN_THIS_VERSION",
            f"this version of gemd has no {engine} engine",
            engine=engine,
        )
    command = install_command(engine, _DIFFUSION_BACKEND)
    return reason(
        "ENGINE_MISSING",
        f"its engine is not installed here: {command}",
        engine=engine,
        backend=_DIFFUSION_BACKEND,
        command=command,
    )


def supported(question: Question, candidate: Candidate) -> bool:
    """Whether a GPU of the machine is what a variant requires."""
    return any(runs_on(candidate.variant.needs, gpu) for gpu in question.memory.gpus)


def of_model(
    question: Question, placed: Placed, role: Role, *, beside: bool = False
) -> tuple[Reason, ...]:
    """Why this one, and how it lies; `beside` the fast tier there is less room."""
    return (_taken(question, placed, role, beside=beside), *_lies(question, placed, role))


def of_named(question: Question, placed: Placed) -> tuple[Reason, ...]:
    """The same of a model that was asked for by name, or by that of a choice."""
    if question.wishes.why:
        return of_model(question, placed, "strong")
    asked = reason(
        "MODEL_NAMED",
        f"it was asked for; {placed.candidate.variant.quantization} is the first of its variants "
        f"that fits at {placed.context_tokens} tokens of context",
        context_tokens=placed.context_tokens,
    )
    return (asked, *_lies(question, placed, "strong"))


def _taken(question: Question, placed: Placed, role: Role, *, beside: bool) -> Reason:
    wishes, profile = question.wishes, placed.candidate.profile
    where = " beside the fast tier" if beside else ""
    speed = placed.speed.decode
    facts = {
        "quality": profile.quality,
        "context_tokens": placed.context_tokens,
        "tokens_per_second": None if speed is None else round(speed, 1),
        "min_tokens_per_second": wishes.min_speed,
    }
    if role == "fast":
        canvas = placed.speed.canvas_s
        pace = "" if canvas is None else f": a canvas takes about {canvas * 1000:.0f} ms"
        return reason("FAST_TIER", f"the fast tier fits here{pace}", canvas_s=canvas, **facts)
    if role == "verifier":
        return reason(
            "VERIFIER",
            "it fits beside the fast tier and scores its drafts; it never writes the answer",
            **facts,
        )
    if profile.roles == ("default",):
        return reason(
            "EMBEDDED", "no model of the catalogue with a higher rank fits this machine", **facts
        )
    if speed is None:
        return reason(
            "BEST_OF_UNKNOWN_SPEED",
            f"the highest quality rank, {profile.quality}, that fits{where} at "
            f"{placed.context_tokens} tokens of context; its speed is unknown, because nothing "
            "tells the memory's bandwidth",
            **facts,
        )
    if speed >= wishes.min_speed:
        return reason(
            "BEST_QUALITY",
            f"the highest quality rank, {profile.quality}, that fits{where} at "
            f"{placed.context_tokens} tokens of context and is predicted at "
            f"{wishes.min_speed:g} tokens/s or more: {speed:.0f}",
            **facts,
        )
    return reason(
        "FASTEST",
        f"nothing that fits is predicted at {wishes.min_speed:g} tokens/s; this one is the fastest "
        f"with {speed:.1f}",
        **facts,
    )


def _lies(question: Question, placed: Placed, role: Role) -> list[Reason]:
    """How it lies, and what is special about that."""
    found = []
    wanted = question.site(fast=role in {"fast", "verifier"})
    variant, placement = placed.candidate.variant, placed.placement
    if variant.why:
        found.append(reason("VARIANT", variant.why, variant=variant.id))
    host = placed.parts.get(question.memory.pool_of[RAM])
    if placed.where is Where.SPLIT and host is not None:
        found.append(_split(placed, host.weights))
    if placement.cache_type != "f16":
        found.append(
            reason(
                "CACHE_8_BIT",
                f"its context is kept in {placement.cache_type} instead of f16, which makes room "
                "for more of the weights",
                cache_type=placement.cache_type,
            )
        )
    if wanted.sequences != placed.sequences and not placed.candidate.sized.canvas:
        found.append(
            reason(
                "FEWER_AT_ONCE",
                f"it decodes {_requests(placed.sequences)} instead of "
                f"{wanted.sequences} together, because each keeps a window of its own",
                sequences=placed.sequences,
                wanted_sequences=wanted.sequences,
            )
        )
    if placed.context_tokens < wanted.context_tokens and not placed.candidate.sized.canvas:
        found.append(
            reason(
                "CONTEXT_LIMITED",
                f"it was made for {placed.context_tokens} tokens of context, not for "
                f"{wanted.context_tokens}",
                context_tokens=placed.context_tokens,
                wanted_tokens=wanted.context_tokens,
            )
        )
    if placed.where is Where.CPU and placed.candidate.sized.canvas:
        found.append(
            reason(
                "REFERENCE_PATH",
                "on the processor it computes by the reference path, which is there for tests: "
                "nobody predicts its speed",
            )
        )
    if variant.engine not in question.engines.shipped:
        found.append(
            reason(
                "ENGINE_NOT_IN_THIS_VERSION",
                f"this version of gemd has no {variant.engine} engine yet and cannot run it",
                engine=variant.engine,
            )
        )
    elif question.engines.lacks(variant.engine, placed.backend):
        command = install_command(variant.engine, placed.backend)
        found.append(
            reason(
                "ENGINE_MISSING",
                f"its engine has no {placed.backend} build here yet: {command}",
                backend=placed.backend,
                command=command,
            )
        )
    return found


def _requests(count: int) -> str:
    return "one request" if count == 1 else f"{count} requests"


def _split(placed: Placed, host_weights: int) -> Reason:
    layers, placement = placed.candidate.sized.layers, placed.placement
    if placement.host_experts:
        return reason(
            "EXPERTS_IN_RAM",
            f"the experts of {placement.host_experts} of {layers} layers lie in main memory, where "
            f"the model has {human_bytes(host_weights)} of its weights",
            layers=placement.host_experts,
            total_layers=layers,
            host_weights_bytes=host_weights,
        )
    there = layers + 1 - placement.gpu_layers
    return reason(
        "LAYERS_IN_RAM",
        f"{there} of {layers} layers lie in main memory, {human_bytes(host_weights)}, and compute "
        "on the processor",
        layers=there,
        total_layers=layers,
        host_weights_bytes=host_weights,
    )


def of_plan(question: Question, models: Sequence[PlannedModel]) -> tuple[Reason, ...]:
    """What holds for the whole."""
    found = []
    if not models:
        found.append(_nothing(question))
    elif not question.wishes.models:
        found.append(_tiers(question, models))
    if question.wishes.why:
        found.append(
            reason("NAMED_CHOICE", f"{question.wishes.name} is a choice: {question.wishes.why}")
        )
    on_cpu = [
        each.placed.candidate.profile.id
        for each in models
        if each.placed.where is Where.CPU and each.role != "default"
    ]
    if question.memory.gpus and on_cpu:
        found.append(_on_cpu(question, " and ".join(on_cpu)))
    planned = max((each.placed.context_tokens for each in models), default=0)
    if 0 < question.wishes.loaded_tokens < planned:
        found.append(
            reason(
                "CONTEXT_OF_LOADS",
                f"room is planned for {planned} tokens of context, and a worker gets "
                f"{question.wishes.loaded_tokens}: the setting context_tokens",
                planned_tokens=planned,
                context_tokens=question.wishes.loaded_tokens,
            )
        )
    if _assumes_bandwidth(question, models):
        found.append(
            reason(
                "BANDWIDTH_ASSUMED",
                "nothing tells the bandwidth of the main memory, so "
                f"{ASSUMED_RAM_BANDWIDTH / 1e9:g} GB/s is assumed where a speed depends on it",
                bandwidth_bytes_per_second=ASSUMED_RAM_BANDWIDTH,
            )
        )
    return tuple(found)


def _nothing(question: Question) -> Reason:
    asked = [each for each in question.candidates if question.wishes.asks_for(each)]
    lacking = [each for each in asked if each.variant.engine not in question.engines.considered]
    if asked and len(lacking) == len(asked):
        supported_ones = [each for each in lacking if supported(question, each)]
        if not supported_ones and lacking[0].variant.engine in question.engines.shipped:
            return unsupported(lacking[0])
        why = no_engine(question, (supported_ones or lacking)[0].variant.engine)
        name = question.wishes.name or "no model"
        return Reason(why.code, f"{name} cannot be placed: {why.message}", why.metadata)
    if asked and not any(_placeable(question, each) for each in asked):
        return unsupported(asked[0])
    room = {name: pool.available for name, pool in question.memory.pools.items()}
    text = ", ".join(f"{name} has {human_bytes(size)}" for name, size in room.items())
    what = question.wishes.name or "no model of the catalogue"
    verb = "does not fit" if question.wishes.name else "fits"
    return reason(
        "NOTHING_FITS",
        f"{what} {verb}: of what models may take, {text}; see the verdicts",
        **{f"{name}_available_bytes": size for name, size in room.items()},
    )


def unsupported(candidate: Candidate) -> Reason:
    """The verdict on a variant that no processor of the machine can run."""
    return reason("UNSUPPORTED_HERE", f"it needs {needs(candidate.variant.needs)}; there is none")


def _placeable(question: Question, candidate: Candidate) -> bool:
    """Whether anything of the machine could run it, if there were room."""
    site = question.site(fast=bool(candidate.sized.canvas))
    found = best_place(candidate, site, on_cpu=True)
    return not isinstance(found, Misfit) or bool(found.pool)


def _tiers(question: Question, models: Sequence[PlannedModel]) -> Reason:
    """One tier or two, and why."""
    roles = {each.role: each for each in models}
    fast, strong = roles.get("fast"), roles.get("strong")
    if fast is None:
        return _no_fast(question, strong)
    if strong is None:
        return reason("FAST_ONLY", "no strong model fits this machine beside or without it")
    if fast.warm and strong.warm:
        return reason("PAIR_WARM", "both tiers fit together and stay warm")
    stays = next(each for each in models if each.warm)
    what = "the fast tier stays warm with a verifier" if fast.warm else "the strong tier stays warm"
    return reason(
        "ONE_TIER_AT_A_TIME",
        f"both tiers do not fit together: {what}, and the other one is swapped in when it is asked "
        "for",
        stays=stays.placed.candidate.profile.id,
    )


def _no_fast(question: Question, strong: PlannedModel | None) -> Reason:
    candidates = [each for each in question.candidates if "fast" in each.profile.roles]
    if not candidates:
        return reason("STRONG_ONLY", "the catalogue has no model for the fast tier")
    if not any(supported(question, each) for each in candidates):
        return reason(
            "FAST_UNSUPPORTED",
            f"the fast tier needs {needs(candidates[0].variant.needs)}: strong tier only",
            compute_capability=candidates[0].variant.needs.compute_capability,
        )
    runnable = [each for each in candidates if each.variant.engine in question.engines.considered]
    if not runnable:
        why = no_engine(question, candidates[0].variant.engine)
        missing = why.code == "ENGINE_MISSING"
        return Reason(
            "FAST_ENGINE_MISSING" if missing else "FAST_NOT_IN_THIS_VERSION",
            f"there is no fast tier: {why.message}",
            why.metadata,
        )
    if strong is not None and strong.placed.speed.decode is not None and _fits(question, runnable):
        pace = strong.placed.speed.decode
        return reason(
            "FAST_NOT_FASTER",
            "the fast tier fits, but is predicted slower than the strong one's "
            f"{pace:.0f} tokens/s here",
            tokens_per_second=round(pace, 1),
        )
    return reason("FAST_TOO_LARGE", "the fast tier does not fit this GPU: strong tier only")


def _fits(question: Question, candidates: Sequence[Candidate]) -> bool:
    site = question.site(fast=True)
    return any(not isinstance(best_place(each, site, on_cpu=False), Misfit) for each in candidates)


def _on_cpu(question: Question, models: str) -> Reason:
    names = ", ".join(gpu.name or gpu.device for gpu in question.memory.gpus)
    if question.wishes.cpu_consent:
        return reason(
            "CPU_CONSENTED",
            f"{models} leaves {names} unused: it does not fit there, and cpu_consent allows the "
            "processor",
        )
    return reason(
        "CPU_CONSENT_NEEDED",
        f"{models} would leave {names} unused: it does not fit there. A load on the processor "
        "needs consent: GEMD_CPU_CONSENT=true, or cpu_consent in the settings",
    )


def _assumes_bandwidth(question: Question, models: Sequence[PlannedModel]) -> bool:
    """Whether a speed depends on a main memory that nothing is known of."""
    if question.machine.processor.bandwidth_bytes_per_s is not None:
        return False
    return any(each.placed.candidate.sized.reads(each.placed.placement).host for each in models)
