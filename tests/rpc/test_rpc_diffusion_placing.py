"""Where block-diffusion models go: to a GPU that they can use, or to nobody's surprise."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gemd.catalog import Catalog
from gemd.catalog.choice import profile_sized
from gemd.catalog.choice.sizes import DiffusionSized
from gemd.config import Settings
from gemd.engine.builds.build import Build
from gemd.errors import (
    BadModelFileError,
    CpuConsentNeededError,
    EngineMissingError,
    ModelNotFoundError,
    ModelTooLargeError,
)
from gemd.footprint import predict_diffusion, read_diffusion
from gemd.hardware import RAM, Cpu, DeviceKind, DeviceReading, Sample
from gemd.rpc.compose import _is_placeable
from gemd.rpc.convert.plans import Ask
from gemd.rpc.library import Library
from gemd.rpc.placing import Placer
from gemd.store import Store
from tests.rpc.test_rpc_advisor import advisor, sample
from tests.rpc.test_rpc_placing import card
from tests.support.models import PROFILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.rpc.placing import Spot

GIB = 2**30
MODEL = "diffusiongemma-26b-a4b"
TINY = Path(__file__).parents[1] / "fixtures" / "tiny-diffusion-gemma"
CATALOG = Catalog.load(PROFILES)
TORCH = Build("diffusion", "cuda", "2.13.0")
TORCH_CPU = Build("diffusion", "cpu", "2.13.0")
LLAMA = Build("llama", "cuda", "0.3.36")
INSTALL = "gemctl engine install --backend cuda --engine diffusion"
AMD: dict[str, Any] = {
    "name": "Radeon RX 7900 XTX",
    "vendor": "amd",
    "architecture": "gfx1100",
    "backends": ("hip", "vulkan"),
}


def machine(*cards: DeviceReading, ram_gib: int = 64, lost: tuple[str, ...] = ()) -> Sample:
    """One with these cards."""
    ram = DeviceReading(RAM, DeviceKind.CPU, ram_gib * GIB, ram_gib * GIB, {}, 0)
    return Sample(0.0, 0.0, (*cards, ram), lost=lost)


def placer(
    seen: Sample | None, builds: Sequence[Build], *, simulated: bool = False, **settings: Any
) -> Placer:
    """One on that machine."""
    return Placer(
        settings=Settings(**settings),
        cpu=Cpu("Test CPU", 8, frozenset()),
        builds=lambda: builds,
        sample=lambda: seen,
        simulated=simulated,
    )


def spot(
    *cards: DeviceReading,
    builds: Sequence[Build] = (LLAMA, TORCH),
    model: str = MODEL,
    contexts: Sequence[int] = (8192, 4096, 2048, 1024),
    lost: tuple[str, ...] = (),
    simulated: bool = False,
    **settings: Any,
) -> Spot:
    """Where the model goes: the released one, or the tiny one of the tests."""
    made = placer(machine(*cards, lost=lost), builds, simulated=simulated, **settings)
    if model == MODEL:
        profile = CATALOG.resolve(MODEL)
        sized = profile_sized(profile, profile.variants[0], prompt_cache_bytes=0)
        assert isinstance(sized, DiffusionSized)
        shape = sized.shape
    else:
        profile, shape = Catalog([]).resolve(str(TINY)), read_diffusion(TINY)
    return made.canvas_spot(profile, profile.variants[0], shape, contexts=contexts)


def test_the_released_model_goes_to_a_24_gb_card_as_a_whole() -> None:
    """With torch's build, seeing that card alone, and as many canvases as fit beside each other."""
    found = spot(card(24))
    assert (found.gpu, found.backend, found.placement.gpu_layers) == ("gpu0", "cuda", 31)
    assert found.environ == {"CUDA_VISIBLE_DEVICES": "GPU-gpu0"}
    assert (found.sequences, found.overlay) == (8, None)
    assert found.why is not None
    assert found.why.message == (
        "it goes to gpu0 as a whole, with 8 canvases at once, through bundled for cuda"
    )
    assert found.why.metadata["sequences"] == "8"
    overlay = Build("diffusion", "cuda", "2.13.0", path=Path("/engines/diffusion-cuda"))
    assert spot(card(24), builds=(overlay, TORCH)).overlay == overlay.path


