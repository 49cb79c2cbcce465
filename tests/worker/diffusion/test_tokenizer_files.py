"""Tokenizer files of a checkpoint: what they may hold, and what is said of those that do not."""

from __future__ import annotations

import json
import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from gemd.errors import BadModelFileError
from gemd.worker.diffusion import tokenizer_files
from gemd.worker.diffusion.tokenizer_files import read_tokenizer_files
from tests.support.tiny_diffusion import TINY
from tests.support.tokenizer_files import gemma_tokenizer, vocabulary_of, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The fixture's tokenizer files, to be changed."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(TINY / name, tmp_path / name)
    return tmp_path


def change(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path) -> BadModelFileError:
    """What is said of these files."""
    with pytest.raises(BadModelFileError) as caught:
        read_tokenizer_files(folder)
    assert caught.value.why
    assert caught.value.advice
    assert caught.value.metadata["path"].startswith(str(folder))
    return caught.value


def test_the_fixtures_files(folder: Path) -> None:
    """Roles and template as they are written."""
    files = read_tokenizer_files(folder)
    assert (files.bos, files.eos) == ("<bos>", "<eos>")
    assert files.chat_template == (TINY / "chat_template.jinja").read_text()
    assert "<|think|>" in files.control


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    """With its path."""
    (folder / "tokenizer.json").unlink()
    error = refused(folder)
    assert error.metadata["path"] == str(folder / "tokenizer.json")
    assert "no such file" in error.why


@pytest.mark.parametrize("size", [0, 1, 5000, 22614])
def test_a_truncated_tokenizer_is_refused(folder: Path, size: int) -> None:
    """Wherever it ends."""
    os.truncate(folder / "tokenizer.json", size)
    refused(folder)


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe{}", b"{}", b"[" * 100_000])
def test_what_is_no_tokenizer_is_refused(folder: Path, content: bytes) -> None:
    """Other JSON, and what is none."""
    (folder / "tokenizer.json").write_bytes(content)
    refused(folder)


def test_a_tokenizer_is_no_device(folder: Path) -> None:
    """Nor anything else that reading may never end of."""
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    refused(folder)


def test_a_file_that_is_too_large_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be all holes, and memory is not."""
    os.truncate(folder / "tokenizer.json", tokenizer_files.MAX_TOKENIZER_BYTES + 1)
    error = refused(folder)
    assert error.metadata["limit"] == str(tokenizer_files.MAX_TOKENIZER_BYTES)
    shutil.copyfile(TINY / "tokenizer.json", folder / "tokenizer.json")
    os.truncate(folder / "chat_template.jinja", tokenizer_files.MAX_TEMPLATE_BYTES + 1)
    assert refused(folder).metadata["path"].endswith("chat_template.jinja")


def test_damage_is_an_error_or_does_no_harm(folder: Path) -> None:
    """Letters changed at random in 200 copies: never anything else than a refusal, or tokens."""
    path = folder / "tokenizer.json"
    source = path.read_bytes()
    # The list of added tokens and what follows it, where most of the structure is.
    end = source.index(b'"merges"')
    refusals = 0
    for seed in range(200):
        draw = random.Random(seed)
        damaged = bytearray(source)
        damaged[draw.randrange(end)] = draw.randrange(0x20, 0x7F)
        path.write_bytes(damaged)
        try:
            vocabulary = vocabulary_of(folder)
        except BadModelFileError:
            refusals += 1
            continue
        tokens = vocabulary.tokenize("Hello <|turn>", add_special=False, parse_special=True)
        assert all(isinstance(vocabulary.piece(token), bytes) for token in tokens)
    assert 20 < refusals < 200


@pytest.mark.parametrize("content", ["", "[]", "{", '{"bos_token": "<nope>"}'])
def test_settings_that_cannot_be_used_are_refused(folder: Path, content: str) -> None:
    """Also where they name a token that there is not."""
    (folder / "tokenizer_config.json").write_text(content)
    assert refused(folder).metadata["path"].endswith("tokenizer_config.json")


def test_without_settings_the_roles_have_their_usual_names(folder: Path) -> None:
    """As transformers' own Gemma tokenizer has them."""
    (folder / "tokenizer_config.json").unlink()
    files = read_tokenizer_files(folder)
    assert (files.bos, files.eos, files.control) == ("<bos>", "<eos>", frozenset())


def test_what_a_training_batch_needed_is_switched_off(tmp_path: Path) -> None:
    """Cut to three tokens, padded to ten, merges left out by chance."""
    tokenizer = gemma_tokenizer()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=10)
    write_tokenizer(tmp_path, tokenizer)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["model"]["dropout"] = 0.5
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))

    vocabulary = vocabulary_of(tmp_path)
    read = [
        vocabulary.tokenize(" the capital", add_special=False, parse_special=False)
        for _ in range(20)
    ]
    wanted = [vocabulary.token(text) for text in ("▁the", "▁", "capital")]
    assert read == [wanted] * 20


@pytest.mark.parametrize(
    "value,source",
    [
        (None, None),
        ("x", "x"),
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "tool_use", "template": "t"}], None),
        (7, None),
    ],
)
def test_a_template_may_stand_in_the_settings(
    folder: Path, value: object, source: str | None
) -> None:
    """As it did before it had a file of its own, which goes first."""
    change(folder / "tokenizer_config.json", chat_template=value)
    own = (folder / "chat_template.jinja").read_text()
    assert read_tokenizer_files(folder).chat_template == own
    (folder / "chat_template.jinja").unlink()
    assert read_tokenizer_files(folder).chat_template == source
