"""The choice of weights on machines and models of a few round numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemd.catalog.choice import Candidate, Limits, Placed, Plan, Where, Wishes, choose, strong_of
from gemd.catalog.choice.placing import Site, best_place
from gemd.footprint.memory import Placement
from gemd.hardware import DeviceKind
from gemd.quantities import Budget
from tests.support.choices import ENGINES, GIB, Asked, Simple, candidate, gpu, machine

SMALL = candidate("small", Simple(GIB // 10), quality=1)
MIDDLE = candidate("middle", Simple(GIB), quality=2)
LARGE = candidate("large", Simple(3 * GIB), quality=3)
MIXTURE = candidate("mixture", Simple(GIB // 5, expert=2 * GIB), quality=4)
FAST = candidate(
    "fast",
    Simple(GIB, canvas=256),
    quality=1,
    roles=("fast",),
    engine="diffusion",
    requires={"vendors": ["nvidia"], "compute_capability": "8.0"},
)
VERIFIER = candidate("verifier", Simple(GIB // 10), quality=1, roles=("verifier",))
NAMED = Wishes(name="fast", models=frozenset({"fast"}))
EMBEDDED = candidate("embedded", Simple(GIB // 100), quality=0, roles=("default",))


def reasons(plan: Plan) -> tuple[set[str], list[set[str]]]:
    """Codes of a plan's reasons, and of those of each model."""
    return {each.code for each in plan.reasons}, [
        {each.code for each in model.reasons} for model in plan.models
    ]


def taken(plan: Plan) -> list[tuple[str, str]]:
    """Role and id of every model of a plan."""
    return [(each.role, each.placed.candidate.profile.id) for each in plan.models]


def test_the_highest_quality_that_fits_and_is_quick_is_taken() -> None:
    """On 24 GiB the one of 10; on 36 the one of 30; both at more than 15 tokens/s."""
    models = [SMALL, MIDDLE, LARGE]
    assert taken(choose(Asked(machine(gpu(24), ram_gib=8)).question(models))) == [
        ("strong", "middle")
    ]
    plan = choose(Asked(machine(gpu(36))).question(models))
    assert taken(plan) == [("strong", "large")]
    assert "BEST_QUALITY" in reasons(plan)[1][0]
    found = {each.candidate.profile.id: each.reason.code for each in plan.verdicts}
    assert found == {"large": "BEST_QUALITY", "middle": "LOWER_QUALITY", "small": "LOWER_QUALITY"}


def test_where_nothing_is_quick_the_fastest_is_taken() -> None:
    """At 4 and 40 tokens/s on a processor the second counts, and at 2 and 4 too."""
    slow = machine(bandwidth_bytes_per_s=10**9)
    plan = choose(Asked(slow).question([MIDDLE, SMALL]))
    assert taken(plan) == [("strong", "small")]
    assert "FASTEST" in reasons(plan)[1][0]
    assert {each.reason.code for each in plan.verdicts} == {"FASTEST", "TOO_SLOW"}


def test_an_unknown_bandwidth_is_no_guess() -> None:
    """The best that fits is taken, its speed is unknown, and the reason says why."""
    plan = choose(Asked(machine(gpu(24, bandwidth_bytes_per_s=None))).question([MIDDLE, SMALL]))
    assert taken(plan) == [("strong", "middle")]
    assert plan.models[0].placed.speed.decode is None
    assert "BEST_OF_UNKNOWN_SPEED" in reasons(plan)[1][0]


def test_an_assumed_bandwidth_is_said_to_be_one() -> None:
    """Of main memory nothing is known here: the plan leans on a figure that it names."""
    plan = choose(Asked(machine(bandwidth_bytes_per_s=None)).question([SMALL]))
    assert "BANDWIDTH_ASSUMED" in reasons(plan)[0]
    assert "BANDWIDTH_ASSUMED" not in reasons(choose(Asked(machine()).question([SMALL])))[0]


