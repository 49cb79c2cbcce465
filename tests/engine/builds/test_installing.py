"""Installing for real, in this process: what fails leaves the engine that works in place."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gemd.engine.builds import Build, installed_builds
from gemd.engine.builds.facts import Facts
from gemd.engine.builds.folder import only_writer
from gemd.engine.builds.installers import Installer, find_installers
from gemd.engine.builds.installing import Notice, install, remove
from gemd.engine.builds.recipes import Way, ways
from gemd.errors import DiskFullError, EngineMissingError, OperationConflictError
from gemd.quantities import MIB
from tests.support.engine_wheel import EngineIndex, engine_sdist, engine_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FACTS = Facts(cores=1, free_bytes=100_000 * MIB, features=frozenset({"avx2", "sse2"}))
FAILING_BUILD = """
def build_wheel(*_, **__):
    print("[1/3] Building C object a.o", flush=True)
    print("[2/3] Building CXX object b.o", flush=True)
    print("b.cpp:7:3: error: 'vk::LayerSettingEXT' has not been declared", flush=True)
    raise SystemExit(1)
"""


@pytest.fixture
def index() -> Iterator[EngineIndex]:
    """An empty index."""
    with EngineIndex() as running:
        yield running


def environ(index: EngineIndex) -> dict[str, str]:
    """Of a user who has only this index."""
    return {
        "PATH": os.environ["PATH"],
        "PIP_INDEX_URL": index.simple,
        "PIP_CONFIG_FILE": os.devnull,
    }


def found(index: EngineIndex, kind: str, *, sha256: str = "") -> list[Way]:
    """The ways of a kind to the processor's engine.

    Args:
        index: Where wheels are.
        kind: ``prebuilt`` or ``source``.
        sha256: Of the source, in place of the real one's.

    """
    everything = ways(
        "llama",
        "cpu",
        replace(FACTS, compiler=None),
        environ={},
        wheel_index=index.engines,
        torch_index="http://127.0.0.1:9",
    )
    chosen = []
    for way in everything:
        if way.kind != kind:
            continue
        (step,) = way.steps
        if sha256:
            line = f"{step.requirements[0].partition(':')[0]}:{sha256}"
            step = replace(step, requirements=(line,))
        chosen.append(replace(way, steps=(step,), obstacle="", fix=()))
    return chosen


def installed(
    engines: Path, index: EngineIndex, chosen: list[Way], told: list[Notice] | None = None
) -> Build:
    """Install by these ways."""
    return install(
        engines,
        chosen,
        find_installers(environ(index)),
        environ=environ(index),
        facts=FACTS,
        tell=(told if told is not None else []).append,
    ).build


def clumsy() -> Installer:
    """An installer that leaves half of something and fails."""
    script = 'while [ "$1" != --target ]; do shift; done; mkdir -p "$2/left"; echo oops; exit 1'
    return Installer("clumsy", ("/bin/sh", "-c", script, "sh"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Installed once, where an installer failed first, and for a user with a pip.conf."""
    folder = tmp_path_factory.mktemp("made")
    settings = folder / "pip.conf"
    settings.write_text("[install]\nuser = true\n")
    with EngineIndex() as index:
        index.add_engine("cpu", engine_wheel())
        user = {**environ(index), "PIP_CONFIG_FILE": str(settings)}
        return install(
            folder / "engines",
            found(index, "prebuilt"),
            [clumsy(), *find_installers(user)],
            environ=user,
            facts=FACTS,
            tell=lambda _: None,
        ).build


def test_a_failing_compile_leaves_the_working_engine(
    made: Build, tmp_path: Path, index: EngineIndex
) -> None:
    """The error has the compiler's own words, the log all of them; the progress was shown."""
    assert made.path is not None
    shutil.copytree(made.path.parent, tmp_path, dirs_exist_ok=True)
    working = installed_builds(tmp_path)[0]
    assert working.path == tmp_path / made.name
    digest = index.add_source(engine_sdist(FAILING_BUILD))
    told: list[Notice] = []

    with pytest.raises(EngineMissingError) as caught:
        installed(tmp_path, index, found(index, "source", sha256=digest), told)

    assert "'vk::LayerSettingEXT' has not been declared" in caught.value.why
    log = tmp_path / "logs" / f"{working.name}.log"
    assert caught.value.advice[0] == f"less {log}"
    assert "[2/3] Building CXX object b.o" in log.read_text()
    assert [(step.current, step.total) for step in told if step.total] == [(1, 3), (2, 3)]
    assert installed_builds(tmp_path)[0] == working
    assert not list(tmp_path.glob(".work*"))


