"""`gemctl engine` as a real process, against an index of engines on this machine."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import signal
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from unittest import mock

import psutil
import pytest

from gemd.cli.engine import _BACKENDS, _ENGINES
from gemd.cli.engine_output import teller
from gemd.cli.failures import Exit
from gemd.cli.output import Output
from gemd.cli.progress import Progress
from gemd.engine.builds import BACKENDS, ENGINES, installed_builds
from gemd.engine.builds.build import folder_name, python_tag
from gemd.engine.builds.installing import Notice
from gemd.engine.builds.looking import Gpus
from tests.conftest import INDEX_SETTINGS
from tests.support.build_machines import gpu
from tests.support.engine_wheel import (
    BINDING,
    FORGETFUL,
    VERSION,
    WHEEL,
    EngineIndex,
    copy_engine,
    engine_sdist,
    engine_wheel,
    shifted,
)
from tests.support.file_server import Fine, Stall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.gemctl import Gemctl, Inside

NAME = folder_name("llama", "cpu", VERSION, python_tag())
CPU = ("engine", "install", "--backend", "cpu")


@pytest.fixture
def index() -> Iterator[EngineIndex]:
    """An index of engines that holds none yet, and no source either."""
    with EngineIndex() as running:
        yield running


@pytest.fixture
def settings(index: EngineIndex) -> dict[str, str]:
    """Variables that make it the only index."""
    return {
        "GEMD_ENGINE_INDEX": index.engines,
        "PIP_INDEX_URL": index.simple,
        "PIP_CONFIG_FILE": os.devnull,
    }


@pytest.fixture
def engines(home: Path) -> Path:
    """Where engines of this home are."""
    return home / ".local" / "share" / "gemd" / "engines"


class Terminal(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, *, is_tty: bool) -> None:
        super().__init__()
        self.is_tty = is_tty

    def isatty(self) -> bool:
        """As it was told."""
        return self.is_tty


def left_over(engines: Path) -> list[str]:
    """What an installation has left behind besides builds, its lock and its logs."""
    return [path.name for path in engines.iterdir() if path.name.startswith((".work", ".old"))]


def test_an_engine_is_installed_listed_verified_and_removed(
    inside: Inside, index: EngineIndex, settings: dict[str, str], engines: Path
) -> None:
    """The whole life of a build, with the files of the llama.cpp that is installed here."""
    index.add_engine("cpu", engine_wheel())

    done = inside(*CPU, "--yes", "--json", **settings)

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)["build"]
    assert document["name"] == NAME
    assert (document["backend"], document["installed"]) == ("cpu", "prebuilt")
    assert document["commit"].startswith("0c1e570")
    assert "prebuilt: 200 MiB of disk" in done.stderr
    assert f"--index-url {index.engines}/cpu llama-cpp-python=={VERSION}" in done.stderr
    assert "computes rightly" in done.stderr
    assert (engines / NAME / "llama_cpp" / "lib").is_dir()
    assert left_over(engines) == []

    again = inside(*CPU, "--yes", **settings)
    assert (again.returncode, again.stdout) == (0, "")
    assert f"the llama engine for cpu is there already: {NAME}" in again.stderr

    listed = json.loads(inside("engine", "list", "--json", **settings).stdout)["engines"]
    assert [(one["name"], one["engine"], one["chosen"]) for one in listed] == [
        (NAME, "llama", True),
        ("bundled", "llama", False),
        ("bundled", "diffusion", True),
    ]
    table = inside("engine", "list", **settings).stdout.splitlines()
    assert table[0].split()[:3] == ["ENGINE", "BACKEND", "VERSION"]
    assert table[1].split()[:3] == ["*", "llama", "cpu"]

    checked = json.loads(inside("engine", "verify", "--json", **settings).stdout)["verdicts"]
    assert [(one["name"], one["passed"]) for one in checked] == [(NAME, True), ("bundled", True)]

    removed = inside("engine", "remove", "cpu", "--yes", "--json", **settings)
    assert json.loads(removed.stdout)["freed_bytes"] > 1_000_000
    assert not (engines / NAME).exists()
    assert left_over(engines) == []
    missing = inside("engine", "remove", "cpu", "--yes", **settings)
    assert missing.returncode == Exit.NOT_FOUND


def broken_binding(kind: str) -> bytes:
    """A wheel that loads and must not be used."""
    patch = shifted if kind == "shifted" else lambda content: content + FORGETFUL.encode()
    return engine_wheel({BINDING: patch})


@pytest.mark.parametrize(
    "kind,says",
    [
        ("shifted", "default parameters read wrongly"),
        ("forgetful", "it computes wrongly"),
    ],
)
def test_a_wheel_that_answers_wrongly_is_refused(
    inside: Inside,
    index: EngineIndex,
    settings: dict[str, str],
    engines: Path,
    kind: str,
    says: str,
) -> None:
    """It imports, loads and answers; the trial tells what is wrong, and nothing is installed."""
    index.add_engine("cpu", broken_binding(kind))

    done = inside(*CPU, "--yes", "--from", "prebuilt", **settings)

    assert done.returncode == Exit.PRECONDITION
    assert says in done.stderr
    assert f"  try: less {engines}/logs/{NAME}.log\n" in done.stderr
    assert {one.name for one in installed_builds(engines)} == {"bundled"}
    assert left_over(engines) == []


def test_damaged_bytes_are_refused(
    inside: Inside, index: EngineIndex, settings: dict[str, str], engines: Path
) -> None:
    """A wheel whose bytes are not those that the index promised: pip's own check is on."""
    index.add_engine("cpu", engine_wheel())
    file = f"/files/cpu/{WHEEL}"
    index.files[file] = index.files[file][:-1000] + b"\0" * 1000

    done = inside(*CPU, "--yes", "--from", "prebuilt", **settings)

    assert done.returncode == Exit.PRECONDITION
    assert "DO NOT MATCH THE HASHES" in (engines / "logs" / f"{NAME}.log").read_text()
    assert left_over(engines) == []