def test_experts_go_to_main_memory_first() -> None:
    """22 GiB of a mixture on 12: all layers stay on the GPU, and as few experts as must leave."""
    plan = choose(Asked(machine(gpu(12))).question([MIXTURE]))
    placed = plan.models[0].placed
    assert placed.where is Where.SPLIT
    assert (placed.placement.gpu_layers, placed.placement.host_experts) == (11, 6)
    assert "EXPERTS_IN_RAM" in reasons(plan)[1][0]
    one_more = Placement(11, 5, placed.placement.cache_type)
    predicted = MIXTURE.sized.predict(
        one_more,
        context_tokens=placed.context_tokens,
        sequences=placed.sequences,
        backend="cuda",
    )
    assert predicted.gpu_peak > 11.5 * GIB


def test_layers_go_where_there_are_no_experts() -> None:
    """30 GiB on 24: as many layers as fit, and the rest computes on the processor."""
    plan = choose(Asked(machine(gpu(24))).question([LARGE]))
    placed = plan.models[0].placed
    assert (placed.where, placed.placement.host_experts) == (Where.SPLIT, 0)
    assert 6 <= placed.placement.gpu_layers <= 8
    assert "LAYERS_IN_RAM" in reasons(plan)[1][0]


def test_fewer_requests_at_once_come_before_a_smaller_cache() -> None:
    """A window for each request is what is spared first, and one request alone is the last."""
    costly = candidate("costly", Simple(GIB, cell=8192))
    by_size = {}
    for size in (20.5, 15.5, 13.0, 12.5, 11.5):
        question = Asked(machine(gpu(size), ram_gib=2)).question([costly])
        placed = choose(question).models[0].placed
        assert placed.where is Where.GPU
        by_size[size] = (placed.sequences, placed.placement.cache_type)
    assert by_size == {
        20.5: (8, "f16"),
        15.5: (4, "f16"),
        13.0: (2, "f16"),
        12.5: (2, "q8_0"),
        11.5: (1, "q8_0"),
    }


def test_a_pair_is_warm_where_it_fits() -> None:
    """The strong one beside the fast one has to outrank it and be quick."""
    plan = choose(Asked(machine(gpu(24))).question([FAST, SMALL, MIDDLE]))
    assert taken(plan) == [("fast", "fast"), ("strong", "middle")]
    assert all(each.warm for each in plan.models)
    assert "PAIR_WARM" in reasons(plan)[0]
    assert "fits beside the fast tier" in plan.models[1].reasons[0].message
    assert plan.swap_s is None
    assert plan.models[0].placed.sequences == 1


def test_a_strong_model_that_does_not_outrank_the_fast_one_is_no_pair() -> None:
    """The fast tier with a verifier stays, and the strong one takes turns with it."""
    models = [FAST, LARGE, VERIFIER]
    plan = choose(Asked(machine(gpu(12), ram_gib=96)).question(models))
    assert taken(plan) == [("fast", "fast"), ("verifier", "verifier"), ("strong", "large")]
    assert [each.warm for each in plan.models] == [True, True, False]
    assert "ONE_TIER_AT_A_TIME" in reasons(plan)[0]
    assert plan.swap_s == pytest.approx(2 + 30 * GIB / 2e9)
    # Who checks drafts is asked for one short request at a time, and has all of that.
    assert {"CONTEXT_LIMITED", "FEWER_AT_ONCE"}.isdisjoint(reasons(plan)[1][1])


def test_without_a_verifier_the_strong_tier_stays() -> None:
    """It can answer anything; the fast one is swapped in."""
    plan = choose(Asked(machine(gpu(12), ram_gib=96)).question([FAST, LARGE]))
    assert [
        (role, each.warm) for (role, _), each in zip(taken(plan), plan.models, strict=True)
    ] == [
        ("strong", True),
        ("fast", False),
    ]


def test_a_fast_tier_that_is_not_faster_is_left_out() -> None:
    """A canvas of a large model against a small strong one."""
    heavy = candidate(
        "heavy", Simple(2 * GIB, canvas=16), roles=("fast",), engine="diffusion", quality=1
    )
    plan = choose(Asked(machine(gpu(48))).question([heavy, replace_quality(SMALL, 5)]))
    assert taken(plan) == [("strong", "small")]
    assert "FAST_NOT_FASTER" in reasons(plan)[0]


