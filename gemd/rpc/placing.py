"""Where a worker goes on this machine, and which engine build it gets.

A machine with a GPU that models could use never computes on its processor in silence: the build
for the GPU is missing, or the model does not fit there, and both are said with what to do. Only
the embedded model goes to the processor unasked, because it is there to answer before anything
is installed, and whoever consented.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from gemd.catalog.choice import (
    Candidate,
    DiffusionSized,
    GgufSized,
    Limits,
    Placed,
    expert_share,
    memory_of,
)
from gemd.catalog.choice.placing import Site, best_place
from gemd.engine.builds.choice import choose_build
from gemd.errors import CpuConsentNeededError, EngineMissingError
from gemd.footprint.memory import Placement
from gemd.hardware import DeviceKind, inventory_of
from gemd.residency.decisions import Reason
from gemd.rpc.diffusion_placing import Loading, diffusion_spot
from gemd.rpc.torch_placing import TorchSpot, torch_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gemd.catalog import Profile, Variant
    from gemd.config import Settings
    from gemd.engine.builds.build import Build
    from gemd.footprint import DiffusionShape
    from gemd.footprint.predict import Backend
    from gemd.footprint.shape import GgufShape
    from gemd.hardware import Cpu, Gpu, Inventory, Sample
    from gemd.rpc.diffusion_placing import Found

_AUTO: Final = "auto"
_CPU: Final = "cpu"
_CUDA: Final = "cuda"


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one worker goes.

    Attributes:
        placement: What of the model lies where.
        sequences: Requests that it decodes together, or canvases; 0 for those of the settings.
        gpu: Id of the GPU that it is on; empty for none.
        backend: What drives that GPU.
        overlay: The directory of its engine build; None for the bundled one.
        environ: Variables that make it see that GPU and no other.
        shared: Whether that GPU's memory is the main memory.
        why: Why there, for whoever asks; None if there is no choice.

    """

    placement: Placement
    sequences: int
    gpu: str = ""
    backend: Backend = "cuda"
    overlay: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False
    why: Reason | None = None


ON_PROCESSOR: Final = Spot(Placement(), 0)
"""With the bundled engine, and as many requests at once as the settings say."""


