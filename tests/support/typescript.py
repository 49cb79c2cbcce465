"""The TypeScript example, installed and built in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
WITHIN = Path("proto", "examples", "typescript")
MISSING = "node 20 or newer and npm are not installed"
_NO_REGISTRY = ("EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENOTFOUND", "ETIMEDOUT", "ENETUNREACH")


class NoRegistryError(Exception):
    """npm reaches no registry; the text is its own."""


def missing() -> bool:
    """Whether this machine cannot run the example."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return True
    said = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    major = re.match(r"v(\d+)", said)
    return major is None or int(major[1]) < 20


@dataclass(frozen=True)
class Example:
    """A built example.

    Attributes:
        folder: Where its `package.json` is.

    """

    folder: Path

    def node(
        self, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Node there, to its end."""
        return subprocess.run(
            ["node", *arguments],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *arguments: str, environ: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start the example with pipes, and return at once."""
        return subprocess.Popen(
            ["node", "dist/main.js", *arguments],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def build(target: Path) -> Example:
    """Copy `proto`, install what the lock file says, and build.

    Args:
        target: An empty folder.

    Raises:
        NoRegistryError: The packages cannot be had.
        AssertionError: It does not build.

    """

    def left_out(_: Any, names: list[str]) -> set[str]:
        return {"node_modules", "dist", "generated"} & set(names)

    shutil.copytree(ROOT / "proto", target / "proto", ignore=left_out)
    folder = target / WITHIN
    npm = {"cwd": folder, "capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    installed = subprocess.run(["npm", "ci", "--no-fund"], check=False, env={**os.environ}, **npm)  # type: ignore[call-overload] # by name
    if installed.returncode and any(word in installed.stderr for word in _NO_REGISTRY):
        raise NoRegistryError(installed.stderr.strip())
    assert installed.returncode == 0, installed.stderr
    built = subprocess.run(["npm", "run", "build"], check=False, **npm)  # type: ignore[call-overload] # by name
    assert built.returncode == 0, built.stdout + built.stderr
    return Example(folder)
