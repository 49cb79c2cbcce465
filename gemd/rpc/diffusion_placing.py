"""Where a block-diffusion model goes: an NVIDIA GPU from compute capability 8.0 on, or nowhere.

The processor has the reference path, which is there for tests: small checkpoints go there on a
machine without a GPU, and others for whoever consented. Nothing ends there in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.catalog.choice import Placed, memory_of
from gemd.catalog.choice.placing import (
    REFERENCE_WEIGHTS,
    Misfit,
    Site,
    best_place,
    runs_on,
    runs_on_processor,
)
from gemd.catalog.choice.reasons import needs
from gemd.engine.builds.choice import choose_build
from gemd.errors import CpuConsentNeededError, EngineMissingError, ModelTooLargeError
from gemd.quantities import human_bytes
from gemd.residency.decisions import Reason
from gemd.rpc.planned_engines import DIFFUSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.catalog import Variant
    from gemd.catalog.choice import Candidate, Limits
    from gemd.config import Settings
    from gemd.engine.builds.build import Build
    from gemd.hardware import Gpu, Inventory

_CUDA: Final = "cuda"
_CPU: Final = "cpu"


@dataclass(frozen=True, slots=True)
class Loading:
    """What is to be placed.

    Attributes:
        candidate: The model, with what was measured of it.
        contexts: Sizes that its context may have, tokens, the largest first.

    """

    candidate: Candidate
    contexts: Sequence[int]

    @property
    def model(self) -> str:
        """Its id."""
        return self.candidate.profile.id

    @property
    def variant(self) -> Variant:
        """Of the model."""
        return self.candidate.variant


@dataclass(frozen=True, slots=True)
class Found:
    """Where it goes.

    Attributes:
        build: What computes.
        placed: On which GPU, and how; None for the processor.
        why: Why there.

    """

    build: Build
    placed: Placed | None
    why: Reason


def diffusion_spot(
    loading: Loading,
    machine: Inventory | None,
    usable: Sequence[Gpu],
    builds: Sequence[Build],
    settings: Settings,
    limits: Limits,
) -> Found:
    """Where it goes. Pure.

    Args:
        loading: The model.
        machine: What is in it; None before a sensor has answered.
        usable: GPUs that models may be placed on at all, the preferred ones first.
        builds: The engine builds that are installed.
        settings: Consent, the backend, and canvases together.
        limits: Of memory.

    Raises:
        EngineMissingError: Torch is not installed, or not for what the model belongs on.
        CpuConsentNeededError: No GPU is what the model requires, and the processor was not
            allowed.
        ModelTooLargeError: It fits no GPU, with one canvas and the smallest context.

    """
    if settings.engine_backend == _CPU:
        return _processor(loading, builds, "as engine_backend says")
    # Other backends are llama.cpp's: torch has one.
    able = _able(loading.variant, usable)
    if machine is None or not able:
        if not usable and runs_on_processor(loading.candidate.sized, consent=False):
            return _processor(loading, builds, "as small models do where no GPU is")
        if settings.cpu_consent:
            return _processor(loading, builds, "as cpu_consent allows")
        raise _unsupported(loading, usable)
    try:
        build = choose_build(builds, _CUDA, engine=DIFFUSION)
    except EngineMissingError as error:
        if settings.cpu_consent:
            return _processor(loading, builds, f"as cpu_consent allows: {error}")
        error.advice = (*error.advice, "GEMD_CPU_CONSENT=true gemd")
        error.metadata["model"] = loading.model
        raise
    placed = _placed(loading, machine, able, settings, limits)
    if isinstance(placed, Placed):
        return Found(build, placed, _on_gpu(placed, build))
    if settings.cpu_consent:
        return _processor(loading, builds, "as cpu_consent allows: it fits no GPU")
    raise _too_large(loading, placed)


def _able(variant: Variant, usable: Sequence[Gpu]) -> list[Gpu]:
    """GPUs that run the engine's kernels, and are what the variant requires besides."""
    return [gpu for gpu in usable if _CUDA in gpu.backends and runs_on(variant.needs, gpu)]


def _placed(
    loading: Loading, machine: Inventory, able: Sequence[Gpu], settings: Settings, limits: Limits
) -> Placed | Misfit:
    """In the largest context that fits, with as many canvases as fit then.

    A GPU that is full for the moment has room for a smaller context, which residency chooses.
    """
    memory = memory_of(machine, limits)
    free = memory.only(
        [next(each for each in memory.gpus if each.device == gpu.device) for gpu in able]
    )

    found: Placed | Misfit | None = None
    for tokens in loading.contexts:
        site = Site(machine, free, tokens, settings.parallel, _CUDA)
        found = best_place(loading.candidate, site, on_cpu=False)
        if isinstance(found, Placed):
            break
    assert found is not None, "there is a context"
    return found


def _processor(loading: Loading, builds: Sequence[Build], why: str) -> Found:
    build = choose_build(builds, _CPU, engine=DIFFUSION)
    return Found(
        build,
        None,
        Reason(
            "REFERENCE_PATH",
            f"{loading.model} computes on the processor, {why}; that is the engine's reference "
            "path, which is slow and there for tests",
        ),
    )


def _on_gpu(placed: Placed, build: Build) -> Reason:
    assert placed.gpu is not None
    together = "1 canvas" if placed.sequences == 1 else f"{placed.sequences} canvases"
    return Reason(
        "ON_GPU",
        f"it goes to {placed.gpu.device} as a whole, with {together} at once, through {build.name} "
        f"for {build.backend}",
        {
            "device": placed.gpu.device,
            "sequences": str(placed.sequences),
            "backend": build.backend,
        },
    )


def _unsupported(loading: Loading, gpus: Sequence[Gpu]) -> CpuConsentNeededError:
    wanted = needs(loading.variant.needs)
    has = " and ".join(map(_described, gpus)) or "no GPU that models can use"
    return CpuConsentNeededError(
        f"{loading.model} is a model of the fast tier and needs {wanted}; this machine has {has}",
        why="on the processor there is only a reference path for tests, which takes minutes for a "
        f"canvas of a model of more than {human_bytes(REFERENCE_WEIGHTS)}, and nobody allowed it",
        advice=("gemctl devices", "gemctl plan", "GEMD_CPU_CONSENT=true gemd"),
        metadata={
            "model": loading.model,
            "gpus": ", ".join(gpu.name or gpu.device for gpu in gpus),
            "architectures": ", ".join(gpu.architecture for gpu in gpus),
            "compute_capability": loading.variant.needs.compute_capability,
            "weights_bytes": loading.candidate.sized.weights_bytes,
        },
    )


def _described(gpu: Gpu) -> str:
    name = gpu.name or gpu.device
    if gpu.vendor == "nvidia" and gpu.architecture:
        return f"{name} with compute capability {gpu.architecture}"
    return name


def _too_large(loading: Loading, misfit: Misfit) -> ModelTooLargeError:
    tokens = loading.contexts[-1]
    return ModelTooLargeError(
        f"{loading.model} takes {human_bytes(misfit.needed)} of {misfit.pool} at least, and models "
        f"may have {human_bytes(misfit.available)} there",
        why=f"that is with one canvas and a context of {tokens} tokens; a block-diffusion model "
        "reads all of its weights in every step, so none of them can stay in main memory",
        advice=(f"gemctl plan {loading.model}", "gemctl devices", "GEMD_CPU_CONSENT=true gemd"),
        metadata={
            "model": loading.model,
            "device": misfit.pool,
            "needed_bytes": misfit.needed,
            "available_bytes": misfit.available,
            "context_tokens": tokens,
        },
    )
