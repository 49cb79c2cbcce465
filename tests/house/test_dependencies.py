"""What the program needs is what `pyproject.toml` says, and the other way round."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from gemd.engine.builds.build import PINNED

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    """The names of what is required."""
    return {normal(re.split(r"[<>=!~\[ ;]", each, maxsplit=1)[0]) for each in requirements}


@functools.cache
def imported() -> dict[str, str]:
    """Top-level modules of others that the program imports, each with one that does."""
    found = {}
    for path in sorted((ROOT / "gemd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                found[name.partition(".")[0]] = str(path.relative_to(ROOT))
    return {
        name: where
        for name, where in found.items()
        if name != "gemd" and name not in sys.stdlib_module_names
    }


@functools.cache
def distributions() -> dict[str, set[str]]:
    """The distributions of this environment that a top-level module may come from."""
    return {
        module: {normal(name) for name in names}
        for module, names in packages_distributions().items()
    }


def test_everything_that_is_imported_is_declared() -> None:
    """Nothing works by the accident of coming along with something else."""
    known = distributions()
    required = declared(PROJECT["dependencies"])
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra != "dev":
            required |= declared(requirements)
    undeclared = {
        name: where for name, where in imported().items() if not known.get(name, {name}) & required
    }
    assert not undeclared


def test_everything_that_is_declared_is_imported() -> None:
    """A user installs, and an idle daemon carries, nothing that nobody uses."""
    used = set().union(*(distributions().get(name, set()) for name in imported()))
    assert declared(PROJECT["dependencies"]) <= used


def test_the_tests_install_the_diffusion_engine_with_one_torch() -> None:
    """A range would take gigabytes of CUDA where one version has a build without it."""
    extras = PROJECT["optional-dependencies"]
    assert not declared(extras["dev"]) & declared(extras["diffusion"])
    check = (ROOT / "tests" / "check").read_text(encoding="utf-8")
    assert "--editable '.[dev,diffusion]'" in check
    assert f"torch=={PINNED['diffusion']}" in check


def test_a_mac_installs_no_engine_for_diffusion() -> None:
    """Nothing of the extra is among what everybody gets."""
    extra = declared(PROJECT["optional-dependencies"]["diffusion"])
    assert not extra & declared(PROJECT["dependencies"])