@pytest.mark.parametrize("size,canvases", [(24, 8), (21.5, 4), (20, 2), (19, 1), (18.5, 1)])
def test_fewer_canvases_and_then_a_smaller_context_where_memory_is_short(
    size: float, canvases: int
) -> None:
    """One canvas is enough; residency takes the largest context that fits, from the whole down."""
    assert spot(card(size)).sequences == canvases
    assert spot(card(size), parallel=1).sequences == 1


def test_a_card_that_is_too_small_is_named_with_both_numbers() -> None:
    """With one canvas and the smallest context: MODEL_TOO_LARGE, or consent."""
    with pytest.raises(ModelTooLargeError) as caught:
        spot(card(16))
    told = caught.value.metadata
    assert told["device"] == "gpu0"
    assert int(told["needed_bytes"]) > 17 * 10**9 > int(told["available_bytes"]) > 15 * GIB
    assert told["context_tokens"] == "1024"
    assert "GEMD_CPU_CONSENT=true gemd" in caught.value.advice
    allowed = spot(card(16), cpu_consent=True)
    assert (allowed.gpu, allowed.placement.gpu_layers) == ("", 0)
    assert allowed.environ == {"CUDA_VISIBLE_DEVICES": "-1"}
    assert allowed.why is not None
    assert (allowed.why.code, "it fits no GPU" in allowed.why.message) == ("REFERENCE_PATH", True)


@pytest.mark.parametrize("builds", [(LLAMA,), (LLAMA, TORCH_CPU)], ids=["none", "processor"])
def test_without_torch_for_the_gpu_nothing_is_loaded(builds: Sequence[Build]) -> None:
    """The command that installs it is the first advice; the tiny model is no exception."""
    for model in (MODEL, "tiny"):
        with pytest.raises(EngineMissingError) as caught:
            spot(card(24), builds=builds, model=model)
        assert caught.value.message == "there is no diffusion engine for cuda"
        assert caught.value.advice[0] == INSTALL
        assert "GEMD_CPU_CONSENT=true gemd" in caught.value.advice


def test_torch_that_cannot_be_used_says_why() -> None:
    """As `engine list` does."""
    broken = Build("diffusion", "cuda", "2.13.0", broken="there is no transformers beside it")
    with pytest.raises(EngineMissingError, match="there is no transformers beside it"):
        spot(card(24), builds=(LLAMA, broken))


def test_without_any_torch_consent_is_not_enough() -> None:
    """The processor needs it as well, for which there is a smaller one."""
    with pytest.raises(EngineMissingError) as caught:
        spot(builds=(LLAMA,), cpu_consent=True)
    assert caught.value.advice[0] == "gemctl engine install --backend cpu --engine diffusion"


@pytest.mark.parametrize(
    "cards, says",
    [
        ((card(24, architecture="7.5", name="Quadro RTX 6000"),), "capability 7.5"),
        ((card(24, **AMD),), "this machine has Radeon RX 7900 XTX"),
        ((), "no GPU that models can use"),
    ],
    ids=["turing", "amd", "none"],
)
def test_a_gpu_that_cannot_run_it_is_named(cards: tuple[DeviceReading, ...], says: str) -> None:
    """With what it would have to be; consent leads to the reference path, which says so."""
    with pytest.raises(CpuConsentNeededError) as caught:
        spot(*cards)
    assert "a GPU of NVIDIA with compute capability 8.0 or more" in caught.value.message
    assert says in caught.value.message
    assert caught.value.metadata["compute_capability"] == "8.0"
    allowed = spot(*cards, cpu_consent=True)
    assert allowed.gpu == ""
    assert allowed.why is not None
    assert "reference path" in allowed.why.message