def test_a_source_is_built_and_its_record_says_how(tmp_path: Path, index: EngineIndex) -> None:
    """A build backend that packs the files of this environment plays the compiler.

    The record has the flags, and the instruction sets that a native build may use.
    """
    wheel = tmp_path / "made.whl"
    wheel.write_bytes(engine_wheel())
    backend = f"""
import os, shutil
def build_wheel(directory, *_, **__):
    assert os.environ["CMAKE_BUILD_PARALLEL_LEVEL"] == "1"
    name = "llama_cpp_python-0.3.36-py3-none-any.whl"
    shutil.copy({str(wheel)!r}, os.path.join(directory, name))
    return name
"""
    digest = index.add_source(engine_sdist(backend))
    (way,) = found(index, "source", sha256=digest)
    way = replace(way, environ={**way.environ, "CMAKE_ARGS": "-DGGML_BLAS=OFF"})

    build = installed(tmp_path / "engines", index, [way])

    assert installed_builds(tmp_path / "engines")[0] == build
    assert (build.installed, build.flags) == ("source", "-DGGML_BLAS=OFF")
    assert build.cpu_flags == {"avx2"}
    assert build.commit.startswith("0c1e570")
    assert build.ggml_version
    assert build.devices[0].startswith("CPU")


def test_the_next_way_is_gone_if_one_fails(tmp_path: Path, index: EngineIndex) -> None:
    """A wheel that is not there, then one that is: told, and installed."""
    missing = replace(found(index, "prebuilt")[0])
    index.add_engine("cpu", engine_wheel())
    (step,) = missing.steps
    missing = replace(missing, steps=(replace(step, index=f"{index.url}/nothing"),))
    blocked = replace(missing, obstacle="there is no driver")
    told: list[Notice] = []

    build = installed(tmp_path, index, [blocked, missing, *found(index, "prebuilt")], told)

    assert installed_builds(tmp_path)[0] == build
    (failed,) = [step for step in told if step.phase == "failed"]
    assert failed.text.startswith("prebuilt: Could not find a version that satisfies")


def test_it_works_without_a_pip_module(
    tmp_path: Path, index: EngineIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in environments of uv and pipx: with the pip inside ensurepip."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else real(name)
    )
    index.add_engine("cpu", engine_wheel())

    build = installed(tmp_path, index, found(index, "prebuilt"))

    assert "_bundled" in (tmp_path / "logs" / f"{build.name}.log").read_text()
    assert (tmp_path / build.name / "llama_cpp" / "llama_cpp.py").is_file()


def test_a_user_whose_pip_installs_for_the_user(made: Build) -> None:
    """As many a pip.conf says, which contradicts a target directory."""
    assert made.path is not None
    assert installed_builds(made.path.parent)[0] == made


def test_a_crash_of_pip_is_told_by_its_exception(tmp_path: Path, index: EngineIndex) -> None:
    """As in a home whose name is not UTF-8: the last line of the traceback says what it was."""
    index.add_engine("cpu", engine_wheel())
    engines = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(EngineMissingError) as caught:
        installed(engines, index, found(index, "prebuilt"))
    assert caught.value.why.startswith("prebuilt: UnicodeEncodeError: ")


def test_a_disk_that_fills_up_is_not_blamed_on_pip(
    tmp_path: Path, index: EngineIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log cannot be written on: no other way is tried."""

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gemd.engine.builds.installing.run", full)
    with pytest.raises(DiskFullError, match="cannot write"):
        installed(tmp_path, index, found(index, "prebuilt"))
    assert not list(tmp_path.glob(".work*"))


def test_what_one_installer_leaves_the_next_one_does_not_install(made: Build) -> None:
    """A wheel is fetched by whoever can; a build is all of one's making."""
    assert made.path is not None
    assert (made.path / "llama_cpp").is_dir()
    assert not (made.path / "left").exists()
    # Somebody else's processor compiled it: nothing says that it needs all that this one has.
    assert made.cpu_flags == frozenset()


def test_nothing_is_compiled_twice(tmp_path: Path, index: EngineIndex) -> None:
    """A compile of half an hour that failed would fail by another installer too."""
    told: list[Notice] = []
    with pytest.raises(EngineMissingError, match="source: oops"):
        install(
            tmp_path,
            found(index, "source"),
            [clumsy(), clumsy()],
            environ={},
            facts=FACTS,
            tell=told.append,
        )
    assert [step.phase for step in told] == ["compile", "failed"]


def test_without_any_installer_it_says_so(tmp_path: Path, index: EngineIndex) -> None:
    """And not that pip failed."""
    with pytest.raises(EngineMissingError, match="neither pip nor uv"):
        install(
            tmp_path,
            found(index, "prebuilt"),
            [],
            environ={},
            facts=FACTS,
            tell=lambda _: None,
        )


def test_one_installation_at_a_time(tmp_path: Path, index: EngineIndex) -> None:
    """The second one changes nothing, nor does a removal."""
    with only_writer(tmp_path):
        with pytest.raises(OperationConflictError):
            installed(tmp_path, index, found(index, "prebuilt"))
        build = Build(engine="llama", backend="cpu", version="x", path=tmp_path / "llama-cpu")
        with pytest.raises(OperationConflictError):
            remove(tmp_path, build)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
