"""llama.cpp's own converter, out of the source package of the binding that we pin.

``python -m tests.support.llama_converter`` writes `GOLDEN` anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np

from tests.support.models import CACHE

GOLDEN: Final = Path(__file__).parents[1] / "fixtures" / "gemma4-converter.json"
"""What it made of `tests.support.gemma4_checkpoints`; weights and vocabularies are hashed."""
OWN_KEYS: Final = ("general.file_type", "general.quantization_version")
"""Those that say what a file is quantized to; whoever writes it sets them."""
VOCABULARY: Final = "models/ggml-vocab-gemma-4.gguf"
"""Of the released model, without weights."""

_NEEDED: Final = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/", VOCABULARY)
_LONG: Final = 64
"""Elements of an array that is hashed."""


def source_package() -> Path:
    """The parts of llama.cpp's tree that converting needs; fetched once per machine, 77 MB."""
    package = f"llama_cpp_python-{version('llama-cpp-python')}"
    folder = CACHE / "source" / package
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                _fetch(package, Path(scratch)).rename(folder)
    return folder


def _fetch(package: str, scratch: Path) -> Path:
    pinned = package.replace("_", "-").replace("-python-", "-python==")
    options = ("--no-binary", ":all:", "--no-deps", "--quiet", "--dest", str(scratch))
    # The index that the user has set up, also where a test's home hides it.
    from tests.conftest import INDEX_SETTINGS  # noqa: PLC0415

    command = [sys.executable, "-m", "pip", "download", *options, pinned]
    subprocess.run(command, env={**os.environ, **INDEX_SETTINGS}, check=True)
    root = f"{package}/vendor/llama.cpp/"
    with tarfile.open(scratch / f"{package}.tar.gz") as archive:
        wanted = [
            member
            for member in archive
            if member.name.removeprefix(root).startswith(_NEEDED) and member.isfile()
        ]
        archive.extractall(scratch / "tree", wanted, filter="data")
    return scratch / "tree" / root


def convert(directory: Path, target: Path) -> None:
    """Have the converter write a BF16 file; in a process of its own, with its own gguf package."""
    tree = source_package()
    environment = {**os.environ, "PYTHONPATH": str(tree / "gguf-py"), "HF_HUB_OFFLINE": "1"}
    command = [str(tree / "convert_hf_to_gguf.py"), str(directory), "--outtype", "bf16"]
    done = subprocess.run(
        [sys.executable, *command, "--outfile", str(target)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def listing(path: Path) -> dict[str, Any]:
    """All keys with their types and values, and all tensors, of a GGUF file."""
    reader = gguf.GGUFReader(path)
    fields = {
        key: [[int(kind) for kind in field.types], _shown(field.contents())]
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.") and key not in OWN_KEYS
    }
    tensors = {
        tensor.name: [
            tensor.tensor_type.name,
            [int(size) for size in tensor.shape],
            hashlib.sha256(np.ascontiguousarray(tensor.data).tobytes()).hexdigest(),
        ]
        for tensor in reader.tensors
    }
    return {"fields": fields, "tensors": tensors}


def _shown(value: Any) -> Any:
    if isinstance(value, list) and len(value) > _LONG:
        digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
        return f"{len(value)} elements, sha256 {digest}"
    return value


def _write_golden() -> None:
    # Torch: only here.
    from tests.support.gemma4_checkpoints import FORMS, write_checkpoint  # noqa: PLC0415

    made = {}
    with tempfile.TemporaryDirectory() as scratch:
        for form in FORMS:
            directory = Path(scratch) / form
            write_checkpoint(directory, form)
            convert(directory, Path(scratch) / f"{form}.gguf")
            made[form] = listing(Path(scratch) / f"{form}.gguf")
    GOLDEN.write_text(_document(made))


def _document(made: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for each key and each tensor."""
    forms = []
    for form, parts in made.items():
        tables = []
        for part, entries in parts.items():
            lines = ",\n".join(
                f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
                for key, value in entries.items()
            )
            tables.append(f"{json.dumps(part)}: {{\n{lines}\n}}")
        forms.append(f"{json.dumps(form)}: {{\n" + ",\n".join(tables) + "\n}")
    return "{\n" + ",\n".join(forms) + "\n}\n"


if __name__ == "__main__":
    _write_golden()
