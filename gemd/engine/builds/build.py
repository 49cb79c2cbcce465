"""One engine build: what it is, what its `engine.json` says, and what a worker needs of it.

Values only, and no I/O.
"""

from __future__ import annotations

import datetime as dt
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENGINES: Final = ("llama", "diffusion")
BACKENDS: Final = ("cuda", "hip", "metal", "vulkan", "cpu")
"""Best first: where a GPU can run several of them, the first one is the fastest."""

RECORD: Final = "engine.json"
PINNED: Final[Mapping[str, str]] = {"llama": "0.3.36", "diffusion": "2.13.0"}
"""The version of each engine: of llama-cpp-python, whose structs belong to one llama.cpp commit,
and of torch."""
LEAST: Final[Mapping[str, tuple[int, int]]] = {"torch": (2, 11), "transformers": (5, 17)}
"""The least versions of gemd's extra ``diffusion``, for what is in gemd's own environment."""
LAYOUT: Final = 1
"""Of `engine.json`."""

_NUMBERS: Final = re.compile(r"(\d+)\.(\d+)")
_NATIVE: Final = frozenset(
    {"avx", "avx2", "fma", "f16c", "bmi2", "sve", "sve2", "i8mm", "bf16", "asimddp", "avx_vnni"}
)


@dataclass(frozen=True, slots=True)
class Build:
    """An engine build, sound or broken.

    Attributes:
        engine: ``llama`` or ``diffusion``.
        backend: What it was built for; one of `BACKENDS`.
        version: Of llama-cpp-python or torch.
        path: The overlay directory; None for the one in gemd's own environment.
        commit: Of llama.cpp, as the library says; empty if unknown.
        ggml_version: As the library says.
        flags: CMAKE_ARGS of the compilation; empty for a build that somebody else compiled.
        python_tag: ``cp311``.
        cpu_flags: Instruction sets of the processor that it was compiled on, if it was compiled
            for that very processor.
        created: When it was installed.
        installed: In which way: ``prebuilt``, ``source`` or ``bundled``.
        devices: What it saw when it was verified.
        broken: Why it cannot be used, in one sentence; empty if it can.

    """

    engine: str
    backend: str
    version: str
    path: Path | None = None
    commit: str = ""
    ggml_version: str = ""
    flags: str = ""
    python_tag: str = ""
    cpu_flags: frozenset[str] = frozenset()
    created: dt.datetime | None = None
    installed: str = "bundled"
    devices: tuple[str, ...] = ()
    broken: str = ""

    @property
    def name(self) -> str:
        """The directory's name, or ``bundled``."""
        return "bundled" if self.path is None else self.path.name


def python_tag() -> str:
    """The tag of this interpreter in names of wheels, such as ``cp311``."""
    return f"{_implementation()}{sys.version_info.major}{sys.version_info.minor}"


def _implementation() -> str:
    return {"cpython": "cp", "pypy": "pp"}.get(sys.implementation.name, sys.implementation.name)


def folder_name(engine: str, backend: str, version: str, tag: str) -> str:
    """The name of a build's directory."""
    return f"{engine}-{backend}-{version}-{tag}"


def native_flags(features: frozenset[str]) -> frozenset[str]:
    """Of a processor's instruction sets those that a compiler uses when told `native`."""
    # Not AMX: no build of ours uses it.
    chosen = ("avx512", "avx10")
    return frozenset(flag for flag in features if flag in _NATIVE or flag.startswith(chosen))


def too_old(package: str, version: str) -> str:
    """Why a version of a package in gemd's own environment cannot be used; empty if it can."""
    found, least = _NUMBERS.match(version), LEAST[package]
    if found is not None and (int(found[1]), int(found[2])) >= least:
        return ""
    return f"{package} has version {version}, and gemd needs {least[0]}.{least[1]} or more"


def record_of(build: Build) -> dict[str, Any]:
    """The content of `engine.json`."""
    return {
        "layout": LAYOUT,
        "engine": build.engine,
        "backend": build.backend,
        "version": build.version,
        "commit": build.commit,
        "ggml_version": build.ggml_version,
        "flags": build.flags,
        "python_tag": build.python_tag,
        "cpu_flags": sorted(build.cpu_flags),
        "created": build.created.isoformat() if build.created else "",
        "installed": build.installed,
        "devices": list(build.devices),
    }


def build_of(record: object, path: Path) -> Build:
    """The build that `engine.json` describes.

    Raises:
        ValueError: It does not describe one.

    """
    if not isinstance(record, dict) or record.get("layout") != LAYOUT:
        raise ValueError(f"it has not the layout {LAYOUT}")
    engine, backend = _word(record, "engine"), _word(record, "backend")
    if engine not in ENGINES or backend not in BACKENDS:
        raise ValueError(f"there is no engine {engine} with the backend {backend}")
    created = dt.datetime.fromisoformat(_word(record, "created"))
    if created.tzinfo is None:
        raise ValueError("created has no time zone")
    return Build(
        engine=engine,
        backend=backend,
        version=_word(record, "version"),
        path=path,
        commit=_word(record, "commit"),
        ggml_version=_word(record, "ggml_version"),
        flags=_word(record, "flags"),
        python_tag=_word(record, "python_tag"),
        cpu_flags=frozenset(_words(record, "cpu_flags")),
        created=created,
        installed=_word(record, "installed"),
        devices=tuple(_words(record, "devices")),
    )


def fault_of(build: Build, *, tag: str, processor: frozenset[str]) -> str:
    """Why a build that was installed whole cannot be used now; empty if it can.

    Args:
        build: The build.
        tag: Of the interpreter that is to run it.
        processor: Instruction sets of the processor; empty where unknown.

    """
    if build.python_tag != tag:
        return f"it is for {build.python_tag}, and gemd runs on {tag}"
    if build.version != PINNED[build.engine]:
        return f"it has version {build.version}, and gemd needs {PINNED[build.engine]}"
    missing = build.cpu_flags - processor
    if processor and missing:
        return f"it was compiled for a processor with {', '.join(sorted(missing))}"
    return ""


def _word(record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")  # noqa: TRY004 - the content is wrong, not a call
    return value


def _words(record: Mapping[str, object], key: str) -> list[str]:
    value = record.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key} is no list of texts")
    return value
