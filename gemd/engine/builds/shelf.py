"""Which builds there are: those in the folder of engines, and what gemd's environment has.

Cheap enough for every start of a worker: it reads `engine.json` files and looks for files, and
imports nothing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.engine.builds.build import (
    BACKENDS,
    ENGINES,
    LEAST,
    PINNED,
    RECORD,
    Build,
    build_of,
    fault_of,
    native_flags,
    python_tag,
    too_old,
)
from gemd.hardware import read_cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES: Final = {"llama": "llama_cpp", "diffusion": "torch"}
"""What a build of each engine has to contain."""

_DISTRIBUTION: Final = "llama-cpp-python"
_TORCH_LIBRARIES: Final = {"cuda": "libtorch_cuda*", "hip": "libtorch_hip*"}


def installed_builds(engines_dir: Path, *, root: Path = Path("/")) -> tuple[Build, ...]:
    """All builds, the bundled ones last; what cannot be used says why.

    Args:
        engines_dir: The folder of engines; it need not exist.
        root: Where /proc is.

    """
    processor = native_flags(read_cpu(root).features)
    tag = python_tag()
    own = [_read(folder, tag, processor) for folder in _folders(engines_dir)]
    return (*own, *bundled())


def bundled() -> Iterator[Build]:
    """The engines of gemd's own environment, as far as they are in it."""
    yield from _bundled_llama()
    yield from _bundled_torch()


def _bundled_llama() -> Iterator[Build]:
    """Which backend it has is told by the libraries that lie in it."""
    folder = _folder_of(PACKAGES["llama"])
    if folder is None:
        return
    version = _version_of(_DISTRIBUTION)
    wanted = PINNED["llama"]
    yield Build(
        engine="llama",
        backend=backend_in(folder / "lib"),
        version=version,
        python_tag=python_tag(),
        broken="" if version == wanted else f"it has version {version}, and gemd needs {wanted}",
    )


def _bundled_torch() -> Iterator[Build]:
    """Torch with transformers. Neither is imported: their files are looked for."""
    folder = _folder_of(PACKAGES["diffusion"])
    if folder is None:
        return
    yield Build(
        engine="diffusion",
        backend=_torch_backend(folder / "lib"),
        version=_version_of("torch"),
        python_tag=python_tag(),
        broken=_torch_fault(),
    )


def _folder_of(package: str) -> Path | None:
    """Where a package lies that could be imported; None if none could."""
    specification = importlib.util.find_spec(package)
    if specification is None or specification.origin is None:
        return None
    return Path(specification.origin).parent


def _version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _torch_backend(libraries: Path) -> str:
    found = (name for name, files in _TORCH_LIBRARIES.items() if any(libraries.glob(files)))
    return next(found, "cpu")


def _torch_fault() -> str:
    for package in LEAST:
        if _folder_of(package) is None:
            return f"there is no {package} beside it"
        if fault := too_old(package, _version_of(package)):
            return fault
    return ""


def backend_in(libraries: Path) -> str:
    """The best backend that has a library in a folder of llama.cpp's; cpu if none has."""
    found = backends_in(libraries)
    return next((name for name in BACKENDS if name in found), "cpu")


def backends_in(libraries: Path) -> frozenset[str]:
    """The backends that have a library in a folder of llama.cpp's."""
    names = {file.name.partition(".")[0] for file in libraries.glob("libggml-*")}
    return frozenset(name for name in BACKENDS if f"libggml-{name}" in names)


def _folders(engines_dir: Path) -> list[Path]:
    # Names with a dot are work in progress and leftovers.
    try:
        found = [path for path in engines_dir.iterdir() if path.name.startswith(ENGINES)]
    except OSError:
        return []
    return sorted(path for path in found if path.is_dir())


def _read(folder: Path, tag: str, processor: frozenset[str]) -> Build:
    try:
        build = build_of(json.loads((folder / RECORD).read_text(encoding="utf-8")), folder)
    except (OSError, ValueError, RecursionError) as error:
        return _unreadable(folder, f"{RECORD} cannot be used: {error}")
    package = PACKAGES[build.engine]
    if not (folder / package / "__init__.py").is_file():
        return _with_fault(build, f"it holds no {package}")
    return _with_fault(build, fault_of(build, tag=tag, processor=processor))


def _unreadable(folder: Path, broken: str) -> Build:
    """What the name says of a build that says nothing itself."""
    engine, _, rest = folder.name.partition("-")
    backend, _, rest = rest.partition("-")
    return Build(
        engine=engine,
        backend=backend if backend in BACKENDS else "unknown",
        version=rest.partition("-")[0] or "unknown",
        path=folder,
        installed="unknown",
        broken=broken,
    )


def _with_fault(build: Build, fault: str) -> Build:
    return replace(build, broken=fault) if fault else build
