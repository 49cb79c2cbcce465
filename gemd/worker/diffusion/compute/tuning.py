"""Tiles by measurement: candidates run on a real layer of this model, and the best are kept.

Bounded in time, because each candidate has to be compiled once (a second or two; Triton keeps the
result on disk, so the next load gets through all of them). What is not measured in time keeps the
starting point of its architecture.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear
from gemd.worker.diffusion.compute.paths import TRITON_PATH, available_paths, packed_modules
from gemd.worker.diffusion.compute.tiles import Kind, Tile, bucket, candidates, tile_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn

    from gemd.worker.diffusion.compute.fused import Fused

BUDGET_SECONDS: Final = 5.0
REPEATS: Final = 4
"""Timed rounds of a candidate. The shortest counts: what disturbs one makes it longer."""
LAUNCHES: Final = 8
"""Of a round. One after the other they hide how long the host takes to ask for one."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured for one kernel and size.

    Attributes:
        kind: Of the kernel.
        size: Tokens of an expert on average; see `bucket`.
        tile: That is used from here on.
        milliseconds: Of one launch with it.
        first: Of one launch with the starting point, milliseconds.
        tried: Candidates that ran.
        failed: Candidates that this device or compiler refused.

    """

    kind: Kind
    size: int
    tile: Tile
    milliseconds: float
    first: float
    tried: int
    failed: int


@dataclass(frozen=True, slots=True)
class _Job:
    """A kernel on one layer with one number of tokens."""

    kind: Kind
    size: int
    launch: Callable[[Tile], object]


def tune(
    decoder: nn.Module,
    *,
    tokens: Sequence[int],
    k: int,
    budget: float = BUDGET_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Tuned, ...]:
    """Find tiles for the Triton path, and let it use them.

    Does nothing where that path cannot run, and in the interpreter, whose times mean nothing.

    Args:
        decoder: With packed modules; one of each shape is measured.
        tokens: Numbers of tokens to be quick with: canvases times their length.
        k: Experts of a token.
        budget: Seconds after which no further candidate is begun.
        clock: Seconds, from anywhere.

    """
    modules = list(packed_modules(decoder))
    device = next((buffer.device for one in modules for buffer in one.buffers()), None)
    if device is None or device.type != "cuda":
        return ()
    if any(path.name == TRITON_PATH and path.obstacle for path in available_paths(device)):
        return ()
    from gemd.worker.diffusion.compute.fused import FUSED  # noqa: PLC0415 - may be missing

    ends = clock() + budget
    found = []
    jobs = list(_jobs(modules, tokens, k, FUSED, device))
    for left, job in zip(range(len(jobs), 0, -1), jobs, strict=True):
        now = clock()
        until = now + max(0.0, ends - now) / left
        start = tile_for(FUSED.capability(device), job.size)
        result = search(job.launch, job.kind, job.size, start, until, clock, _waiting(device))
        if result is not None:
            FUSED.tiles[job.kind, job.size] = result.tile
            found.append(result)
    return tuple(found)


def search(
    launch: Callable[[Tile], object],
    kind: Kind,
    size: int,
    start: Tile,
    until: float,
    clock: Callable[[], float],
    wait: Callable[[], None],
) -> Tuned | None:
    """The best tile among the candidates; None if not one of them runs.

    Args:
        launch: The kernel with a tile.
        kind: Of the kernel.
        size: See `bucket`.
        start: Where candidates begin; it is tried in any case.
        until: When by the clock no further candidate is begun.
        clock: Seconds.
        wait: Returns when the device is done.

    """
    times: dict[Tile, float] = {}
    failed = 0
    for tile in candidates(start, size):
        if (times or failed) and clock() >= until:
            break
        try:
            times[tile] = _shortest(launch, tile, clock, wait)
        except Exception:  # noqa: BLE001 - too much shared memory, or what else a compiler refuses
            failed += 1
    if not times:
        return None
    best = min(times, key=lambda tile: times[tile])
    first = times.get(start, times[best])
    return Tuned(kind, size, best, times[best], first, len(times), failed)


def _shortest(
    launch: Callable[[Tile], object],
    tile: Tile,
    clock: Callable[[], float],
    wait: Callable[[], None],
) -> float:
    """Milliseconds of a launch, after one that compiles."""
    launch(tile)
    wait()
    times = []
    for _ in range(REPEATS):
        begun = clock()
        for _ in range(LAUNCHES):
            launch(tile)
        wait()
        times.append(1000 * (clock() - begun) / LAUNCHES)
    return min(times)


def _waiting(device: torch.device) -> Callable[[], None]:
    return lambda: torch.cuda.synchronize(device)


def _jobs(
    modules: Iterable[PackedExperts | PackedLinear],
    tokens: Sequence[int],
    k: int,
    fused: Fused,
    device: torch.device,
) -> Iterable[_Job]:
    """One for each kernel, shape and size; what they read is made up."""
    seen: set[tuple[Kind, int]] = set()
    for module in modules:
        for count in tokens:
            groups = module.num_experts if isinstance(module, PackedExperts) else 1
            pairs = count * k if isinstance(module, PackedExperts) else count
            size = bucket(pairs, groups)
            kind: Kind = "gate_up" if isinstance(module, PackedExperts) else "linear"
            # Layers without experts share their tiles, whatever their shape: the first decides.
            if (kind, size) in seen:
                continue
            seen.add((kind, size))
            if isinstance(module, PackedExperts):
                yield from _expert_jobs(module, count, k, size, fused, device)
            else:
                yield _linear_job(module, count, size, device)


def _expert_jobs(
    module: PackedExperts, count: int, k: int, size: int, fused: Fused, device: torch.device
) -> Iterable[_Job]:
    from gemd.worker.diffusion.compute import fused as launches  # noqa: PLC0415 - may be missing

    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, module.hidden_dim, generator=generator).to(device, module.dtype)
    scores = torch.rand(count, module.num_experts, generator=generator)
    shares, chosen = (one.to(device) for one in scores.topk(k))
    shares = shares.to(module.dtype)
    order, bounds, arranged = launches.route(hidden, chosen, module.num_experts)
    yield _Job(
        "gate_up", size, lambda tile: launches.gate_up(module, arranged, order, bounds, k, tile)
    )
    inner = launches.gate_up(
        module, arranged, order, bounds, k, fused.tile("gate_up", size, device)
    )
    yield _Job("down", size, lambda tile: launches.down(module, inner, order, bounds, shares, tile))


def _linear_job(module: PackedLinear, count: int, size: int, device: torch.device) -> _Job:
    from gemd.worker.diffusion.compute import fused as launches  # noqa: PLC0415 - may be missing

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, module.in_features, generator=generator).to(device, module.dtype)
    return _Job("linear", size, lambda tile: launches.linear(module, x, tile))
