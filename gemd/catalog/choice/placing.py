"""The best place for one variant in the memory that is left. Pure.

On one GPU at most: splitting one model over several is not done. What does not fit there whole is
tried with the experts of some layers in main memory, or with some layers there; the fastest of
what fits counts, and an exact cache before a smaller one that buys no speed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gemd.catalog.choice.speed import predict_speed
from gemd.catalog.choice.values import Placed
from gemd.footprint.memory import Method, Placement
from gemd.hardware import RAM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gemd.catalog.choice.pools import Memory
    from gemd.catalog.choice.values import Candidate, Sized
    from gemd.catalog.variant import Requirements
    from gemd.footprint.memory import CacheType, Parts, Prediction
    from gemd.hardware.inventory import Gpu, Inventory
    from gemd.hardware.readings import DeviceReading

_WORTH: Final = 1.05
"""How much faster a placement has to be for a cache of 8 bits instead of 16."""
_AT_LEAST: Final = 2
"""Requests that a model decodes together rather than have an exact cache for one alone."""


MAPS: Final = "metal"
"""The backend that computes on the mapped pages of a file; with others a GPU gets a copy of what
it shares with the processor too."""


REFERENCE_WEIGHTS: Final = 2**30
"""Bytes of the largest block-diffusion model that goes to the processor unasked, on a machine
without a GPU. What computes there is the reference path, which is there for tests: models of tests
have some megabytes, and the smallest released one 17.7 GB, of which a canvas would take minutes."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where placing happens.

    Attributes:
        machine: Its processors.
        memory: What is left of its memories.
        context_tokens: Room that the model needs.
        sequences: Requests that it should decode together.
        backend: What its engine was built for; empty for the best that a GPU can run.
        cpu_consent: Whether the processor is allowed for whatever is slow there.

    """

    machine: Inventory
    memory: Memory
    context_tokens: int
    sequences: int
    backend: str = ""
    cpu_consent: bool = False

    def manners(self) -> list[Manner]:
        """Ways to keep a context, dearest first: fewer requests at once, then a smaller cache.

        Every request has a sliding window of its own, so fewer of them save much; a second one
        that has to wait is worse than a cache of 8 bits.
        """
        counts = self._counts()
        exact = [count for count in counts if count >= min(_AT_LEAST, self.sequences)]
        return [*(Manner("f16", count) for count in exact), *(Manner("q8_0", n) for n in counts)]

    def canvases(self) -> list[Manner]:
        """The same of a block-diffusion model, whose cache has one type: fewer canvases at once."""
        return [Manner("f16", count) for count in self._counts()]

    def _counts(self) -> list[int]:
        counts = [self.sequences]
        while counts[-1] > 1:
            counts.append(counts[-1] // 2)
        return counts


@dataclass(frozen=True, slots=True)
class Manner:
    """How a context is kept."""

    cache_type: CacheType
    sequences: int


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a variant cannot be placed.

    Attributes:
        pool: The memory that is too small.
        needed: What the variant would take of it at least.
        available: What it could have.

    """

    pool: str
    needed: int
    available: int


def best_place(candidate: Candidate, site: Site, *, on_cpu: bool) -> Placed | Misfit:
    """The fastest place for a variant.

    Args:
        candidate: The variant.
        site: Where.
        on_cpu: Also without any GPU.

    """
    tried = []
    for gpu in site.memory.gpus:
        backend = _backend(candidate, gpu, site.backend)
        if backend is not None:
            tried += _on_gpu(candidate, site, gpu, backend)
    if on_cpu and runs_on_processor(candidate.sized, consent=site.cpu_consent):
        tried += _whole(candidate, site, None, "cpu", Placement())
    fitting = [each for each in tried if site.memory.lack(each.demand) is None]
    return _fastest(fitting) if fitting else _misfit(tried, site)


def runs_on_processor(sized: Sized, *, consent: bool) -> bool:
    """Whether a model may be placed on the processor at all; see `REFERENCE_WEIGHTS`."""
    return consent or not sized.canvas or sized.weights_bytes <= REFERENCE_WEIGHTS


def _fastest(fitting: list[Placed]) -> Placed:
    best = fitting[0]
    for each in fitting[1:]:
        worth = 1.0 if each.placement.cache_type == best.placement.cache_type else _WORTH
        if (each.speed.decode or 0.0) > (best.speed.decode or 0.0) * worth:
            best = each
    return best


def _misfit(found: list[Placed], site: Site) -> Misfit:
    """Of all places the one that is the least too small; none at all is a device without memory."""

    def excess(placed: Placed) -> tuple[int, str]:
        over = {
            pool: size - site.memory.pools[pool].available for pool, size in placed.demand.items()
        }
        worst = max(over, key=lambda pool: over[pool])
        return over[worst], worst

    if not found:
        return Misfit("", 0, 0)
    nearest = min(found, key=excess)
    _, pool = excess(nearest)
    return Misfit(pool, nearest.demand[pool], site.memory.pools[pool].available)


def _backend(candidate: Candidate, gpu: Gpu, built: str) -> str | None:
    """What runs the variant on this GPU; None if nothing does."""
    if not runs_on(candidate.variant.needs, gpu) or "default" in candidate.profile.roles:
        # The embedded model answers before anything is installed, so that no engine for a GPU is
        # asked of anybody for its sake.
        return None
    if candidate.variant.engine == "diffusion":
        return "cuda" if "cuda" in gpu.backends else None
    if built:
        return built if built in gpu.backends else None
    return gpu.backends[0] if gpu.backends else None


