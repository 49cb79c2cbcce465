"""The programs that can install a package into a directory, and their commands.

Environments of uv and pipx have no pip module; the pip inside ensurepip works there too.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.engine.builds.recipes import Step

_PATIENCE: Final = ("--retries", "2", "--timeout", "30")
"""An index that does not answer is given up, and the next way tried."""
_RAW_BAR_SINCE: Final = (24, 1)
_PRIVATE: Final = frozenset({"HF_TOKEN", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP"})
_IN_THE_WAY: Final = frozenset(
    {"PIP_DRY_RUN", "PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET", "PIP_USER"}
)
"""Settings of the user's that contradict a target directory for this interpreter."""
_OURS: Final = {"PYTHONNOUSERSITE": "1", "PIP_USER": "0"}
"""The second is for pip's file of settings, which variables beat."""


@dataclass(frozen=True, slots=True)
class Installer:
    """A program that installs packages.

    Attributes:
        name: For people.
        command: Its arguments up to the options of a step.
        is_uv: Whether it is uv, whose options have other names.

    """

    name: str
    command: tuple[str, ...]
    is_uv: bool = False

    def arguments(self, step: Step, *, target: Path, requirements: Path) -> tuple[str, ...]:
        """The whole command of a step.

        Args:
            step: What is installed.
            target: Directory that the packages are put into.
            requirements: File that holds the step's requirements.

        """
        options = ["--no-cache" if self.is_uv else "--no-cache-dir", "--target", str(target)]
        if not step.dependencies:
            options.append("--no-deps")
        if step.compiled:
            options += ["--require-hashes", "--no-binary", step.compiled]
        elif not self.is_uv:
            options += ["--only-binary", ":all:"]
        else:
            options.append("--only-binary=:all:")
        if step.index:
            # The one of these that beats the user's own setting.
            options += ["--default-index" if self.is_uv else "--index-url", step.index]
        if step.extra_index:
            options += ["--extra-index-url", step.extra_index]
        if self.is_uv and step.extra_index:
            # As pip does: uv looks no further than the first index that has the package.
            options += ["--index-strategy", "unsafe-best-match"]
        return (*self.command, *options, "-r", str(requirements))


def find_installers(environ: Mapping[str, str], python: str = sys.executable) -> list[Installer]:
    """The installers there are, best first: pip as a module, the one inside ensurepip, uv."""
    # -v: what the compiler does is shown as it happens.
    install = ("install", "-v", "--no-input", "--disable-pip-version-check", *_PATIENCE)
    found: list[Installer] = []
    command: tuple[str, ...]
    if importlib.util.find_spec("pip"):
        command = (python, "-m", "pip", *install, f"--progress-bar={_bar()}")
        found.append(Installer("pip", command))
    elif bundled := _bundled_pip():
        command = (python, f"{bundled}/pip", *install, "--progress-bar=off")
        found.append(Installer("ensurepip's pip", command))
    if uv := shutil.which("uv", path=environ.get("PATH", "")):
        command = (uv, "pip", "install", "-v", "--no-progress", "--python", python)
        found.append(Installer("uv", command, is_uv=True))
    return found


def _bar() -> str:
    """The progress bar of pip that a program can read, where there is one."""
    try:
        major, minor, *_ = importlib.metadata.version("pip").split(".")
        return "raw" if (int(major), int(minor)) >= _RAW_BAR_SINCE else "off"
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return "off"


def _bundled_pip() -> Path | None:
    specification = importlib.util.find_spec("ensurepip")
    if not specification or not specification.origin:
        return None
    wheels = sorted((Path(specification.origin).parent / "_bundled").glob("pip-*.whl"))
    return wheels[-1] if wheels else None


def environment(
    environ: Mapping[str, str], added: Mapping[str, str], temporary: Path
) -> dict[str, str]:
    """The variables of an installer: the user's for compilers, proxies and indexes, and ours.

    Args:
        environ: The user's.
        added: The way's own.
        temporary: Where it may leave things; removed with everything else afterwards.

    """
    kept = {name: value for name, value in environ.items() if name not in _PRIVATE | _IN_THE_WAY}
    return {**kept, **added, **_OURS, "TMPDIR": str(temporary)}