def replace_quality(one: Candidate, quality: int) -> Candidate:
    """The same with another rank."""
    return replace(one, profile=one.profile.model_copy(update={"quality": quality}))


@pytest.mark.parametrize(
    "fields,code",
    [
        ({"architecture": "7.5"}, "FAST_UNSUPPORTED"),
        ({"architecture": ""}, "FAST_UNSUPPORTED"),
        ({"vendor": "amd", "architecture": "gfx1100", "backends": ("hip",)}, "FAST_UNSUPPORTED"),
        ({"capacity_bytes": 8 * GIB}, "FAST_TOO_LARGE"),
    ],
)
def test_where_the_fast_tier_cannot_be_the_plan_says_why(fields: dict[str, Any], code: str) -> None:
    """By capability, vendor, or size."""
    plan = choose(Asked(machine(gpu(24, **fields))).question([FAST, SMALL]))
    assert taken(plan) == [("strong", "small")]
    assert code in reasons(plan)[0]


def test_an_engine_that_is_not_considered_is_not_planned() -> None:
    """On this machine a plan leans on what is installed, and says how to install the rest."""
    engines = replace(ENGINES, considered=frozenset({"llama"}))
    command = "gemctl engine install --backend cuda --engine diffusion"
    plan = choose(Asked(machine(gpu(24)), engines=engines).question([FAST, SMALL]))
    assert taken(plan) == [("strong", "small")]
    [why] = [each for each in plan.reasons if each.code == "FAST_ENGINE_MISSING"]
    assert (why.metadata["command"], command in why.message) == (command, True)
    found = {each.candidate.profile.id: each.reason for each in plan.verdicts}
    assert found["fast"].code == "ENGINE_MISSING"
    assert command in found["fast"].message
    named = choose(Asked(machine(gpu(24)), engines=engines, wishes=NAMED).question([FAST]))
    assert taken(named) == []
    assert [each.code for each in named.reasons] == ["ENGINE_MISSING"]


def test_an_engine_that_nothing_here_could_use_is_not_said_to_be_missing() -> None:
    """To install it would not help: the GPU is another one."""
    engines = replace(ENGINES, considered=frozenset({"llama"}))
    amd = gpu(24, vendor="amd", architecture="gfx1100", backends=("hip",))
    for here in (machine(amd), machine(gpu(24, architecture="7.5"))):
        plan = choose(Asked(here, engines=engines).question([FAST, SMALL]))
        assert "FAST_UNSUPPORTED" in reasons(plan)[0]
        found = {each.candidate.profile.id: each.reason.code for each in plan.verdicts}
        assert found["fast"] == "UNSUPPORTED_HERE"
        named = choose(Asked(here, engines=engines, wishes=NAMED).question([FAST]))
        assert [each.code for each in named.reasons] == ["UNSUPPORTED_HERE"]


def test_an_engine_of_a_later_version_is_said_to_be_one() -> None:
    """No command would bring it."""
    engines = replace(ENGINES, considered=frozenset({"llama"}), shipped=frozenset({"llama"}))
    plan = choose(Asked(machine(gpu(24)), engines=engines).question([FAST, SMALL]))
    assert "FAST_NOT_IN_THIS_VERSION" in reasons(plan)[0]
    found = {each.candidate.profile.id: each.reason.code for each in plan.verdicts}
    assert found["fast"] == "ENGINE_NOT_IN_THIS_VERSION"


def test_block_diffusion_computes_on_a_processor_where_it_is_small_or_allowed() -> None:
    """Only by name, with a reason that says what that is; nobody predicts its speed."""
    tiny = candidate("tiny", Simple(1000, canvas=32), roles=("fast",), engine="diffusion")
    assert taken(choose(Asked(machine()).question([tiny, SMALL]))) == [("strong", "small")]
    plan = choose(Asked(machine(), wishes=Wishes(models=frozenset({"tiny"}))).question([tiny]))
    assert [each.placed.where for each in plan.models] == [Where.CPU]
    assert plan.models[0].placed.speed.decode is None
    assert "REFERENCE_PATH" in reasons(plan)[1][0]
    assert not plan.needs_cpu_consent
    assert taken(choose(Asked(machine(), wishes=NAMED).question([FAST]))) == []
    allowed = Asked(machine(), wishes=replace(NAMED, cpu_consent=True)).question([FAST])
    assert [each.placed.where for each in choose(allowed).models] == [Where.CPU]