def test_source_with_another_hash_is_not_compiled(
    inside: Inside, index: EngineIndex, settings: dict[str, str], tmp_path: Path
) -> None:
    """An index that offers another source under the same version never gets to run its build."""
    witness = tmp_path / "ran"
    index.add_source(engine_sdist(f"open({str(witness)!r}, 'w')"))

    done = inside(*CPU, "--yes", "--from", "source", **settings)

    assert done.returncode == Exit.PRECONDITION
    assert "HASHES" in done.stderr
    assert not witness.exists()


def test_nobody_is_asked_without_a_terminal(
    inside: Inside, settings: dict[str, str], engines: Path
) -> None:
    """A script has to say --yes; what would be done is shown first."""
    done = inside(*CPU, **settings)

    assert done.returncode == Exit.USAGE
    assert f"the llama engine for cpu, into {engines}" in done.stderr
    assert "  try: gemctl engine install --backend cpu --yes\n" in done.stderr
    assert not engines.exists()
    compiled = inside(*CPU, "--from", "source", CMAKE_BUILD_PARALLEL_LEVEL="1", **settings)
    assert "  try: gemctl engine install --backend cpu --from source --yes\n" in compiled.stderr
    assert "about 11m 0s (compilers at once: 1)" in compiled.stderr


def test_a_no_changes_nothing(gemctl: Gemctl, settings: dict[str, str], engines: Path) -> None:
    """On a terminal the plan is shown and a question asked."""
    typed: list[bool] = []

    def react(seen: str, write: Callable[[str], None]) -> None:
        if "Install it? [Y/n]" in seen and not typed:
            typed.append(True)
            write("n\n")

    code, seen = gemctl.on_terminal(*CPU, react=react, **settings)

    assert code == Exit.FAILURE
    assert "nothing was changed" in seen
    assert not engines.exists()


def test_a_backend_that_this_machine_cannot_have_says_how_to_get_it(
    inside: Inside, settings: dict[str, str]
) -> None:
    """Metal on Linux: no way, and the reason of each."""
    if sys.platform == "darwin":
        pytest.skip("a Mac can have it")
    done = inside("engine", "install", "--backend", "metal", "--yes", **settings)

    assert done.returncode == Exit.PRECONDITION
    assert done.stderr.startswith("error: the llama engine for metal cannot be installed")
    assert "Metal is Apple's" in done.stderr


def test_a_machine_without_a_gpu_has_what_it_needs(inside: Inside, engines: Path) -> None:
    """Where nothing special is asked for, the bundled build for the processor is enough."""
    with mock.patch("gemd.engine.builds.looking.gpus_here", return_value=Gpus()):
        done = inside("engine", "install")
    assert done.returncode == 0
    assert done.stderr.startswith("the llama engine for cpu is there already: bundled\n")
    assert not engines.exists()


def test_auto_is_the_best_that_the_gpu_can_run(inside: Inside) -> None:
    """A machine with a GPU does not have what it needs; the command names what it would get."""
    card = gpu("gpu0", "nvidia", "8.9", ("cuda", "vulkan"))
    with mock.patch("gemd.engine.builds.looking.gpus_here", return_value=Gpus((card,))):
        done = inside("engine", "install", GEMD_OFFLINE="1")
    assert done.returncode == Exit.PRECONDITION
    assert "  try: GEMD_OFFLINE=false gemctl engine install --backend cuda\n" in done.stderr


def test_the_options_name_every_engine_and_backend() -> None:
    """They are written twice: help does not import what the builds need."""
    assert (_ENGINES, _BACKENDS) == (ENGINES, BACKENDS)


