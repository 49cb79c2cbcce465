"""What a checkpoint becomes here is what llama.cpp's own converter makes of it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, cast

import pytest

from gemd.footprint import open_local
from gemd.worker.fields import Fields
from gemd.worker.quantize.gemma4 import Gemma4Source, is_gemma4
from gemd.worker.quantize.gemma4.tokenizer import read_vocabulary
from gemd.worker.quantize.gguf.header import read_fields
from tests.support.gemma4_checkpoints import FORMS, VISIBLE, write_real_tokenizer
from tests.support.llama_converter import (
    GOLDEN,
    VOCABULARY,
    convert,
    listing,
    source_package,
)
from tests.support.unquantized_gguf import llama_of, write_unquantized
from tests.worker.quantize.gemma4.hostile import TEXTS

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.worker.quantize.gguf.header import Packed


@pytest.mark.parametrize("form", FORMS)
def test_same_as_the_converters(checkpoints: dict[str, Path], form: str, tmp_path: Path) -> None:
    """Names, shapes, types, bytes, keys, values and vocabulary are the converter's.

    The file was made by it from the same checkpoint; see `tests.support.llama_converter`.
    """
    source = Gemma4Source(checkpoints[form])
    write_unquantized(tmp_path / "own.gguf", source)
    source.close()
    own, theirs = listing(tmp_path / "own.gguf"), json.loads(GOLDEN.read_text())[form]
    assert own["fields"] == theirs["fields"]
    assert own["tensors"] == theirs["tensors"]


def test_its_order_of_tensors(checkpoints: dict[str, Path]) -> None:
    """Tensors come file after file, so that one can go when the next begins."""
    for form, directory in checkpoints.items():
        tensors = Gemma4Source(directory).tensors()
        files = list(dict.fromkeys(tensor.file for tensor in tensors))
        assert files[0] == ""
        assert files[1:] == sorted(files[1:])
        assert [tensor.file for tensor in tensors] == sorted(tensor.file for tensor in tensors)
        assert [tensor.name for tensor in tensors] == list(
            json.loads(GOLDEN.read_text())[form]["tensors"]
        )


def test_known_checkpoints_are_recognized(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Each form is one; an empty directory, another model and an assistant are none."""
    assert all(is_gemma4(directory) for directory in checkpoints.values())
    assert not is_gemma4(tmp_path)
    for kind, named in (
        ("llama", ["LlamaForCausalLM"]),
        ("gemma4_assistant", ["Gemma4AssistantForCausalLM"]),
        ("gemma4", ["Gemma4AssistantForCausalLM"]),
        ("gemma3", []),
    ):
        config = {"model_type": kind, "architectures": named}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert not is_gemma4(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_converter_itself(checkpoints: dict[str, Path], form: str, tmp_path: Path) -> None:
    """The converter of the pinned binding still makes the file that is recorded here."""
    convert(checkpoints[form], tmp_path / "theirs.gguf")
    assert listing(tmp_path / "theirs.gguf") == json.loads(GOLDEN.read_text())[form]


@pytest.mark.slow
def test_the_released_vocabulary(tmp_path: Path) -> None:
    """Of the released model's tokens, types, merges and roles each is what the converter made.

    llama.cpp ships them as a GGUF file; the tokenizer.json that it came from is rebuilt from it,
    and texts of all kinds give the same tokens in llama.cpp and in ``tokenizers``.
    """
    path = source_package() / VOCABULARY
    # The gguf package takes a minute for so many texts.
    with open_local(path) as source:
        fields = {field.key: field.value for field in read_fields(source)}
    tokens, types, merges = (
        list[Any](cast("Packed", fields[f"tokenizer.ggml.{key}"]))
        for key in ("tokens", "token_type", "merges")
    )
    tokenizer, settings = write_real_tokenizer(tmp_path, tokens, types, merges)
    none = Fields(tmp_path / "config.json", {})
    vocabulary = read_vocabulary(tmp_path, Fields(tmp_path / "settings", settings), none)
    assert list(vocabulary.tokens) == tokens
    assert list(vocabulary.types) == types
    assert list(vocabulary.merges) == merges
    assert vocabulary.roles == {"bos": 2, "eos": 1, "unk": 3, "pad": 0, "mask": 4}
    assert set(VISIBLE) <= set(vocabulary.tokens)
    with llama_of(path, vocab_only=True) as model:
        for text in TEXTS:
            expected = tokenizer.encode(text, add_special_tokens=False).ids
            assert model.tokens(text) == expected, text


def test_ids_of_hostile_texts(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """llama.cpp gives each text the tokens that ``tokenizers`` gives it."""
    # Torch's neighbour; nothing else of this file needs it.
    from tokenizers import Tokenizer  # noqa: PLC0415

    directory = checkpoints["text"]
    write_unquantized(tmp_path / "model.gguf", Gemma4Source(directory))
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    with llama_of(tmp_path / "model.gguf", vocab_only=True) as model:
        for text in TEXTS:
            expected = tokenizer.encode(text, add_special_tokens=False).ids
            assert model.tokens(text) == expected, text


def test_moved_into_the_hubs_cache(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A directory named after a revision gives the model the repository's name."""
    snapshot = tmp_path / "models--google--gemma-4-26B-A4B-it" / "snapshots" / ("0" * 40)
    shutil.copytree(checkpoints["text"], snapshot)
    fields = {field.key: field.value for field in Gemma4Source(snapshot).metadata()}
    assert fields["general.name"] == "Gemma 4 26B A4B It"
    assert fields["general.basename"] == "gemma-4"
    assert fields["general.size_label"] == "26B-A4B"
    assert fields["general.finetune"] == "it"