class Placer:
    """Finds spots.

    Args:
        settings: Budgets, margins, consent and the backend.
        cpu: The processor of this machine.
        builds: The engine builds that are installed.
        sample: The last one; None before there was any.
        factors: By model and file name, what was measured against what was predicted, by device.
        simulated: Whether a device file plays the GPUs: their workers compute on the processor.

    """

    def __init__(
        self,
        *,
        settings: Settings,
        cpu: Cpu,
        builds: Callable[[], Sequence[Build]],
        sample: Callable[[], Sample | None],
        simulated: bool,
        factors: Callable[[str, str], Mapping[str, float]] = lambda *_: {},
    ) -> None:
        self._settings = settings
        self._cpu = cpu
        self._builds = builds
        self._sample = sample
        self._simulated = simulated
        self._factors = factors

    def spot(
        self,
        profile: Profile,
        variant: Variant,
        shape: GgufShape,
        *,
        context: int,
        file: str = "",
        consented: bool = False,
    ) -> Spot:
        """The spot of a model with so many tokens of context. Blocks.

        Args:
            profile: The model.
            variant: Of it.
            shape: Of its file.
            context: Tokens.
            file: The file's name, under which its sizes were measured.
            consented: A user lets this model compute on the processor, whatever the settings say.

        Raises:
            EngineMissingError: No build for the GPU that the model belongs on, or none that works.
            CpuConsentNeededError: It fits no GPU of this machine, and the processor was not
                allowed.

        """
        allowed = consented or self._settings.cpu_consent
        by = "cpu_consent" if self._settings.cpu_consent else "allow_cpu of its load"
        sample = self._sample()
        machine = None if sample is None else inventory_of(sample, self._cpu)
        usable = () if machine is None or self._simulated else _usable(machine)
        if sample is None or machine is None:
            return self._processor(None)
        if self._on_processor(profile):
            return self._processor(_EMBEDDED if usable else None)
        if not usable:
            if self._settings.engine_backend != _AUTO and not allowed:
                raise _no_gpu_for(profile, self._settings.engine_backend)
            # A file's GPU that is lost is refused where it is booked.
            if sample.lost and not self._simulated and not allowed:
                raise _lost(profile, sample.lost)
            return self._processor(None)
        try:
            build = choose_build(
                self._builds(), self._settings.engine_backend, usable=_backends(usable)
            )
        except EngineMissingError as error:
            if allowed:
                return self._processor(_consented(by, f"{error.message}: {error.why}"))
            error.advice = (*error.advice, "GEMD_CPU_CONSENT=true gemd")
            raise
        sized = GgufSized(shape, expert_share(profile), self._settings.prompt_cache)
        factors = self._factors(profile.id, file)
        candidate = Candidate(profile, variant, sized, on_disk=True, factors=factors)
        placed = self._placed(candidate, machine, sample, build.backend, context)
        if placed is not None and placed.gpu is not None:
            return _spot_on(placed.gpu, placed, build, sample, usable, _on_gpu(placed, build))
        if allowed:
            return self._processor(_consented(by, "it fits no GPU, not even in part"))
        raise _consent_needed(profile, usable)

    def canvas_spot(
        self,
        profile: Profile,
        variant: Variant,
        shape: DiffusionShape,
        *,
        contexts: Sequence[int],
        file: str = "",
        consented: bool = False,
    ) -> Spot:
        """The spot of a block-diffusion model. Blocks.

        Args:
            profile: The model.
            variant: Of it.
            shape: Of its checkpoint.
            contexts: Tokens that its context may have, the most first.
            file: The directory's name, under which its sizes were measured.
            consented: As of `spot`.

        Raises:
            EngineMissingError: Torch is not installed, or not for that GPU.
            CpuConsentNeededError: No GPU is what it requires, and the processor was not allowed.
            ModelTooLargeError: It fits no GPU.

        """
        settings = self._settings
        if consented:
            settings = settings.model_copy(update={"cpu_consent": True})
        sample = self._sample()
        machine = None if sample is None else inventory_of(sample, self._cpu)
        usable: Sequence[Gpu] = ()
        preferred: Sequence[Gpu] = ()
        if sample is not None and machine is not None and not self._simulated:
            seen, usable = sample, _usable(machine)
            preferred = sorted(usable, key=lambda gpu: _ours(seen, gpu))
            if sample.lost and not usable and not settings.cpu_consent:
                raise _lost(profile, sample.lost)
        factors = self._factors(profile.id, file)
        candidate = Candidate(
            profile, variant, DiffusionSized(shape), on_disk=True, factors=factors
        )
        found = diffusion_spot(
            Loading(candidate, contexts),
            machine,
            preferred,
            self._builds(),
            settings,
            limits_of(settings),
        )
        return self._spot_of(found, sample, usable)

    def torch_spot(self) -> TorchSpot:
        """Where work with torch goes that is no model's: quantizing, checking.

        Raises:
            EngineMissingError: Torch is not installed.

        """
        sample = self._sample()
        machine = None if sample is None else inventory_of(sample, self._cpu)
        usable = () if machine is None or self._simulated else _usable(machine)
        found = torch_device(self._builds(), usable, self._settings.engine_backend)
        if sample is None or found.gpu is None:
            return TorchSpot("cpu", found.build.path, _hiding(found.build.backend))
        shown = _only(found.gpu, sample, usable, _CUDA)
        return TorchSpot("cuda:0", found.build.path, shown)

    def _spot_of(self, found: Found, sample: Sample | None, usable: Sequence[Gpu]) -> Spot:
        placed = found.placed
        if placed is None or placed.gpu is None or sample is None:
            return self._beside(found.build, found.why)
        return _spot_on(placed.gpu, placed, found.build, sample, usable, found.why)

    def _on_processor(self, profile: Profile) -> bool:
        return "default" in profile.roles or self._settings.engine_backend == _CPU

    def _processor(self, why: Reason | None) -> Spot:
        return self._beside(choose_build(self._builds(), _CPU), why)

    def _beside(self, build: Build, why: Reason | None) -> Spot:
        """On the processor, whatever the build is for."""
        # A build for a GPU that computes on the processor would open a context there all the same.
        hidden = {} if build.backend == _CPU else _hiding(build.backend)
        return Spot(
            Placement(), self._settings.parallel, overlay=build.path, environ=hidden, why=why
        )

    def _placed(
        self, candidate: Candidate, machine: Inventory, sample: Sample, backend: str, context: int
    ) -> Placed | None:
        memory = memory_of(machine, limits_of(self._settings))
        # A model goes where its engine computes: other GPUs are none for it.
        gpus = [gpu for gpu in memory.gpus if backend in gpu.backends]
        # The first of GPUs that are as fast is taken: on the one with less of ours there is room
        # without an eviction.
        gpus.sort(key=lambda gpu: _ours(sample, gpu))
        site = Site(machine, memory.only(gpus), context, self._settings.parallel, backend)
        found = best_place(candidate, site, on_cpu=False)
        return found if isinstance(found, Placed) else None


def limits_of(settings: Settings) -> Limits:
    """What settings say of memory."""
    return Limits(
        ram_budget=settings.ram_budget,
        gpu_budget=settings.gpu_budget,
        ram_margin=settings.ram_margin,
        gpu_margin=settings.gpu_margin,
    )