def test_fewer_canvases_are_denoised_together_where_memory_is_short() -> None:
    """Each has a cache of its own, and that has one element type."""
    cells = candidate("cells", Simple(GIB // 10, cell=2**14, canvas=256), engine="diffusion")
    for size, canvases in ((16, 8), (8, 4), (4, 2), (2.8, 1)):
        question = Asked(machine(gpu(size))).question([cells])
        site = Site(question.machine, question.memory, 8192, 8)
        found = best_place(cells, site, on_cpu=False)
        assert isinstance(found, Placed), size
        assert (found.sequences, found.placement.cache_type) == (canvases, "f16")


def test_an_engine_build_that_is_missing_is_named_with_its_command() -> None:
    """A plan for a GPU on a build for the processor says what to type."""
    engines = replace(ENGINES, backends={"llama": frozenset({"cpu"})})
    plan = choose(Asked(machine(gpu(24)), engines=engines).question([SMALL]))
    [missing] = [each for each in plan.models[0].reasons if each.code == "ENGINE_MISSING"]
    assert missing.metadata["command"] == "gemctl engine install --backend cuda"
    there = replace(ENGINES, backends={"llama": frozenset({"cuda"})})
    plan = choose(Asked(machine(gpu(24)), engines=there).question([SMALL]))
    assert "ENGINE_MISSING" not in reasons(plan)[1][0]


def test_a_gpu_that_would_be_left_unused_needs_consent() -> None:
    """Nothing fits a GPU of 512 MiB: the processor is planned, and says that it must be allowed."""
    tiny = machine(gpu(0.5))
    plan = choose(Asked(tiny).question([MIDDLE]))
    assert plan.models[0].placed.where is Where.CPU
    assert plan.needs_cpu_consent
    assert "CPU_CONSENT_NEEDED" in reasons(plan)[0]
    allowed = choose(Asked(tiny, wishes=Wishes(cpu_consent=True)).question([MIDDLE]))
    assert not allowed.needs_cpu_consent
    assert "CPU_CONSENTED" in reasons(allowed)[0]


def test_the_processor_needs_no_consent_where_no_gpu_could_be_used() -> None:
    """There is none, or it only shares the memory and is no faster."""
    shared = gpu(1, kind=DeviceKind.INTEGRATED_GPU, unusable_reason="it is no faster")
    for where in (machine(), machine(shared)):
        plan = choose(Asked(where).question([MIDDLE]))
        assert plan.models[0].placed.where is Where.CPU
        assert not plan.needs_cpu_consent


def test_the_embedded_model_is_the_last_resort_and_needs_no_consent() -> None:
    """Where nothing else fits it answers on the processor."""
    little = machine(gpu(0.1), ram_gib=1)
    plan = choose(Asked(little).question([MIDDLE, EMBEDDED]))
    assert plan.models[0].placed.candidate is EMBEDDED
    assert "EMBEDDED" in reasons(plan)[1][0]
    assert (plan.of("strong"), plan.needs_cpu_consent) == (None, False)
    assert "CPU_CONSENT_NEEDED" not in reasons(plan)[0]
    assert not choose(Asked(machine(ram_gib=0.1)).question([MIDDLE])).models


def test_the_embedded_model_is_planned_where_a_load_puts_it() -> None:
    """On the processor, also by name on a machine with a large GPU: it needs no engine for one."""
    wishes = Wishes(name="embedded", models=frozenset({"embedded"}))
    plan = choose(Asked(machine(gpu(24)), wishes=wishes).question([MIDDLE, EMBEDDED]))
    assert (plan.models[0].placed.where, plan.needs_cpu_consent) == (Where.CPU, False)
    assert "CPU_CONSENT_NEEDED" not in reasons(plan)[0]


def test_nothing_fits_is_an_answer() -> None:
    """With the room that there is, and a verdict for each variant."""
    plan = choose(Asked(machine(ram_gib=1)).question([MIDDLE]))
    assert plan.models == ()
    assert reasons(plan)[0] == {"NOTHING_FITS"}
    [verdict] = plan.verdicts
    assert (verdict.fits, verdict.reason.code) == (False, "TOO_LARGE")
    assert verdict.needed_bytes > verdict.available_bytes > 0


def test_a_named_model_is_planned_whatever_its_rank() -> None:
    """In the first of its variants that fits, with verdicts over its own only; it leads them."""
    eight = candidate("large", Simple(6 * GIB), variant="q8_0", quality=3)
    wishes = Wishes(name="large", models=frozenset({"large"}))
    question = Asked(machine(gpu(36), ram_gib=8), wishes=wishes).question([eight, LARGE, SMALL])
    plan = choose(question)
    assert plan.models[0].placed.candidate is LARGE
    assert [each.candidate.variant.id for each in plan.verdicts] == ["q4_0", "q8_0"]
    only = replace(question, wishes=replace(wishes, variant="q8_0"))
    assert choose(only).models == ()


def test_a_named_choice_goes_by_the_rule() -> None:
    """Of the models that the name may mean the best that is quick enough."""
    wishes = Wishes(name="any", models=frozenset({"large", "small"}), why="there are two")
    models = [LARGE, MIDDLE, SMALL]
    plan = choose(Asked(machine(gpu(36)), wishes=wishes).question(models))
    assert taken(plan) == [("strong", "large")]
    assert "NAMED_CHOICE" in reasons(plan)[0]
    assert strong_of(Asked(machine(gpu(8))).question(models), ("large", "small")) == "small"
    assert strong_of(Asked(machine(ram_gib=1)).question(models), ("large", "small")) is None


def test_the_context_that_a_model_was_made_for_is_the_most() -> None:
    """More is not planned, and the reason says so."""
    short = replace(SMALL, profile=SMALL.profile.model_copy(update={"context_tokens": 2048}))
    plan = choose(Asked(machine(gpu(24))).question([short]))
    assert plan.models[0].placed.context_tokens == 2048
    assert "CONTEXT_LIMITED" in reasons(plan)[1][0]


def test_a_load_that_gets_less_context_is_said() -> None:
    """The plan has room for more than the settings give a worker."""
    wishes = Wishes(loaded_tokens=4096)
    plan = choose(Asked(machine(gpu(24)), wishes=wishes).question([SMALL]))
    [found] = [each for each in plan.reasons if each.code == "CONTEXT_OF_LOADS"]
    assert found.metadata == {"planned_tokens": "16384", "context_tokens": "4096"}
    enough = Asked(machine(gpu(24)), wishes=Wishes(loaded_tokens=16_384))
    assert "CONTEXT_OF_LOADS" not in reasons(choose(enough.question([SMALL])))[0]


def test_what_was_measured_counts() -> None:
    """A model that took a fifth more than predicted is planned with that much."""
    measured = replace(SMALL, factors={"gpu0": 1.2})
    plain = choose(Asked(machine(gpu(24))).question([SMALL])).models[0].placed
    more = choose(Asked(machine(gpu(24))).question([measured])).models[0].placed
    assert more.demand["gpu0"] == pytest.approx(1.2 * plain.demand["gpu0"], abs=2)
    assert more.parts["gpu0"].overhead > plain.parts["gpu0"].overhead == 0
    assert more.method.value == "MEASURED"


def test_two_gpus_take_a_model_each() -> None:
    """The fast tier on one, the strong one on the other."""
    two = machine(gpu(11.5), gpu(12, device="gpu1"), ram_gib=8)
    plan = choose(Asked(two).question([FAST, MIDDLE]))
    on = {each.role: each.placed.gpu.device for each in plan.models if each.placed.gpu}
    assert sorted(on.values()) == ["gpu0", "gpu1"]


def test_memory_that_a_gpu_shares_is_one_pool() -> None:
    """Its working set is the budget, both sides are counted once, and the device adds up."""
    shared = gpu(16, kind=DeviceKind.UNIFIED, vendor="apple", backends=("metal",))
    plan = choose(Asked(machine(shared, ram_gib=24)).question([MIDDLE]))
    [device] = plan.devices
    assert (device.device, device.capacity_bytes, device.budget_bytes) == (
        "gpu0",
        24 * GIB,
        16 * GIB,
    )
    assert device.parts.weights == MIDDLE.sized.weights_bytes


def test_the_verdicts_are_best_first() -> None:
    """What is taken, then what would fit, then what does not; each by quality."""
    huge, vast = (candidate(name, Simple(60 * GIB), quality=9) for name in ("huge", "vast"))
    models = [SMALL, huge, MIDDLE, vast, LARGE]
    plan = choose(Asked(machine(gpu(36), ram_gib=8)).question(models))
    assert [each.candidate.profile.id for each in plan.verdicts] == [
        "large",
        "middle",
        "small",
        "huge",
        "vast",
    ]
    assert [each.chosen for each in plan.verdicts] == [True, False, False, False, False]


MODELS = [FAST, SMALL, MIDDLE, LARGE, MIXTURE, VERIFIER, EMBEDDED]
SIZES = st.floats(0.25, 96)


@settings(max_examples=40)
@given(
    sizes=st.lists(SIZES, max_size=3),
    ram=SIZES,
    others=st.floats(0, 1),
    budget=st.integers(1, 100),
    context=st.integers(256, 131_072),
)
def test_a_plan_always_fits_and_adds_up(
    sizes: list[float], ram: float, others: float, budget: int, context: int
) -> None:
    """Whatever the machine: warm models fit together, bars add up, every variant has a verdict."""
    gpus = [
        gpu(size, device=f"gpu{index}", taken_bytes=int(size * GIB * others))
        for index, size in enumerate(sizes)
    ]
    asked = Asked(
        machine(*gpus, ram_gib=ram, taken_bytes=int(ram * GIB * others)),
        limits=Limits(gpu_budget=Budget(percent=budget)),
        wishes=Wishes(context_tokens=context),
    )
    question = asked.question(MODELS)
    plan = choose(question)
    left = question.memory
    for each in plan.models:
        if each.warm:
            assert left.lack(each.placed.demand) is None
            left = left.less(each.placed.demand)
        else:
            assert question.memory.lack(each.placed.demand) is None
    for device in plan.devices:
        assert device.free_bytes >= 0
        parts = device.parts.total + device.others_bytes + device.margin_bytes + device.free_bytes
        assert parts == device.capacity_bytes
    assert sorted(each.candidate.key for each in plan.verdicts) == sorted(
        each.key for each in MODELS
    )
    chosen = {each.candidate.key for each in plan.verdicts if each.chosen}
    assert chosen == {each.placed.candidate.key for each in plan.models}
    assert all(each.reason.message and each.reason.code for each in plan.verdicts)
    assert plan.reasons
    assert choose(question) == plan


@settings(max_examples=40)
@given(size=SIZES, more=st.floats(0, 32), ram=SIZES)
def test_more_memory_is_never_worse(size: float, more: float, ram: float) -> None:
    """A larger GPU of the same speed never gets a strong model of a lower rank."""
    strong = [SMALL, MIDDLE, LARGE, MIXTURE]
    quality = {each.profile.id: each.profile.quality for each in strong}

    def rank(gib: float) -> int:
        plan = choose(Asked(machine(gpu(gib), ram_gib=ram)).question(strong))
        model = plan.of("strong")
        return 0 if model is None else quality[model.placed.candidate.profile.id]

    if (
        rank(size)
        and not choose(Asked(machine(gpu(size), ram_gib=ram)).question(strong)).needs_cpu_consent
    ):
        assert rank(size + more) >= rank(size)
