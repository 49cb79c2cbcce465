"""Rows come from the files as they are asked for, and files go when they are used up."""

from __future__ import annotations

import json
import shutil
from math import prod
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.worker.quantize.gemma4 import Gemma4Source
from tests.support.gemma4_checkpoints import INDEX, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gemd.worker.quantize.source import SourceTensor

_GATE = "model.language_model.layers.0.experts.gate_up_proj"


def _whole(source: Gemma4Source, tensor: SourceTensor) -> np.ndarray:
    return source.rows(tensor, 0, prod(tensor.shape[1:]))


def _plain(source: Gemma4Source) -> dict[str, object]:
    return {
        field.key: list(cast("Sequence[object]", field.value)) if field.element else field.value
        for field in source.metadata()
    }


def _files(source: Gemma4Source) -> list[str]:
    return [file for file in dict.fromkeys(t.file for t in source.tensors()) if file]


@pytest.fixture
def copied(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint with experts that may be written to."""
    shutil.copytree(checkpoints["experts"], tmp_path / "experts")
    return tmp_path / "experts"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(start=st.integers(0, 767), count=st.integers(1, 768))
def test_any_slab(checkpoints: dict[str, Path], start: int, count: int) -> None:
    """Rows count over all experts one after the other; a slab may begin and end in any of them."""
    directory = checkpoints["experts"]
    file = json.loads((directory / INDEX).read_text())["weight_map"][_GATE]
    expected = load_file(directory / file)[_GATE].float().numpy().reshape(768, 64)
    source = Gemma4Source(directory)
    (tensor,) = (t for t in source.tensors() if t.name == "blk.0.ffn_gate_up_exps.weight")
    assert (tensor.shape, tensor.kind, tensor.file) == ((64, 96, 8), "BF16", file)
    count = min(count, 768 - start)
    assert np.array_equal(source.rows(tensor, start, count), expected[start : start + count])
    source.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_types(tmp_path: Path, dtype: torch.dtype) -> None:
    """F32 and F16 checkpoints keep their type, but for what is F32 in any file."""
    model = write_checkpoint(tmp_path, "experts", dtype=dtype)
    source = Gemma4Source(tmp_path)
    kinds = {tensor.name: tensor.kind for tensor in source.tensors()}
    kind = "F32" if dtype == torch.float32 else "F16"
    assert kinds["token_embd.weight"] == kinds["blk.2.ffn_down_exps.weight"] == kind
    for name in ("ffn_gate_inp.weight", "ffn_gate_inp.scale", "ffn_down_exps.scale"):
        assert kinds[f"blk.1.{name}"] == "F32"
    weights = model.model.language_model.layers[1].router.proj.weight.detach().float().numpy()
    (router,) = (t for t in source.tensors() if t.name == "blk.1.ffn_gate_inp.weight")
    assert np.array_equal(_whole(source, router), weights)
    source.close()


def test_a_file_that_changes(copied: Path) -> None:
    """Bytes of another file than the one whose header was read are not passed on."""
    source = Gemma4Source(copied)
    tensor = source.tensors()[-1]
    path = copied / tensor.file
    data = path.read_bytes()
    path.write_bytes(data[:-2])
    with pytest.raises(BadModelFileError, match=tensor.file):
        _whole(source, tensor)
    source.close()
    path.write_bytes(data)
    source = Gemma4Source(copied)
    _whole(source, tensor)
    path.write_bytes(data + data)
    with pytest.raises(BadModelFileError, match=tensor.file):
        source.used_up(tensor.file)
    source.close()


def test_files_stay_unless_told(copied: Path) -> None:
    """Without the order to remove anything, nothing is."""
    before = sorted(copied.iterdir())
    source = Gemma4Source(copied, kept=copied)
    for file in _files(source):
        source.used_up(file)
    source.close()
    assert sorted(copied.iterdir()) == before


def test_files_go_one_by_one(copied: Path, tmp_path: Path) -> None:
    """Each is removed as it is used up, of links the target too; a later try knows them still.

    It finds the same tensors and keys, reads what is left, and with the last file nothing stays.
    """
    blobs, kept = tmp_path / "blobs", tmp_path / "kept"
    blobs.mkdir()
    kept.mkdir()
    for path in copied.glob("*.safetensors"):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    first = Gemma4Source(copied)
    values = {tensor.name: _whole(first, tensor) for tensor in first.tensors()}
    first.close()
    files = _files(first)
    for number, file in enumerate(files):
        source = Gemma4Source(copied, discard=True, kept=kept)
        assert source.tensors() == first.tensors()
        assert _plain(source) == _plain(first)
        for tensor in source.tensors():
            if tensor.file in files[:number]:
                with pytest.raises(BadModelFileError, match=tensor.file):
                    _whole(source, tensor)
            else:
                assert np.array_equal(_whole(source, tensor), values[tensor.name])
        for used in files[: number + 1]:
            source.used_up(used)
        source.close()
        assert not (copied / file).is_symlink()
        assert not (blobs / file).exists()
        assert (blobs / files[-1]).exists() == (number + 1 < len(files))
    assert not list(kept.iterdir())
    assert not list(blobs.iterdir())
    assert (copied / "config.json").exists()


def test_files_go_with_the_last(copied: Path) -> None:
    """Without a place for their headers all files go together, so that a later try has them all."""
    source = Gemma4Source(copied, discard=True)
    *files, last = _files(source)
    for file in files:
        source.used_up(file)
    assert all((copied / file).exists() for file in (*files, last))
    source.used_up(last)
    source.close()
    assert not list(copied.glob("*.safetensors"))


def test_a_checkpoint_in_one_file(copied: Path) -> None:
    """It needs no index; without weights there is no model."""
    several = Gemma4Source(copied)
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(copied.glob("*.safetensors")):
        tensors |= load_file(path)
        path.unlink()
    (copied / INDEX).unlink()
    save_file(tensors, copied / "model.safetensors")
    single = Gemma4Source(copied)
    assert {(t.name, t.shape, t.kind) for t in single.tensors()} == {
        (t.name, t.shape, t.kind) for t in several.tensors()
    }
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError):
        Gemma4Source(copied)
