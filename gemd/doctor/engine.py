"""`engine`: which engine builds there are, which one workers get, and whether it is sound.

Builds are looked at, never imported: a library may crash, and no process but a worker loads it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import conclude, failure, failure_of, warning
from gemd.doctor.words import quoted
from gemd.engine.builds.build import BACKENDS
from gemd.engine.builds.choice import choose_build, install_command
from gemd.engine.builds.shelf import PACKAGES, installed_builds
from gemd.engine.builds.verification import verify
from gemd.errors import EngineMissingError
from gemd.hardware import RAM, SensorBlindError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.surroundings import Errand, Surroundings
    from gemd.engine.builds.build import Build
    from gemd.engine.builds.verification import Verdict

NAME: Final = "engine"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The engine builds.

    Attributes:
        builds: All there are.
        chosen: The one that llama workers get; None if there is none.
        missing: Why there is none; None if there is.
        verdicts: What running the sound ones in processes of their own showed; empty if that was
            not asked for.

    """

    builds: tuple[Build, ...] = ()
    chosen: Build | None = None
    missing: EngineMissingError | None = None
    verdicts: tuple[tuple[Build, Verdict], ...] = ()


def examine_engine(around: Surroundings, errand: Errand) -> Diagnosis:
    """Look and judge; a thorough look also runs each of them."""
    builds = installed_builds(around.paths.engines_dir, root=around.root)
    usable = usable_backends(around)
    chosen, missing = None, None
    try:
        chosen = choose_build(builds, around.settings.engine_backend, usable=usable)
    except EngineMissingError as error:
        missing = error
    verdicts = tuple(_tried(around, errand, builds, usable)) if errand.thorough else ()
    return check_engine(EngineFacts(builds, chosen, missing, verdicts))


def check_engine(facts: EngineFacts) -> Diagnosis:
    """Judge them."""
    seen = []
    if facts.chosen is not None:
        seen.append(f"workers get {_shown(facts.chosen)}")
    others = [_shown(each) for each in _sound(facts) if each is not facts.chosen]
    if others:
        seen.append(f"also there: {', '.join(others)}")
    for build, verdict in facts.verdicts:
        if not verdict.problems:
            seen.append("; ".join([f"{build.name} ran and answered as it should", *verdict.notes]))
    return conclude(NAME, _findings(facts), facts="; ".join(seen))


def _sound(facts: EngineFacts) -> list[Build]:
    return [build for build in facts.builds if not build.broken]


def _findings(facts: EngineFacts) -> Iterator[Finding]:
    if facts.missing is not None:
        if any(build.engine == "llama" for build in _sound(facts)):
            # What there is can still compute, on the processor.
            yield warning(str(facts.missing), *facts.missing.advice)
        else:
            yield failure_of(facts.missing)
    for build in facts.builds:
        if build.broken:
            yield warning(f"{build.name} cannot be used: {build.broken}", _instead_of(build))
    for build, verdict in facts.verdicts:
        for problem in verdict.problems:
            yield failure(f"{build.name}: {problem}", f"{_instead_of(build)} --force")


def _instead_of(build: Build) -> str:
    """What puts a sound one in its place, or takes one away that nobody knows what it is."""
    if build.backend not in BACKENDS and build.path is not None:
        return f"rm -r {quoted(build.path)}"
    return install_command(build.engine, build.backend)


def _shown(build: Build) -> str:
    return f"{build.engine} {build.version} for {build.backend} ({build.installed})"


def _tried(
    around: Surroundings, errand: Errand, builds: tuple[Build, ...], usable: frozenset[str]
) -> Iterator[tuple[Build, Verdict]]:
    for build in builds:
        if not build.broken:
            errand.stop.check()
            yield (
                build,
                verify(
                    build.path,
                    engine=build.engine,
                    backend=build.backend,
                    environ=around.environ,
                    usable=usable,
                ),
            )


def usable_backends(around: Surroundings) -> frozenset[str]:
    """What the real GPUs of this machine can run; nothing where no sensor says so."""
    try:
        sample = around.sample()
    except SensorBlindError:
        return frozenset()
    return frozenset(
        backend
        for device in sample.devices
        if device.device != RAM and not device.simulated and not device.unusable_reason
        for backend in device.backends
    )


def cpu_library(around: Surroundings) -> Path | None:
    """The file with the kernels for the processor that workers use; None if there is none."""
    builds = installed_builds(around.paths.engines_dir, root=around.root)
    try:
        build = choose_build(builds, around.settings.engine_backend, usable=usable_backends(around))
    except EngineMissingError:
        return None
    folder = _bundled_folder() if build.path is None else build.path / PACKAGES["llama"]
    names = [] if folder is None else sorted((folder / "lib").glob("libggml-cpu*"))
    return names[0] if names else None


def _bundled_folder() -> Path | None:
    spec = importlib.util.find_spec(PACKAGES["llama"])
    places = None if spec is None else spec.submodule_search_locations
    return Path(next(iter(places))) if places else None
