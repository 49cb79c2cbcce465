"""Where workers go on machines with GPUs, and that none computes on the processor in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gemd.catalog import Catalog
from gemd.config import Settings
from gemd.engine.builds.build import Build
from gemd.errors import CpuConsentNeededError, EngineMissingError
from gemd.footprint.shape import profile_shape
from gemd.hardware import RAM, Cpu, DeviceKind, DeviceReading, Sample
from gemd.rpc.placing import Placer
from tests.support.models import PROFILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.rpc.placing import Spot

GIB = 2**30
CPU = Build("llama", "cpu", "0.3.36")
CATALOG = Catalog.load(PROFILES)


def card(size_gib: float, device: str = "gpu0", **fields: Any) -> DeviceReading:
    """An NVIDIA card of which nothing is taken."""
    usual: dict[str, Any] = {
        "device": device,
        "kind": DeviceKind.DISCRETE_GPU,
        "capacity_bytes": int(size_gib * GIB),
        "free_bytes": int(size_gib * GIB),
        "processes": {},
        "others_bytes": 0,
        "name": "NVIDIA GeForce RTX 4090",
        "hardware_id": f"GPU-{device}",
        "vendor": "nvidia",
        "architecture": "8.9",
        "bandwidth_bytes_per_s": 10**12,
        "drives_display": False,
        "backends": ("cuda", "vulkan"),
    }
    return DeviceReading(**(usual | fields))


def spot(
    model: str,
    *cards: DeviceReading,
    backends: tuple[str, ...] = ("cpu", "cuda"),
    ram_gib: int = 64,
    simulated: bool = False,
    lost: tuple[str, ...] = (),
    factors: Mapping[str, float] | None = None,
    **settings: Any,
) -> Spot:
    """Where that model goes on a machine with these cards and engine builds."""
    ram = DeviceReading(
        RAM, DeviceKind.CPU, ram_gib * GIB, ram_gib * GIB, {}, 0, bandwidth_bytes_per_s=50 * 10**9
    )
    builds = [Build("llama", each, "0.3.36") for each in backends]
    placer = Placer(
        settings=Settings(**settings),
        cpu=Cpu("Test CPU", 8, frozenset()),
        builds=lambda: builds,
        sample=lambda: Sample(0.0, 0.0, (*cards, ram), lost=lost),
        simulated=simulated,
        factors=lambda *_: factors or {},
    )
    profile = CATALOG.resolve(model)
    variant = profile.variants[0]
    assert variant.weights is not None
    shape = profile_shape(profile.architecture, variant.weights.model_dump())
    return placer.spot(profile, variant, shape, context=4096)


def test_a_model_goes_whole_to_the_gpu_that_it_fits() -> None:
    """With all its layers and the output, and it sees that card and no other."""
    found = spot("gemma4-12b", card(24))
    assert (found.gpu, found.backend, found.placement.gpu_layers) == ("gpu0", "cuda", 49)
    assert found.environ == {"CUDA_VISIBLE_DEVICES": "GPU-gpu0"}
    assert (found.sequences, found.shared) == (8, False)
    assert found.why is not None
    assert found.why.message == "48 of 48 layers go to gpu0, through bundled for cuda"


def test_the_card_with_room_is_taken() -> None:
    """What other programs hold counts, and the rest of a model goes to main memory last."""
    taken = card(24, free_bytes=4 * GIB, others_bytes=20 * GIB)
    found = spot("gemma4-12b", taken, card(12, "gpu1"))
    assert (found.gpu, found.placement.gpu_layers) == ("gpu1", 49)
    assert found.environ == {"CUDA_VISIBLE_DEVICES": "GPU-gpu1"}


def test_experts_of_a_mixture_stay_in_main_memory_where_they_have_to() -> None:
    """All layers on a card of 8 GiB."""
    found = spot("gemma4-26b-a4b", card(8))
    assert found.placement.gpu_layers == 31
    assert 0 < found.placement.host_experts < 30


def test_without_a_build_for_the_gpu_nothing_is_loaded() -> None:
    """Two ways out: install one, or allow the processor."""
    with pytest.raises(EngineMissingError) as caught:
        spot("gemma4-12b", card(24), backends=("cpu",))
    assert "gemctl engine install --backend cuda" in caught.value.advice
    assert any("CPU_CONSENT" in each for each in caught.value.advice)
    allowed = spot("gemma4-12b", card(24), backends=("cpu",), cpu_consent=True)
    assert (allowed.gpu, allowed.placement.gpu_layers) == ("", 0)
    assert allowed.why is not None
    assert (allowed.why.code, "no llama engine for cuda" in allowed.why.message) == (
        "CPU_CONSENTED",
        True,
    )


def test_what_fits_no_gpu_needs_consent_for_the_processor() -> None:
    """31B on a card of 600 MiB with little main memory: not even a layer of it."""
    with pytest.raises(CpuConsentNeededError) as caught:
        spot("gemma4-31b", card(0.6))
    assert "NVIDIA GeForce RTX 4090" in caught.value.why
    assert caught.value.metadata["model"] == "gemma4-31b"
    assert spot("gemma4-31b", card(0.6), cpu_consent=True).gpu == ""


def test_the_embedded_model_answers_on_the_processor_without_being_asked() -> None:
    """It is there before anything is installed."""
    assert spot("smollm2-135m", card(24), backends=("cpu",)).gpu == ""


def test_asking_for_the_cpu_backend_is_consent() -> None:
    """The setting names it."""
    assert spot("gemma4-12b", card(24), engine_backend="cpu").gpu == ""


def test_the_backend_of_the_settings_counts() -> None:
    """Vulkan where it is asked for, and an error where there is no such build."""
    found = spot("gemma4-12b", card(24), backends=("cuda", "vulkan"), engine_backend="vulkan")
    assert (found.backend, found.gpu, found.environ) == ("vulkan", "gpu0", {})
    with pytest.raises(EngineMissingError):
        spot("gemma4-12b", card(24), backends=("cuda",), engine_backend="vulkan")


def test_a_machine_without_a_gpu_computes_on_its_processor() -> None:
    """As does one whose GPU only shares the memory, or is made up."""
    assert spot("gemma4-12b").gpu == ""
    shared = card(0, kind=DeviceKind.INTEGRATED_GPU, vendor="intel", backends=("vulkan",))
    assert spot("gemma4-12b", shared).gpu == ""
    assert spot("gemma4-12b", card(24), simulated=True).gpu == ""


def test_of_two_cards_that_are_as_fast_the_one_with_less_of_ours_is_taken() -> None:
    """Two models on two cards need not take turns on the first."""
    busy = card(24, free_bytes=12 * GIB, processes={7: 12 * GIB})
    assert spot("gemma4-12b", card(24), card(24, "gpu1")).gpu == "gpu0"
    assert spot("gemma4-12b", busy, card(24, "gpu1")).gpu == "gpu1"


def test_what_was_measured_counts_in_a_placement() -> None:
    """What took a quarter more than predicted is booked with that, so it is placed with it."""
    plain = spot("gemma4-12b", card(9.5))
    assert plain.placement.gpu_layers == 49
    assert spot("gemma4-12b", card(9.5), factors={"gpu0": 1.25}).placement.gpu_layers < 49


def test_a_gpu_that_does_not_answer_any_more_is_no_silent_processor() -> None:
    """The model belongs there; another card or consent will do."""
    with pytest.raises(CpuConsentNeededError) as caught:
        spot("gemma4-12b", lost=("gpu0",))
    assert "gpu0" in str(caught.value)
    assert spot("gemma4-12b", lost=("gpu0",), cpu_consent=True).gpu == ""
    assert spot("gemma4-12b", card(24, "gpu1"), lost=("gpu0",)).gpu == "gpu1"
    assert spot("smollm2-135m", lost=("gpu0",)).gpu == ""


def test_of_several_gpus_of_a_vendor_a_worker_sees_its_own() -> None:
    """By place where the backend knows no other name."""
    amd: dict[str, Any] = {"vendor": "amd", "architecture": "gfx1100", "backends": ("hip",)}
    taken = card(24, free_bytes=GIB, others_bytes=23 * GIB, **amd)
    found = spot("gemma4-12b", taken, card(24, "gpu1", **amd), backends=("hip",))
    assert (found.gpu, found.environ) == ("gpu1", {"HIP_VISIBLE_DEVICES": "1"})
    assert spot("gemma4-12b", card(24, **amd), backends=("hip",)).environ == {}


def test_a_build_for_a_gpu_sees_none_where_it_computes_on_the_processor() -> None:
    """Otherwise it would open a context there that nobody booked."""
    found = spot("smollm2-135m", card(24), backends=("cuda",))
    assert (found.gpu, found.environ) == ("", {"CUDA_VISIBLE_DEVICES": "-1"})


def test_a_backend_that_no_gpu_runs_is_no_reason_for_the_processor() -> None:
    """The setting names a GPU's backend on a machine without one."""
    with pytest.raises(CpuConsentNeededError) as caught:
        spot("gemma4-12b", engine_backend="cuda")
    assert "GEMD_ENGINE_BACKEND=auto gemd" in caught.value.advice
    assert spot("gemma4-12b", engine_backend="cuda", cpu_consent=True).gpu == ""


def test_unified_memory_is_told() -> None:
    """So that it is booked once."""
    unified = card(
        36, kind=DeviceKind.UNIFIED, vendor="apple", architecture="", backends=("metal",)
    )
    found = spot("gemma4-12b", unified, backends=("metal",), ram_gib=48)
    assert (found.gpu, found.backend, found.shared) == ("gpu0", "metal", True)
