"""Which build a worker gets, and which backend suits a machine. Pure."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from gemd.engine.builds.build import BACKENDS, Build
from gemd.errors import EngineMissingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

AUTO: Final = "auto"

_DIFFUSION: Final = ("cuda", "cpu")
"""Where DiffusionGemma runs: on NVIDIA GPUs, and on the processor for tests."""
_EPOCH: Final = dt.datetime.fromtimestamp(0, tz=dt.UTC)


def best_backend(usable: Collection[str], engine: str = "llama") -> str:
    """The best backend of a machine whose GPUs can run these; cpu if there are none."""
    able = BACKENDS if engine == "llama" else _DIFFUSION
    return next((name for name in BACKENDS if name in usable and name in able), "cpu")


def choose_build(
    builds: Iterable[Build],
    wanted: str,
    *,
    usable: Collection[str] = (),
    engine: str = "llama",
) -> Build:
    """The build that a worker gets: an installed one before the bundled one, a newer one first.

    Never a build for another device than was asked for: a plan for a GPU does not end on the
    processor in silence. Only a plan for the processor may take a build for a GPU, which can
    compute on the processor too, if there is no other.

    Args:
        builds: What there is; broken ones are passed over, and named in the error.
        wanted: A backend, or ``auto``: the best of `usable` that has a build.
        usable: Backends that the GPUs of this machine can run; none means the processor.
        engine: ``llama`` or ``diffusion``; the latter is built for CUDA and for the processor.

    Raises:
        EngineMissingError: There is none; the advice installs it.

    """
    own = [build for build in builds if build.engine == engine]
    best = best_backend(usable, engine)
    candidates = [wanted]
    if wanted == AUTO:
        candidates = [name for name in BACKENDS if name in usable] or ["cpu"]
        wanted = best
    for backend in candidates:
        if found := _best(build for build in own if build.backend == backend):
            return found
    if wanted == "cpu" and (found := _best(own)):
        return found
    raise _missing(own, wanted, engine)


def _best(builds: Iterable[Build]) -> Build | None:
    sound = [build for build in builds if not build.broken]
    if not sound:
        return None
    return max(sound, key=lambda build: (build.path is not None, build.created or _EPOCH))


def _missing(builds: Iterable[Build], backend: str, engine: str) -> EngineMissingError:
    broken = [build for build in builds if build.broken and build.backend == backend]
    there = sorted({build.backend for build in builds if not build.broken})
    if broken:
        why = "; ".join(f"{build.name}: {build.broken}" for build in broken)
    elif there:
        why = f"what is installed is for {', '.join(there)}"
    else:
        why = "none is installed"
    return EngineMissingError(
        f"there is no {engine} engine for {backend}",
        why=why,
        advice=(install_command(engine, backend), "gemctl engine list"),
        metadata={"engine": engine, "backend": backend, "installed": ",".join(there)},
    )


def install_command(engine: str, backend: str) -> str:
    """What to type to get an engine."""
    other = "" if engine == "llama" else f" --engine {engine}"
    return f"gemctl engine install --backend {backend}{other}"
