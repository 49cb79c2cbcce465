"""Each tensor of a checkpoint is mapped, left out for a reason, or an error that names it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gemd.errors import BadModelFileError
from gemd.footprint.safetensors import SafeTensor, SafetensorsHeader
from gemd.worker.quantize.gemma4 import Gemma4Source
from gemd.worker.quantize.gemma4.census import take_census
from gemd.worker.quantize.gemma4.config import read_config
from gemd.worker.quantize.gemma4.names import ROPE_FREQS, rotary_factors, wanted_tensors
from tests.support.gemma4_checkpoints import FORMS, VOCABULARY, add_file, rewrite
from tests.support.gemma4_headers import config_of, header_of

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.worker.quantize.gemma4.config import TextModel


def _model(form: str, folder: Path) -> TextModel:
    (folder / "config.json").write_text(json.dumps(config_of(form)))
    return read_config(folder)[0]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextModel]:
    """By form, out of a config.json."""
    return {form: _model(form, tmp_path_factory.mktemp(form)) for form in FORMS}


@given(data=st.data())
def test_one_tensor_that_is_off(models: dict[str, TextModel], data: st.DataObject) -> None:
    """A tensor that is missing, has another shape, type or name, or comes twice, is named."""
    model = models[data.draw(st.sampled_from(sorted(FORMS)))]
    tensors = list(header_of(model).tensors)
    assert not take_census({"a": header_of(model)}, model, VOCABULARY).problems
    place = data.draw(st.integers(0, len(tensors) - 1))
    tensor = tensors[place]
    plain = tensor.name.removeprefix("model.language_model.")
    kind = data.draw(st.sampled_from(("missing", "misshapen", "mistyped", "unknown", "duplicated")))
    if kind == "missing":
        del tensors[place]
    elif kind == "misshapen":
        tensors[place] = dataclasses.replace(tensor, shape=(*tensor.shape, 1))
    elif kind == "mistyped":
        tensors[place] = dataclasses.replace(tensor, dtype="I8")
    elif kind == "unknown":
        tensors.append(dataclasses.replace(tensor, name=f"{tensor.name}_packed"))
    else:
        tensors.append(dataclasses.replace(tensor, name=f"model.{plain}"))
    header = SafetensorsHeader(tuple(tensors), {}, 8, 8)
    problems = take_census({"a": header}, model, VOCABULARY).problems
    if kind == "missing" and wanted_tensors(model)[plain].optional:
        assert not problems
    else:
        assert [problem.kind for problem in problems] == [kind]
        assert plain in problems[0].name


def test_parts_that_are_left_out(models: dict[str, TextModel]) -> None:
    """Towers for images and sound, tied heads and derived buffers are counted, and nothing else."""
    names = {
        "model.vision_tower.encoder.layers.0.self_attn.q_proj.linear.weight": "vision_tower",
        "model.embed_audio.embedding_projection.weight": "embed_audio",
        "model.audio_tower.output_proj.bias": "audio_tower",
        "vision_tower.patch_embedder.input_proj.weight": "vision_tower",
        "model.vision_embedder.patch_dense.weight": "vision_embedder",
        "lm_head.weight": "tied",
        "model.language_model.rotary_emb.inv_freq": "derived",
    }
    model = models["experts"]
    extra = tuple(SafeTensor(name, "BF16", (3,), 0, 6) for name in names)
    tensors = header_of(model).tensors
    header = SafetensorsHeader((*tensors, *extra), {}, 8, 8)
    census = take_census({"a": header}, model, VOCABULARY)
    assert not census.problems
    assert census.left_out == {
        part: 6 * list(names.values()).count(part) for part in set(names.values())
    }
    assert len(census.stored) == len(tensors)


def test_a_head_of_its_own(models: dict[str, TextModel]) -> None:
    """Without tied tables the head has to be there, and becomes the output."""
    model = dataclasses.replace(models["text"], tied=False)
    census = take_census({"a": header_of(model)}, model, VOCABULARY)
    assert not census.problems
    assert "output.weight" in {stored.name for stored in census.stored}


def test_rows_beyond_the_vocabulary(models: dict[str, TextModel]) -> None:
    """Padding of the tables is cut off, since llama.cpp wants a row for each token."""
    model = models["per-layer"]
    census = take_census({"a": header_of(model)}, model, VOCABULARY - 7)
    shapes = {stored.name: stored.shape for stored in census.stored}
    assert shapes["token_embd.weight"] == (VOCABULARY - 7, model.width)
    assert shapes["per_layer_token_embd.weight"][0] == VOCABULARY - 7
    problems = take_census({"a": header_of(model)}, model, VOCABULARY + 1).problems
    assert {problem.name for problem in problems} == {
        "embed_tokens.weight",
        "embed_tokens_per_layer.weight",
    }


def test_factors_of_the_rotary_frequencies(models: dict[str, TextModel]) -> None:
    """As the released models have it: a quarter of 512 elements turns, in pairs."""
    model = models["text"]
    released = dataclasses.replace(model, far=dataclasses.replace(model.far, width=512))
    assert rotary_factors(released) == [1.0] * 64 + [1e30] * 192


def test_a_checkpoint_with_problems(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The error of a real one says which tensors, how many, and where."""
    directory = tmp_path / "odd"
    shutil.copytree(checkpoints["experts"], directory)
    rewrite(directory, "model.language_model.norm.weight", None)
    add_file(directory, "model-more.safetensors", {"model.language_model.x": torch.zeros(2)})
    with pytest.raises(BadModelFileError, match="1 missing, 1 unknown") as caught:
        Gemma4Source(directory)
    assert "norm.weight is missing (of shape [64])" in caught.value.why
    assert "model.language_model.x is unknown" in caught.value.why
    assert caught.value.metadata["problems"] == "2"


def test_a_file_that_is_missing(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """It is named, and no tensor of it."""
    directory = tmp_path / "cut"
    shutil.copytree(checkpoints["text"], directory)
    (directory / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(BadModelFileError, match="1 of the 3 files") as caught:
        Gemma4Source(directory)
    assert caught.value.metadata["file"] == "model-00002-of-00003.safetensors"


def test_no_file_has_the_factors(checkpoints: dict[str, Path]) -> None:
    """What comes from no file says so, and is what the configuration makes of it."""
    source = Gemma4Source(checkpoints["unified"])
    first = source.tensors()[0]
    assert (first.name, first.file) == (ROPE_FREQS, "")
    assert source.rows(first, 0, 1).tolist() == [pytest.approx([1.0] * 4 + [1e30] * 12)]
    source.used_up("")
    assert set(source.left_out) == {"vision_embedder", "embed_vision"}