def runs_on(requires: Requirements, gpu: Gpu | DeviceReading) -> bool:
    """Whether a GPU is what a variant requires. An unknown architecture meets no least one."""
    if requires.vendors and gpu.vendor not in requires.vendors:
        return False
    if not requires.compute_capability:
        return True
    major, _, minor = gpu.architecture.partition(".")
    known = gpu.vendor == "nvidia" and major.isdecimal() and minor.isdecimal()
    return known and (int(major), int(minor)) >= requires.capability


def _on_gpu(candidate: Candidate, site: Site, gpu: Gpu, backend: str) -> list[Placed]:
    """The whole model there, or else the largest parts of it that fit."""
    layers = candidate.sized.layers
    tried = _whole(candidate, site, gpu, backend, Placement(layers + 1))
    if candidate.sized.canvas or site.memory.lack(tried[-1].demand) is None:
        return tried
    for manner in site.manners():
        if manner.sequences <= _AT_LEAST:
            tried += _in_part(candidate, site, gpu, backend, manner)
    return tried


def _whole(
    candidate: Candidate, site: Site, gpu: Gpu | None, backend: str, placement: Placement
) -> list[Placed]:
    """The same placement in one manner after the other, until one fits."""
    tried = []
    for manner in site.canvases() if candidate.sized.canvas else site.manners():
        where = replace(placement, cache_type=manner.cache_type)
        tried.append(_placed(candidate, site, gpu, backend, where, manner.sequences))
        if site.memory.lack(tried[-1].demand) is None:
            break
    return tried


def _in_part(
    candidate: Candidate, site: Site, gpu: Gpu, backend: str, manner: Manner
) -> Iterator[Placed]:
    """With experts in main memory where there are any, with layers there otherwise."""
    layers = candidate.sized.layers
    # With nothing but the output on the GPU the processor computes, and that is said otherwise.
    most = max(1, layers - 1)
    pool = site.memory.pool_of[gpu.device]
    available = site.memory.pools[pool].available

    def place(gpu_layers: int, host_experts: int) -> Placed:
        where = Placement(gpu_layers, host_experts, manner.cache_type)
        return _placed(candidate, site, gpu, backend, where, manner.sequences)

    def fits(gpu_layers: int, host_experts: int) -> bool:
        return place(gpu_layers, host_experts).demand[pool] <= available

    if not candidate.sized.experts:
        there = _least(most, lambda count: fits(layers + 1 - count, 0))
        yield place(layers + 1 - there, 0)
        return
    there = _least(layers, lambda count: fits(layers + 1, count))
    yield place(layers + 1, there)
    if there == layers and not fits(layers + 1, layers):
        there = _least(most, lambda count: fits(layers + 1 - count, layers))
        yield place(layers + 1 - there, layers)


def _least(most: int, fits: Callable[[int], bool]) -> int:
    """The least number from 1 to `most` that fits, if more of it fits better; `most` if none."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _placed(
    candidate: Candidate,
    site: Site,
    gpu: Gpu | None,
    backend: str,
    placement: Placement,
    sequences: int,
) -> Placed:
    trained = candidate.profile.context_tokens or site.context_tokens
    context = min(site.context_tokens, trained)
    prediction = candidate.sized.predict(
        placement, context_tokens=context, sequences=sequences, backend=backend
    )
    mapped = backend == MAPS
    parts, demand = _by_pool(candidate, prediction, gpu, site.memory, mapped=mapped)
    return Placed(
        candidate=candidate,
        gpu=gpu,
        backend=backend,
        placement=placement,
        context_tokens=context,
        sequences=sequences,
        parts=parts,
        demand=demand,
        method=Method.MEASURED if candidate.factors else prediction.method,
        speed=predict_speed(candidate.sized, placement, gpu, backend, site.machine),
    )


def _by_pool(
    candidate: Candidate,
    prediction: Prediction,
    gpu: Gpu | None,
    memory: Memory,
    *,
    mapped: bool,
) -> tuple[dict[str, Parts], dict[str, int]]:
    """Steady parts and peak of each memory that the model takes a part of."""
    host_pool = memory.pool_of[RAM]
    host = _corrected(prediction.host, candidate.factors.get(RAM, 1.0))
    host_peak = prediction.host_peak - prediction.host.total + host.total
    if gpu is None:
        return {host_pool: host}, {host_pool: host_peak}
    pool = memory.pool_of[gpu.device]
    # What shares main memory is measured as main memory.
    measured_as = RAM if pool == host_pool else gpu.device
    on_gpu = _corrected(prediction.gpu, candidate.factors.get(measured_as, 1.0))
    gpu_peak = prediction.gpu_peak - prediction.gpu.total + on_gpu.total
    if pool != host_pool:
        return {pool: on_gpu, host_pool: host}, {pool: gpu_peak, host_pool: host_peak}
    # One file mapped into one memory: what both sides have of it is there once.
    twice = max(0, host.weights + on_gpu.weights - candidate.sized.weights_bytes) if mapped else 0
    both = host + on_gpu
    both = replace(both, weights=both.weights - twice)
    return {pool: both}, {pool: host_peak + gpu_peak - twice}


def _corrected(parts: Parts, factor: float) -> Parts:
    """The parts with what was measured beyond them, or was not, as overhead.

    Nobody measures parts by themselves; weights and cache are exact, so it is not those.
    """
    more = int(parts.total * factor) - parts.total
    return replace(parts, overhead=max(0, parts.overhead + more))