def test_a_small_model_computes_on_a_machine_without_a_gpu_and_says_so() -> None:
    """As the tests do; where a GPU would stay unused, nobody may assume that."""
    found = spot(builds=(TORCH_CPU,), model="tiny")
    assert (found.gpu, found.sequences, found.environ) == ("", 8, {})
    assert found.why is not None
    assert found.why.code == "REFERENCE_PATH"
    with pytest.raises(CpuConsentNeededError):
        spot(card(24, **AMD), builds=(TORCH_CPU,), model="tiny")
    assert spot(card(24), model="tiny").gpu == "gpu0"


def test_the_backend_of_the_settings_is_llamas_unless_it_is_the_processor() -> None:
    """Whoever set that has consented; torch has no Vulkan that could be meant."""
    assert spot(card(24), engine_backend="cpu").gpu == ""
    assert spot(card(24), engine_backend="vulkan").gpu == "gpu0"


def test_of_several_cards_one_that_can_run_it_is_taken() -> None:
    """Not the larger one that cannot, and not the one that other programs have filled."""
    old = card(48, architecture="7.5")
    assert spot(old, card(24, "gpu1")).gpu == "gpu1"
    taken = card(24, free_bytes=4 * GIB, others_bytes=20 * GIB)
    found = spot(taken, card(24, "gpu1"))
    assert (found.gpu, found.environ) == ("gpu1", {"CUDA_VISIBLE_DEVICES": "GPU-gpu1"})
    busy = card(24, free_bytes=GIB, processes={7: 23 * GIB})
    assert spot(busy, card(24, "gpu1")).gpu == "gpu1"


def test_a_gpu_that_does_not_answer_any_more_is_no_silent_processor() -> None:
    """The small model neither."""
    for model in (MODEL, "tiny"):
        with pytest.raises(CpuConsentNeededError, match="gpu0 does not answer"):
            spot(model=model, lost=("gpu0",))


def test_a_made_up_gpu_computes_on_the_processor() -> None:
    """A device file cannot hold 18 GB; the tiny model answers as on a machine without a GPU."""
    assert spot(card(24), model="tiny", simulated=True).gpu == ""
    with pytest.raises(CpuConsentNeededError):
        spot(card(24), simulated=True)
    assert (
        placer(None, (TORCH,))
        .canvas_spot(
            Catalog([]).resolve(str(TINY)),
            Catalog([]).resolve(str(TINY)).variants[0],
            read_diffusion(TINY),
            contexts=(1024,),
        )
        .gpu
        == ""
    )


def library(folder: Path, seen: Sample, builds: Sequence[Build], **settings: Any) -> Library:
    """One on that machine, with nothing but paths to name models by."""
    return Library(
        catalog=Catalog([]),
        store=Store(folder / "store"),
        settings=Settings(**settings),
        threads=3,
        environ=dict(os.environ),
        placer=placer(seen, builds, **settings),
    )


async def test_a_checkpoint_is_located_with_all_that_a_load_needs(tmp_path: Path) -> None:
    """Its directory, its canvases, and what each context takes on each device."""
    lib = library(tmp_path, machine(card(24)), (TORCH,), context_tokens=4096)
    located = await lib.locate(str(TINY))
    spec, shape = located.spec, read_diffusion(TINY)
    assert (spec.engine, spec.load.path, spec.model) == (
        "diffusion",
        str(TINY),
        "local/tiny-diffusion-gemma",
    )
    assert (spec.load.gpu_layers, spec.load.max_sequences, spec.load.threads) == (5, 8, 3)
    assert (spec.load.context_tokens, spec.load.prompt_cache_bytes) == (4096, 0)
    assert spec.environ["CUDA_VISIBLE_DEVICES"] == "GPU-gpu0"
    assert [size.tokens for size in located.contexts] == [4096, 2048, 1024]
    for size in located.contexts:
        predicted = predict_diffusion(shape, context_tokens=size.tokens, sequences=8)
        assert size.demand == {RAM: predicted.host_peak, "gpu0": predicted.gpu_peak}
    assert located.device == "gpu0"


