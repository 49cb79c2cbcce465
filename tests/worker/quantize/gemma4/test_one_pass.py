"""From a checkpoint straight to a quantized file: as in two steps, in one or more tries."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
from typing import TYPE_CHECKING

import gguf
import pytest
from llama_cpp import llama_cpp as c

from gemd.errors import CancelledError
from gemd.wire.quantize import Order
from gemd.worker.quantize.gemma4 import Gemma4Source
from gemd.worker.quantize.gguf import make_gguf
from tests.support.gemma4_checkpoints import FORMS
from tests.support.unquantized_gguf import write_unquantized

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.wire.quantize import Made, Progress

_MIXTURE = "Q4_K_M"


def _order(source: Path, target: Path) -> Order:
    target.mkdir(exist_ok=True)
    return Order(
        source=str(source),
        target=str(target),
        name="model.gguf",
        quantization=_MIXTURE,
        discard_source=True,
    )


def _make(order: Order, source: Path, target: Path, *, steps: int | None = None) -> Made:
    """One try, ended after so many reports."""
    left = steps

    def report(_: Progress) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                raise CancelledError("enough")

    weights = Gemma4Source(source, discard=True, kept=target)
    try:
        return make_gguf(order, weights, report)
    finally:
        weights.close()


@pytest.mark.parametrize("form", FORMS)
def test_same_as_llama_model_quantize(
    checkpoints: dict[str, Path], form: str, tmp_path: Path
) -> None:
    """Each tensor is what llama.cpp makes of the plain file; of the source no weight stays."""
    directory, target = tmp_path / form, tmp_path / "target"
    shutil.copytree(checkpoints[form], directory)
    write_unquantized(tmp_path / "plain.gguf", Gemma4Source(directory))
    params = c.llama_model_quantize_default_params()
    params.ftype, params.nthread = c.LLAMA_FTYPE_MOSTLY_Q4_K_M, 1
    paths = [str(tmp_path / name).encode() for name in ("plain.gguf", "theirs.gguf")]
    assert c.llama_model_quantize(*paths, ctypes.byref(params)) == 0
    made = _make(_order(directory, target), directory, target)
    theirs = {
        tensor.name: hashlib.sha256(tensor.data.tobytes()).hexdigest()
        for tensor in gguf.GGUFReader(tmp_path / "theirs.gguf").tensors
    }
    assert {tensor.name: tensor.sha256 for tensor in made.tensors} == theirs
    assert not list(directory.glob("*.safetensors"))
    assert not list(target.glob("*.header"))


def test_many_tries(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Ended again and again while its source disappears, it makes the same file."""
    form = "experts"
    results = []
    for name, steps in (("once", None), ("often", 12)):
        directory, target = tmp_path / name / form, tmp_path / name / "target"
        shutil.copytree(checkpoints[form], directory)
        order = _order(directory, target)
        tries = 0
        while True:
            tries += 1
            try:
                _make(order, directory, target, steps=None if steps is None else steps * tries)
                break
            except CancelledError:
                assert tries < 100
        assert (tries > 3) == (steps is not None)
        results.append((target / "model.gguf").read_bytes())
        assert not list(directory.glob("*.safetensors"))
    assert results[0] == results[1]
