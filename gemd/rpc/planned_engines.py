"""Which engines a plan leans on. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.catalog import BLOCK_DIFFUSION
from gemd.catalog.choice import Engines
from gemd.catalog.choice.placing import runs_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.catalog.choice import Memory
    from gemd.engine.builds.build import Build

LLAMA: Final = "llama"
DIFFUSION: Final = "diffusion"
SHIPPED: Final = frozenset({LLAMA, DIFFUSION})
"""Engines of this version that answer for real."""
ELSEWHERE: Final = Engines(SHIPPED, SHIPPED)
"""Those of another machine: whatever it needs can be installed there."""
_CPU: Final = "cpu"
_CUDA: Final = "cuda"


def engines_here(builds: Iterable[Build], memory: Memory) -> Engines:
    """Those of this machine.

    llama.cpp comes with gemd, so that a plan leans on it whether its build for the GPU is there
    yet or not. Torch is large and does not: a plan leans on it where it is installed, and for the
    GPU if there is one that it could use.

    Args:
        builds: The engine builds that are installed.
        memory: With the GPUs that models may be placed on.

    """
    installed: dict[str, set[str]] = {}
    for build in builds:
        if not build.broken:
            # Any build computes on the processor too.
            installed.setdefault(build.engine, set()).update({build.backend, _CPU})
    considered = {LLAMA}
    on_gpu = any(runs_on(BLOCK_DIFFUSION, gpu) for gpu in memory.gpus)
    if DIFFUSION in installed and (not on_gpu or _CUDA in installed[DIFFUSION]):
        considered.add(DIFFUSION)
    return Engines(
        frozenset(considered),
        SHIPPED,
        {name: frozenset(backends) for name, backends in installed.items()},
    )
