"""llama.cpp's own figures for the models of a plan, where a file or its header is at hand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from gemd.catalog.choice import Told, Where
from gemd.engine import probe
from gemd.errors import GemdError
from gemd.wire.probe import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gemd.catalog.choice import Placed
    from gemd.engine.builds.build import Build
    from gemd.wire.probe import Planned

log = structlog.get_logger(__name__)

DISAGREEMENT: Final = 0.02
"""Between the engine's cache and the formula's, beyond which one of them is wrong."""
_KEPT: Final = 64
_HOST: Final = ("CPU", "_Host")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an answer is kept under: a file that is replaced is asked about anew."""

    question: Question
    size_bytes: int
    modified_ns: int
    overlay: Path | None


class EngineFigures:
    """Asks the engine's planner, and remembers what it said.

    Args:
        environ: The daemon's environment.
        builds: The engine builds that are installed.

    """

    def __init__(self, environ: Mapping[str, str], builds: Callable[[], Sequence[Build]]) -> None:
        self._environ = environ
        self._builds = builds
        self._known: dict[_Asked, Planned] = {}

    async def told(self, placed: Placed, file: Path) -> Told | None:
        """What llama.cpp plans for a model in its place; None if it could not be asked.

        Of a backend that is not installed the cache alone is told: it is the same everywhere,
        and serves to check the formula.
        """
        build = self._build(placed)
        whole = build is not None
        question = Question(
            path=str(file),
            context_tokens=placed.context_tokens,
            max_sequences=placed.sequences,
            cache_type=placed.placement.cache_type,
            gpu_layers=placed.placement.gpu_layers if whole else 0,
            host_expert_layers=placed.placement.host_experts if whole else 0,
        )
        try:
            planned = await self._planned(question, file, None if build is None else build.path)
        except (GemdError, OSError) as error:
            log.warning("plan.engine_not_asked", file=str(file), why=str(error))
            return None
        told = _told(placed, planned, whole=whole)
        _cross_check(placed, told)
        return told

    def _build(self, placed: Placed) -> Build | None:
        """The one that would run it; None if there is none for that backend."""
        wanted = "cpu" if placed.where is Where.CPU else placed.backend
        sound = [each for each in self._builds() if each.engine == "llama" and not each.broken]
        of_backend = [each for each in sound if each.backend == wanted]
        if not of_backend and wanted == "cpu":
            of_backend = sound
        return max(of_backend, key=lambda each: each.path is not None, default=None)

    async def _planned(self, question: Question, file: Path, overlay: Path | None) -> Planned:
        found = os.stat(file)  # noqa: PTH116 -- one look, as before every request
        asked = _Asked(question, found.st_size, found.st_mtime_ns, overlay)
        if asked not in self._known:
            [planned] = await probe.plan([question], environ=self._environ, overlay=overlay)
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[asked] = planned
        return self._known[asked]


def _told(placed: Placed, planned: Planned, *, whole: bool) -> Told:
    compute = planned.scratch_bytes("compute")
    on_host = sum(size for name, size in compute.items() if _is_host(name))
    return Told(
        placement=placed.placement,
        context_tokens=placed.context_tokens,
        sequences=placed.sequences,
        kv_cache=planned.kv_bytes,
        host_compute=on_host,
        gpu_compute=sum(compute.values()) - on_host,
        output=sum(planned.scratch_bytes("output").values()),
        whole=whole,
    )


def _is_host(name: str) -> bool:
    """Whether a buffer of ggml's is in main memory: ``CPU``, ``CPU_REPACK``, ``CUDA_Host``."""
    return name.startswith(_HOST[0]) or name.endswith(_HOST[1])


def _cross_check(placed: Placed, told: Told) -> None:
    by_formula = sum(parts.kv_cache for parts in placed.parts.values())
    if abs(told.kv_cache - by_formula) > DISAGREEMENT * max(told.kv_cache, 1):
        log.warning(
            "plan.cache_disagrees",
            model=placed.candidate.profile.id,
            engine_bytes=told.kv_cache,
            formula_bytes=by_formula,
        )