async def test_on_the_processor_all_is_booked_in_main_memory(tmp_path: Path) -> None:
    """By the formula of the reference path; nothing asks for a GPU."""
    lib = library(tmp_path, machine(), (TORCH_CPU,), context_tokens=1024, parallel=2)
    located = await lib.locate(str(TINY))
    predicted = predict_diffusion(read_diffusion(TINY), context_tokens=1024, sequences=2, gpu=False)
    assert located.demand == {RAM: predicted.host_peak}
    assert located.spec.load.gpu_layers == 0
    assert located.placed is not None
    assert located.placed.code == "REFERENCE_PATH"


async def test_a_damaged_checkpoint_is_told_before_a_worker_is_started(tmp_path: Path) -> None:
    """When it is loaded, and when a pull is asked for it; what is gone is not found."""
    own = Path(shutil.copytree(TINY, tmp_path / "own"))
    lib = library(tmp_path, machine(), (TORCH_CPU,))
    profile = lib.resolve(str(own))
    await lib.check(profile, lib.store.locate(profile))
    found = (await lib.on_disk())[profile.id]["directory"]
    assert (found.size_bytes, found.source, found.origin) == (3_240_488, "local", str(own))
    assert (found.exclusive_bytes, found.verified) == (0, None)
    with (own / "model.safetensors").open("r+b") as file:
        file.truncate(2_000_000)
    with pytest.raises(BadModelFileError, match="truncated"):
        await lib.locate(str(own))
    with pytest.raises(BadModelFileError, match="truncated"):
        await lib.check(profile, lib.store.locate(profile))
    shutil.rmtree(own)
    with pytest.raises(ModelNotFoundError, match=r"no directory .*own any more"):
        await lib.locate(str(own))
    assert (await lib.on_disk())[profile.id] == {}


async def plan_codes(tmp_path: Path, model: str, builds: Sequence[Build], *cards: Any) -> set[str]:
    """Reasons of a plan for this machine, and of its models."""
    made = advisor(tmp_path, sample(*cards), Settings(offline=True), builds, CATALOG)
    plan = (await made.plan(Ask(model=model, context_tokens=8192))).plan
    return {each.code for each in plan.reasons} | {
        reason.code for each in plan.models for reason in each.reasons
    }


async def test_a_plan_for_this_machine_leans_on_torch_where_it_is_installed(
    tmp_path: Path,
) -> None:
    """Else it says how to install it; a GPU that could not use it is told as that."""
    there = await plan_codes(tmp_path, MODEL, (LLAMA, TORCH), card(24))
    assert "MODEL_NAMED" in there
    assert "ENGINE_MISSING" not in there
    for builds in ((LLAMA,), (LLAMA, TORCH_CPU)):
        assert await plan_codes(tmp_path, MODEL, builds, card(24)) == {"ENGINE_MISSING"}
        assert "FAST_ENGINE_MISSING" in await plan_codes(tmp_path, "", builds, card(24))
    assert await plan_codes(tmp_path, MODEL, (LLAMA,), card(24, **AMD)) == {"UNSUPPORTED_HERE"}
    assert "FAST_TIER" in await plan_codes(tmp_path, "", (LLAMA, TORCH), card(24))


async def test_a_plan_and_a_load_of_a_checkpoint_agree(tmp_path: Path) -> None:
    """On the GPU and on the processor: where it lies, and by which figures."""
    builds = (LLAMA, TORCH)
    for cards in ((card(24),), ()):
        seen = sample(*cards)
        catalog = Catalog([])
        settings = Settings(parallel=1, context_tokens=4096)
        made = advisor(tmp_path, seen, settings, builds, catalog)
        [planned] = (await made.plan(Ask(model=str(TINY), context_tokens=4096))).plan.models
        located = await library(tmp_path, seen, builds, parallel=1, context_tokens=4096).locate(
            str(TINY)
        )
        assert dict(planned.placed.demand) == located.demand
        assert planned.placed.candidate.on_disk


def test_a_gpu_that_torch_cannot_use_is_not_one_that_models_are_placed_on() -> None:
    """Or else its memory would be watched for nobody."""
    assert _is_placeable(lambda: (TORCH,), card(24))
    assert not _is_placeable(lambda: (TORCH,), card(24, architecture="7.5"))
    assert _is_placeable(lambda: (LLAMA,), card(24, architecture="7.5"))
