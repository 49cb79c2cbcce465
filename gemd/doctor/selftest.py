"""`gemctl doctor --engine`: does an engine compute rightly on this machine? It is run to find out.

In the environment that a worker would get: the same choice among the builds, the same search path,
the same interpreter. No daemon is needed, and no model but one that travels with gemd.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gemd.doctor.compute import rows_of
from gemd.doctor.diagnosis import conclude, failure, failure_of
from gemd.doctor.engine import usable_backends
from gemd.engine.builds.choice import choose_build, install_command
from gemd.engine.builds.selftest import run_selftest
from gemd.engine.builds.shelf import installed_builds
from gemd.engine.builds.verification import answers_of, verify
from gemd.errors import EngineMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.doctor.diagnosis import Diagnosis
    from gemd.doctor.surroundings import Surroundings
    from gemd.engine.builds.build import Build
    from gemd.engine.builds.verification import Verdict

ENGINE: Final = "engine"
_GPU: Final = "cuda"


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What came of it.

    Attributes:
        rows: Of the doctor.
        document: All figures, for a program; empty where there are none beyond the rows.

    """

    rows: tuple[Diagnosis, ...]
    document: Mapping[str, Any] = field(default_factory=dict)


def examine_selftest(around: Surroundings, engine: str, *, tell: Callable[[str], None]) -> SelfTest:
    """Run an engine.

    Args:
        around: Where.
        engine: ``llama`` or ``diffusion``.
        tell: Called with what is being tried.

    Raises:
        CannotCheckError: The settings are wrong.

    """
    usable = usable_backends(around)
    builds = installed_builds(around.paths.engines_dir, root=around.root)
    try:
        build = choose_build(builds, around.settings.engine_backend, usable=usable, engine=engine)
    except EngineMissingError as error:
        return SelfTest((conclude(ENGINE, [failure_of(error)], facts=""),))
    tell(f"the {engine} engine for {build.backend} ({build.installed})")
    if engine == "llama":
        verdict = verify(
            build.path,
            engine=engine,
            backend=build.backend,
            environ=around.environ,
            usable=usable,
        )
        return SelfTest((llama_row(build, verdict),))
    report = run_selftest(
        build.path, device=_device(build, usable), environ=around.environ, tell=tell
    )
    return SelfTest(rows_of(report, build, usable), report.document)


def _device(build: Build, usable: frozenset[str]) -> str:
    """Where workers would compute: a build for a GPU that is not there can use the processor."""
    return _GPU if build.backend == _GPU and _GPU in usable else "cpu"


def llama_row(build: Build, verdict: Verdict) -> Diagnosis:
    """The row of llama.cpp's trial, which is one model on the best device."""
    again = f"{install_command(build.engine, build.backend)} --force"
    problems = [failure(problem, again) for problem in verdict.problems]
    facts = [f"llama.cpp {verdict.trial.version} for {build.backend}", *verdict.trial.devices]
    if not problems:
        facts.append(f"{len(answers_of('llama'))} prompts of a tiny model continued as they should")
    return conclude(ENGINE, problems, facts="; ".join([*facts, *verdict.notes]))
