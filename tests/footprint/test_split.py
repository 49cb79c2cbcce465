"""Models in several files: all parts count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gemd.errors import BadModelFileError, ModelNotFoundError
from gemd.footprint import gguf_shape, part_paths, read_gguf_header, read_gguf_model
from tests.support.gguf_files import gguf_bytes, split_gguf

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.gguf_files import Plain

METADATA: dict[str, Plain] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
TENSORS: dict[str, tuple[int, ...]] = {
    "token_embd.weight": (32, 3),
    **{f"blk.{layer}.attn_{part}.weight": (32, 32) for layer in (0, 1) for part in "qkv"},
    "output_norm.weight": (32,),
}


def split(folder: Path, parts: int = 2) -> Path:
    """The made model in parts; the path of the first."""
    return split_gguf(folder / "m", METADATA, TENSORS, parts=parts)


def refusal(path: Path) -> BadModelFileError:
    """Why the model cannot be read."""
    with pytest.raises(BadModelFileError) as caught:
        read_gguf_model(path)
    assert caught.value.advice
    return caught.value


@pytest.mark.parametrize("parts", [2, 3])
def test_a_split_model_takes_what_the_whole_one_takes(parts: int, tmp_path: Path) -> None:
    """llama.cpp loads all parts; the first alone would be booked for a fraction."""
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(gguf_bytes(METADATA, TENSORS))
    first = split(tmp_path, parts)
    wanted = read_gguf_header(whole)
    assert read_gguf_model(whole) == wanted
    found = read_gguf_model(first)
    assert {tensor.name for tensor in found.tensors} == set(TENSORS)
    assert gguf_shape(found) == gguf_shape(wanted)
    assert len(read_gguf_header(first).tensors) < len(TENSORS)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    """The model is not whole; a missing first part is a missing model as ever."""
    first = split(tmp_path, 3)
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    error = refusal(first)
    assert "m-00002-of-00003.gguf, is missing" in error.why
    assert error.metadata["part"] == str(tmp_path / "m-00002-of-00003.gguf")
    first.unlink()
    with pytest.raises(ModelNotFoundError):
        read_gguf_model(first)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    """Whatever is wrong with it."""
    first = split(tmp_path)
    second = tmp_path / "m-00002-of-00002.gguf"
    second.write_bytes(second.read_bytes()[:-1])
    assert second.name in str(refusal(first))
    second.write_bytes(gguf_bytes({}))
    assert f"{second.name} is not part 2 of 2" in refusal(first).why


def test_a_later_part_leads_to_the_first(tmp_path: Path) -> None:
    """The engine takes the model by its first part only."""
    first = split(tmp_path)
    error = refusal(tmp_path / "m-00002-of-00002.gguf")
    assert "part 2 of 2" in error.why
    assert error.advice == (f"gemctl load {first}",)


def test_a_first_part_of_another_name_cannot_find_the_others(tmp_path: Path) -> None:
    """The ending that it lacks is said."""
    renamed = split(tmp_path).rename(tmp_path / "mine.gguf")
    assert "-00001-of-00002.gguf" in refusal(renamed).why


@pytest.mark.parametrize("parts", [2, 12])
def test_the_parts_of_a_model_are_known_by_the_name_of_the_first(
    parts: int, tmp_path: Path
) -> None:
    """All of them, in order; whatever else lies beside them."""
    first = split_gguf(tmp_path / "m", METADATA, TENSORS, parts=parts)
    (tmp_path / "n-00001-of-00002.gguf").touch()
    assert part_paths(first) == sorted(tmp_path.glob("m-*.gguf"))


@pytest.mark.parametrize("name", ["m.gguf", "m-00002-of-00002.gguf", "m-00001-of-00002.gguf.part"])
def test_a_file_that_is_no_first_part_is_all_there_is(name: str, tmp_path: Path) -> None:
    """A whole model, above all."""
    assert part_paths(tmp_path / name) == [tmp_path / name]