def _spot_on(
    gpu: Gpu,
    placed: Placed,
    build: Build,
    sample: Sample,
    usable: Sequence[Gpu],
    why: Reason,
) -> Spot:
    return Spot(
        placed.placement,
        placed.sequences,
        gpu.device,
        cast("Backend", build.backend),
        build.path,
        _only(gpu, sample, usable, build.backend),
        shared=gpu.kind is not DeviceKind.DISCRETE_GPU,
        why=why,
    )


def _ours(sample: Sample, gpu: Gpu) -> int:
    """What our models hold of a GPU; bytes, as far as they are known."""
    reading = sample.of(gpu.device)
    return 0 if reading is None else reading.ours_bytes or 0


def _usable(machine: Inventory) -> tuple[Gpu, ...]:
    return tuple(gpu for gpu in machine.gpus if not gpu.unusable_reason and gpu.backends)


def _backends(gpus: Sequence[Gpu]) -> frozenset[str]:
    return frozenset(backend for gpu in gpus for backend in gpu.backends)


_EMBEDDED: Final = Reason(
    "ON_PROCESSOR", "it computes on the processor, where the embedded model always does"
)


def _consented(by: str, why: str) -> Reason:
    return Reason("CPU_CONSENTED", f"it computes on the processor, as {by} allows: {why}")


def _on_gpu(placed: Placed, build: Build) -> Reason:
    assert placed.gpu is not None
    layers, placement = placed.candidate.sized.layers, placed.placement
    there = min(placement.gpu_layers, layers)
    experts = (
        f", the experts of {placement.host_experts} of them in main memory"
        if placement.host_experts
        else ""
    )
    return Reason(
        "ON_GPU",
        f"{there} of {layers} layers go to {placed.gpu.device}{experts}, "
        f"through {build.name} for {build.backend}",
        {
            "device": placed.gpu.device,
            "layers": str(there),
            "total_layers": str(layers),
            "host_experts": str(placement.host_experts),
            "cache_type": placement.cache_type,
            "backend": build.backend,
        },
    )


_VISIBLE: Final[Mapping[str, str]] = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "hip": "HIP_VISIBLE_DEVICES",
    "vulkan": "GGML_VK_VISIBLE_DEVICES",
}
"""What hides GPUs from a backend. Metal has one."""


def _only(gpu: Gpu, sample: Sample, usable: Sequence[Gpu], backend: str) -> dict[str, str]:
    """What shows a worker its own GPU alone.

    CUDA counts by speed and the driver's library by slot, so that it gets the UUID. The others
    are told the place among the GPUs that run the backend, which they count by slot too, as far
    as their documentation says; no machine with several of them was at hand.
    """
    if backend not in _VISIBLE:
        return {}
    reading = sample.of(gpu.device)
    if backend == "cuda" and reading is not None and reading.hardware_id:
        return {_VISIBLE[backend]: reading.hardware_id}
    same = [each.device for each in usable if backend in each.backends]
    return {_VISIBLE[backend]: str(same.index(gpu.device))} if len(same) > 1 else {}


def _hiding(backend: str) -> dict[str, str]:
    """What hides all GPUs from a worker."""
    return {_VISIBLE[backend]: "-1"} if backend in _VISIBLE else {}


def _no_gpu_for(profile: Profile, backend: str) -> CpuConsentNeededError:
    return CpuConsentNeededError(
        f"{profile.id} belongs on a GPU that runs {backend}, and this machine has none",
        why=f"engine_backend is {backend}, and nobody allowed the processor",
        advice=("gemctl devices", "GEMD_ENGINE_BACKEND=auto gemd"),
        metadata={"model": profile.id, "backend": backend},
    )


def _lost(profile: Profile, devices: Sequence[str]) -> CpuConsentNeededError:
    names = ", ".join(devices)
    return CpuConsentNeededError(
        f"{profile.id} belongs on a GPU, and {names} does not answer any more",
        why="on the processor it would be slow, and nobody allowed that",
        advice=("gemctl devices", "gemctl doctor", f"gemctl load {profile.id} --cpu"),
        metadata={"model": profile.id, "gpus": names},
    )


def _consent_needed(profile: Profile, gpus: Sequence[Gpu]) -> CpuConsentNeededError:
    names = ", ".join(gpu.name or gpu.device for gpu in gpus)
    return CpuConsentNeededError(
        f"{profile.id} fits no GPU of this machine, not even in part",
        why=f"on the processor it would leave {names} unused and be slow, and nobody allowed that",
        advice=(f"gemctl plan {profile.id}", f"gemctl load {profile.id} --cpu"),
        metadata={"model": profile.id, "gpus": names},
    )