def test_offline_means_offline(inside: Inside, settings: dict[str, str]) -> None:
    """The setting that forbids the network forbids this too, and says where it comes from."""
    done = inside(*CPU, "--yes", GEMD_OFFLINE="1", **settings)

    assert done.returncode == Exit.PRECONDITION
    assert "the setting offline is on (GEMD_OFFLINE)" in done.stderr
    assert "  try: GEMD_OFFLINE=false gemctl engine install --backend cpu\n" in done.stderr


def test_verify_knows_the_bundled_build(inside: Inside) -> None:
    """The engine in gemd's own environment is tried like any other."""
    done = inside("engine", "verify")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:2] == ["bundled", "cpu"]
    assert inside("engine", "verify", "hip").returncode == Exit.NOT_FOUND


def test_a_build_whose_record_was_lost_is_told_and_removed(
    inside: Inside, settings: dict[str, str], engines: Path
) -> None:
    """One that somebody copied there by hand; nobody knows what it is for."""
    copy_engine(engines / "llama-mine")

    verified = inside("engine", "verify", "llama-mine", **settings)
    assert verified.returncode == Exit.PRECONDITION
    assert "engine.json cannot be used" in verified.stderr
    assert "  try: gemctl engine remove llama-mine\n" in verified.stderr
    unsure = inside("engine", "remove", "llama-mine", "--engine", "diffusion", **settings)
    assert "  try: gemctl engine remove llama-mine --engine diffusion --yes\n" in unsure.stderr
    removed = inside("engine", "remove", "llama-mine", "--yes", **settings)
    assert removed.returncode == 0, removed.stderr
    assert not (engines / "llama-mine").exists()


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],
)
def test_an_interrupted_install_leaves_nothing(
    gemctl: Gemctl,
    index: EngineIndex,
    settings: dict[str, str],
    engines: Path,
    number: signal.Signals,
) -> None:
    """Ctrl-C, the end of a service or of a terminal: every process ends, no file is left."""
    index.add_engine("cpu", engine_wheel())
    # The page comes whole, the wheel never does.
    index.fault(Fine(), Stall(100_000))
    # Under nohup the tests would hand on a SIGHUP that is ignored, and an install respects that.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        process = gemctl.start(*CPU, "--yes", **settings)
    finally:
        signal.signal(number, before)
    assert index.reached.wait(60)

    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == Exit.INTERRUPTED, stderr
    assert left_over(engines) == []
    running = [one.info["cmdline"] for one in psutil.process_iter(["cmdline"])]
    assert not [line for line in running if str(engines) in " ".join(line or ())]


def test_a_compile_is_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    """With the time that is left, from the pace so far; a step without a count stays."""
    shown: dict[bool, str] = {}
    for is_tty in (True, False):
        stderr = Terminal(is_tty=is_tty)
        output = Output(io.StringIO(), stderr, {"TERM": "xterm", "NO_COLOR": "1"})
        clock = partial(next, itertools.count(0, 10))
        with Progress(output, clock=clock) as progress:
            tell = teller(progress, clock=clock)
            tell(Notice("compile", "compiling llama-cpp-python"))
            for done in (1, 167, 335):
                tell(Notice("compile", "compiling llama.cpp", done, 335))
        shown[is_tty] = stderr.getvalue()
    assert "compiling llama-cpp-python\n" in shown[True]
    assert "compiling llama.cpp  [###########.............]   49 %" in shown[True]
    assert shown[False].splitlines()[1].startswith("compiling llama.cpp    0 %  ")
    assert re.search(r"49 %  .* left$", shown[False], re.MULTILINE)
    assert shown[False].splitlines()[-1] == "compiling llama.cpp  100 %"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_real_source_is_compiled_for_this_processor(
    gemctl: Gemctl, home: Path, engines: Path
) -> None:
    """From the user's own index, as it is published: 6 to 10 minutes on two cores."""
    user = {
        **INDEX_SETTINGS,
        **{key: os.environ[key] for key in os.environ if key.startswith("PIP_")},
    }
    command = replace(gemctl, patience=1700)

    done = command(*CPU, "--from", "source", "--yes", "--json", **user)

    if "No matching distribution" in done.stderr:
        pytest.skip("no package index here")
    assert done.returncode == 0, done.stderr
    build = json.loads(done.stdout)["build"]
    assert (build["installed"], build["name"]) == ("source", NAME)
    assert build["commit"].startswith("0c1e570")
    assert "compiling llama.cpp  100 %" in done.stderr
    assert installed_builds(engines)[0].broken == ""
    assert left_over(engines) == []
    verified = gemctl("engine", "verify", "cpu", "--json")
    assert [one["passed"] for one in json.loads(verified.stdout)["verdicts"]] == [True, True]
