"""`python`: the interpreter, and whether gemd's dependencies are there in versions that will do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gemd.doctor.diagnosis import conclude, failure, warning
from gemd.doctor.requirements import allows, parse_requirement
from gemd.doctor.words import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.doctor.diagnosis import Diagnosis, Finding
    from gemd.doctor.requirements import Requirement
    from gemd.doctor.surroundings import Errand, Surroundings

NAME: Final = "python"
ENGINE: Final = "llama-cpp-python"
"""Has a check of its own."""
IMPORT_S: Final = 60.0
"""For importing everything in a process of its own, on a slow disk."""

MODULES: Final = {
    "apscheduler": "apscheduler",
    "click": "click",
    "googleapis-common-protos": "google.rpc",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "grpcio-status": "grpc_status",
    "h11": "h11",
    "hf-xet": "hf_xet",
    "httpx2": "httpx2",
    "huggingface-hub": "huggingface_hub",
    "jinja2": "jinja2",
    "numpy": "numpy",
    "nvidia-ml-py": "pynvml",
    "prometheus-client": "prometheus_client",
    "prompt-toolkit": "prompt_toolkit",
    "protobuf": "google.protobuf",
    "psutil": "psutil",
    "pydantic": "pydantic",
    "pydantic-core": "pydantic_core",
    "structlog": "structlog",
    "truststore": "truststore",
    "tzlocal": "tzlocal",
}
"""The module that each dependency is there for."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A distribution that gemd needs.

    Attributes:
        name: Of the distribution.
        specifier: Versions that will do.
        version: The one that is installed; empty if none is.
        importable: Whether its module can be found.
        problem: What importing it failed with; empty if it was not tried or went well.

    """

    name: str
    specifier: str = ""
    version: str = ""
    importable: bool = True
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PythonFacts:
    """The interpreter and what gemd needs of it.

    Attributes:
        executable: Its path.
        version: Such as ``3.12.1``.
        wanted: Versions of Python that gemd allows; empty if its metadata is missing.
        bits: Of a pointer.
        implementation: Such as ``CPython``.
        dependencies: All that gemd needs.
        has_pip: Whether the interpreter has pip; those of uv and pipx have not.
        installed: Whether gemd is installed as a distribution, so that its ranges are known.

    """

    executable: str
    version: str
    wanted: str = ""
    bits: int = 64
    implementation: str = "CPython"
    dependencies: tuple[Dependency, ...] = ()
    has_pip: bool = True
    installed: bool = True


def examine_python(_: Surroundings, errand: Errand) -> Diagnosis:
    """Look and judge; a thorough look imports every dependency in a process of its own."""
    needed, wanted, installed = _needed()
    broken = _import_all(needed) if errand.thorough else {}
    return check_python(
        PythonFacts(
            executable=sys.executable,
            version=platform.python_version(),
            wanted=wanted,
            bits=64 if sys.maxsize > 2**32 else 32,
            implementation=platform.python_implementation(),
            dependencies=tuple(_dependency(each, broken) for each in needed),
            has_pip=is_importable("pip"),
            installed=installed,
        )
    )


def check_python(facts: PythonFacts) -> Diagnosis:
    """Judge it."""
    seen = f"{facts.implementation} {facts.version}, {facts.bits} bits, {facts.executable}"
    if facts.dependencies:
        seen += f"; dependencies: {len(facts.dependencies)}"
    return conclude(NAME, _findings(facts), facts=seen)


def _findings(facts: PythonFacts) -> Iterator[Finding]:
    if facts.wanted and allows(facts.wanted, facts.version) is False:
        yield failure(
            f"Python {facts.version} is not within {facts.wanted}",
            "install gemd under a newer Python: uv tool install --python 3.12 gemd",
        )
    if facts.bits != 64:  # noqa: PLR2004 - the other width there is
        yield failure(
            f"Python has {facts.bits} bits: no model of more than 2 GiB can be mapped",
            "install a 64-bit Python",
        )
    if not facts.installed:
        yield warning(
            "gemd is not installed as a distribution, so that the versions it needs are unknown",
            "pip install gemd",
        )
    executable = quoted(facts.executable)
    pip, again = f"{executable} -m pip install", "--force-reinstall"
    if not facts.has_pip:
        pip, again = f"uv pip install --python {executable}", "--reinstall"
    for each in facts.dependencies:
        wanted = f"{each.name}{each.specifier}"
        if not each.version:
            yield failure(f"{each.name} is not installed", f"{pip} {quoted(wanted)}")
        elif not each.importable or each.problem:
            why = each.problem or "its module cannot be found"
            yield failure(
                f"{each.name} {each.version} cannot be imported: {why}",
                f"{pip} {again} {quoted(wanted)}",
            )
        elif allows(each.specifier, each.version) is False:
            yield warning(
                f"{each.name} {each.version} is not within {each.specifier}",
                f"{pip} {quoted(wanted)}",
            )


def requirements_of_gemd() -> tuple[Requirement, ...]:
    """What gemd always needs, as its metadata says; nothing if it is not installed."""
    try:
        lines = importlib.metadata.requires("gemd") or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    parsed = map(parse_requirement, lines)
    return tuple(each for each in parsed if each is not None and not each.marker)


def version_of(distribution: str) -> str:
    """The version that is installed; empty if none is."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _needed() -> tuple[list[tuple[str, str]], str, bool]:
    """Name and range of each dependency, the range of Python, and whether they are known."""
    try:
        wanted = str(importlib.metadata.metadata("gemd").json.get("requires_python", ""))
    except importlib.metadata.PackageNotFoundError:
        return [(name, "") for name in MODULES], "", False
    ranges = {_normal(each.name): each.specifier for each in requirements_of_gemd()}
    # An environment that was set up for an older gemd knows nothing of a newer dependency.
    names = sorted((MODULES.keys() | ranges.keys()) - {ENGINE})
    return [(name, ranges.get(name, "")) for name in names], wanted, True


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _dependency(needed: tuple[str, str], broken: dict[str, str]) -> Dependency:
    name, specifier = needed
    module = MODULES.get(name, "")
    return Dependency(
        name=name,
        specifier=specifier,
        version=version_of(name),
        importable=not module or is_importable(module),
        problem=broken.get(module, ""),
    )


def is_importable(module: str) -> bool:
    """Whether the module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


_IMPORTER: Final = """\
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(name, text, sep="\\t")
"""


def _import_all(needed: list[tuple[str, str]]) -> dict[str, str]:
    """What importing each module failed with, tried in another process: none is loaded here."""
    modules = [MODULES[name] for name, _ in needed if name in MODULES]
    found = [module for module in modules if is_importable(module)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _IMPORTER, *found],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=IMPORT_S,
    )
    broken = dict(line.split("\t", 1) for line in done.stdout.splitlines() if line.count("\t") == 1)
    if done.returncode:
        # A native part that crashes takes the process with it; which one, nobody says.
        broken.setdefault(found[0], f"the process that imported all ended with {done.returncode}")
    return broken
