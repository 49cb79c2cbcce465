"""The llama_cpp of this environment as a wheel again, whole or spoilt, and an index of engines."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import io
import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.engine.builds.build import PINNED
from tests.support.package_index import JSON, PackageIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VERSION = PINNED["llama"]
WHEEL = f"llama_cpp_python-{VERSION}-py3-none-any.whl"
SDIST = f"llama_cpp_python-{VERSION}.tar.gz"
BINDING = "llama_cpp/llama_cpp.py"

FORGETFUL = '''

_decode = llama_decode


def llama_decode(ctx, batch):
    """Loses what came before: what a library with another idea of a struct may do."""
    llama_memory_clear(llama_get_memory(ctx), False)
    return _decode(ctx, batch)
'''
"""Appended to the binding, it answers wrongly without an error."""


def engine_wheel(patches: Mapping[str, Callable[[bytes], bytes]] | None = None) -> bytes:
    """The installed package, packed again.

    Args:
        patches: By member, what becomes of its content.

    """
    members = dict(_installed())
    for name, patch in (patches or {}).items():
        members[name] = patch(members[name])
    return _packed(members)


def shifted(binding: bytes) -> bytes:
    """The binding as for another llama.cpp: a field of the context's parameters is 8 bytes on."""
    field = rb'(\n +\("offload_kqv", ctypes\.c_bool\),)'
    patched, count = re.subn(field, rb'\n        ("unknown", ctypes.c_uint64),\1', binding)
    assert count == 1
    return patched


def copy_engine(overlay: Path) -> None:
    """Puts the installed package into a directory, as an installation does."""
    ignored = shutil.ignore_patterns("__pycache__", "server")
    shutil.copytree(_package(), overlay / "llama_cpp", ignore=ignored)


def _package() -> Path:
    specification = importlib.util.find_spec("llama_cpp")
    assert specification is not None
    assert specification.origin is not None
    return Path(specification.origin).parent


@functools.cache
def _installed() -> tuple[tuple[str, bytes], ...]:
    package = _package()
    files = [file for file in sorted(package.rglob("*")) if file.is_file()]
    return tuple(
        (f"llama_cpp/{file.relative_to(package).as_posix()}", file.read_bytes())
        for file in files
        if file.suffix != ".pyc" and "server" not in file.parts
    )


def _packed(members: Mapping[str, bytes]) -> bytes:
    info = f"llama_cpp_python-{VERSION}.dist-info"
    whole = {
        **members,
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {VERSION}\n"
        ).encode(),
        f"{info}/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: gemd\nRoot-Is-Purelib: false\nTag: py3-none-any\n"
        ),
    }
    record = "".join(
        f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in whole.items()
    )
    whole[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    # Stored: squeezing 25 MB takes longer than sending them to ourselves.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in whole.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def engine_sdist(build: str) -> bytes:
    """A source distribution whose build backend is this Python code.

    It has no requirements, so that its build needs no index.
    """
    stem = f"llama_cpp_python-{VERSION}"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\n'
        'backend-path = ["."]\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {VERSION}\n",
        "backend.py": build,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            content = text.encode()
            member = tarfile.TarInfo(f"{stem}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class EngineIndex(PackageIndex):
    """A package index that also has folders of wheels by backend, as upstream's has."""

    @property
    def engines(self) -> str:
        """What the setting `engine_index` is to be."""
        return f"{self.url}/whl"

    def add_engine(self, folder: str, content: bytes) -> None:
        """Lists a wheel of the engine in one of the folders."""
        file, page = f"/files/{folder}/{WHEEL}", f"/whl/{folder}/llama-cpp-python/"
        digest = hashlib.sha256(content).hexdigest()
        listed = {"filename": WHEEL, "url": file, "hashes": {"sha256": digest}}
        about = {"meta": {"api-version": "1.1"}, "name": "llama-cpp-python", "files": [listed]}
        self.files |= {file: content, page: json.dumps(about).encode()}
        self.types[page] = JSON

    def add_source(self, content: bytes) -> str:
        """Lists a source distribution in the main index; its SHA-256."""
        self.add("llama-cpp-python", SDIST, content)
        return hashlib.sha256(content).hexdigest()
