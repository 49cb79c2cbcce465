"""Where the choice puts models: backends, memory that is shared, and what a layer costs where."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemd.catalog import Catalog
from gemd.catalog.choice import Candidate, GgufSized, Where, choose, profile_sized
from gemd.catalog.choice.speed import predict_speed
from gemd.footprint.memory import Placement
from gemd.hardware import DeviceKind
from tests.support.choices import GIB, Asked, Simple, candidate, gpu, machine
from tests.support.models import PROFILES

SMALL = candidate("small", Simple(GIB // 10), quality=1)
MIDDLE = candidate("middle", Simple(GIB), quality=2)


def test_what_was_measured_of_shared_memory_is_kept_under_its_own_name() -> None:
    """Main memory: a load is booked there, with all that lies on the GPU."""
    shared = gpu(16, kind=DeviceKind.UNIFIED, vendor="apple", backends=("metal",))
    question = Asked(machine(shared, ram_gib=24)).question
    plain = choose(question([MIDDLE])).models[0].placed
    more = choose(question([replace(MIDDLE, factors={"cpu": 1.2})])).models[0].placed
    assert more.demand["gpu0"] == pytest.approx(1.2 * plain.demand["gpu0"], abs=2)


@pytest.mark.parametrize("backend,times", [("metal", 0), ("cuda", 1), ("hip", 1)])
def test_shared_memory_has_an_output_that_is_the_embedding_once_where_the_file_is_mapped(
    backend: str, times: int
) -> None:
    """Metal computes on the pages of the file; others get a copy, on a DGX Spark too."""
    profile = Catalog.load(PROFILES).resolve("gemma4-12b")
    sized = profile_sized(profile, profile.variants[0], prompt_cache_bytes=0)
    assert isinstance(sized, GgufSized)
    shared = gpu(60, kind=DeviceKind.UNIFIED, vendor="other", backends=(backend,))
    one = Candidate(profile, profile.variants[0], sized)
    placed = choose(Asked(machine(shared, ram_gib=80)).question([one])).models[0].placed
    embedding = sized.shape.weights.embedding
    assert sized.shape.weights.tied
    assert placed.parts["gpu0"].weights == sized.weights_bytes + times * embedding


def test_two_gpus_may_share_the_main_memory() -> None:
    """It is one pool, which has the name of the first."""
    two = [
        gpu(size, device=device, kind=DeviceKind.UNIFIED, vendor="apple", backends=("metal",))
        for device, size in (("gpu0", 16), ("gpu1", 12))
    ]
    plan = choose(Asked(machine(*two, ram_gib=24)).question([MIDDLE]))
    assert [each.device for each in plan.devices] == ["gpu0"]
    assert plan.devices[0].budget_bytes == 16 * GIB


@pytest.mark.parametrize("backends", [(), ("sycl",)])
def test_a_gpu_that_no_engine_computes_on_is_none(backends: tuple[str, ...]) -> None:
    """A load goes to the processor there, and asks nobody."""
    plan = choose(Asked(machine(gpu(24, backends=backends))).question([SMALL]))
    assert (plan.models[0].placed.where, plan.needs_cpu_consent) == (Where.CPU, False)
    assert [each.device for each in plan.devices] == ["cpu"]


def test_a_backend_that_is_given_is_the_one_that_computes() -> None:
    """Not the best that the GPU could run; a GPU that cannot run it is left out."""
    question = Asked(machine(gpu(24))).question([SMALL])
    assert choose(question).models[0].placed.backend == "cuda"
    given = replace(question, backend="vulkan")
    assert choose(given).models[0].placed.backend == "vulkan"
    other = choose(replace(question, backend="hip"))
    assert (other.models[0].placed.where, other.needs_cpu_consent) == (Where.CPU, True)


def test_what_a_variant_requires_counts_for_a_given_backend_too() -> None:
    """The engine's build does not make the GPU another one."""
    needs = candidate("needs", Simple(GIB // 10), requires={"vendors": ["amd"]})
    question = replace(Asked(machine(gpu(24))).question([needs]), backend="cuda")
    assert choose(question).models[0].placed.where is Where.CPU


@pytest.mark.parametrize("model", ["gemma4-31b", "gemma4-26b-a4b", "gemma4-e4b"])
def test_a_token_reads_the_weights_where_they_lie(model: str) -> None:
    """On the GPU just what lies there; a tied output is there from the first layer on."""
    profile = Catalog.load(PROFILES).resolve(model)
    sized = profile_sized(profile, profile.variants[0], prompt_cache_bytes=0)
    assert isinstance(sized, GgufSized)
    dense = replace(sized, expert_share=1.0)
    for layers in (0, 1, 2, sized.layers // 2, sized.layers, sized.layers + 1):
        where = Placement(layers, host_experts=layers // 3)
        lies = dense.predict(where, context_tokens=4096, sequences=1, backend="cuda")
        assert dense.reads(where).gpu == lies.gpu.weights


def test_a_strong_tier_on_the_processor_needs_consent_beside_a_fast_one_too() -> None:
    """What takes turns with the fast tier is loaded as well."""
    fast = candidate(
        "fast", Simple(GIB, canvas=256), quality=1, roles=("fast",), engine="diffusion"
    )
    huge = candidate("huge", Simple(20 * GIB, layers=2), quality=3)
    plan = choose(Asked(machine(gpu(12), ram_gib=128)).question([fast, huge]))
    assert {each.role: each.placed.where for each in plan.models} == {
        "strong": Where.CPU,
        "fast": Where.GPU,
    }
    assert plan.needs_cpu_consent
    [why] = [each for each in plan.reasons if each.code == "CPU_CONSENT_NEEDED"]
    assert why.message.startswith("huge would leave Test GPU unused")


def test_a_smaller_cache_has_to_be_worth_it() -> None:
    """One layer of a hundred more on the GPU is a gain of two per cent, and no reason."""
    many = candidate("many", Simple(GIB // 20, layers=100))
    placed = choose(Asked(machine(gpu(3))).question([many])).models[0].placed
    assert placed.where is Where.SPLIT
    assert placed.placement.cache_type == "f16"


def test_the_output_alone_makes_no_layer_faster() -> None:
    """One of the layers there is that: where memory costs nothing, it saves nothing."""
    free = 10**18
    where = machine(gpu(24, bandwidth_bytes_per_s=free), bandwidth_bytes_per_s=free)
    slow, output, one = (
        predict_speed(SMALL.sized, Placement(count), where.gpus[0], "cuda", where).decode
        for count in (0, 1, 2)
    )
    assert slow is not None
    assert output == pytest.approx(slow)
    assert one != pytest.approx(slow)


def test_with_nothing_but_the_output_on_the_gpu_the_processor_is_planned() -> None:
    """It computes all layers, so that consent is needed."""
    profile = Catalog.load(PROFILES).resolve("gemma4-31b")
    sized = profile_sized(profile, profile.variants[0], prompt_cache_bytes=0)
    assert sized is not None
    one = Candidate(profile, profile.variants[0], sized)
    for size in (2.2, 2.6, 3.0, 3.4):
        plan = choose(Asked(machine(gpu(size))).question([one]))
        placed = plan.models[0].placed
        assert placed.placement.gpu_layers != 1
        assert plan.needs_cpu_consent == (placed.where is Where.CPU)
    assert placed.where is Where.SPLIT
