"""A tokenizer.json becomes the vocabulary that llama.cpp wants, or an error that says why not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemd.errors import BadModelFileError
from gemd.worker.fields import Fields
from gemd.worker.quantize.gemma4.metadata import tokenizer_fields
from gemd.worker.quantize.gemma4.tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    USER_DEFINED,
    read_vocabulary,
)
from tests.support.gemma4_checkpoints import NAMED, VISIBLE, gemma4_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gemd.worker.quantize.gemma4.tokenizer import Vocabulary

Document = dict[str, Any]


def _document() -> Document:
    document: Document = json.loads(gemma4_tokenizer().to_str())
    return document


def _read(
    folder: Path,
    document: Document,
    settings: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    **style: Any,
) -> Vocabulary:
    (folder / "tokenizer.json").write_text(json.dumps(document, **style))
    said = Fields(folder / "tokenizer_config.json", NAMED if settings is None else settings)
    return read_vocabulary(folder, said, Fields(folder / "config.json", config or {}))


@pytest.mark.parametrize(
    "style", [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}]
)
def test_any_way_of_writing_it(tmp_path: Path, style: dict[str, Any]) -> None:
    """Space and escapes do not matter; nor whether merges are pairs or texts."""
    document = _document()
    expected = sorted(document["model"]["vocab"], key=document["model"]["vocab"].get)
    found = _read(tmp_path, document, **style)
    assert list(found.tokens) == [*expected, "<table>"]
    merges = [" ".join(pair) for pair in document["model"]["merges"]]
    assert list(found.merges) == merges
    document["model"]["merges"] = merges
    again = _read(tmp_path, document, **style)
    assert (again.tokens, list(again.merges)) == (found.tokens, merges)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        unique=True,
        max_size=20,
    )
)
def test_any_texts(tmp_path: Path, texts: list[str]) -> None:
    """Whatever Unicode there is in a token, it comes out as it went in."""
    document = _document()
    vocab = document["model"]["vocab"]
    document["added_tokens"] = []
    for text in texts:
        vocab.setdefault(text, len(vocab))
    found = _read(tmp_path, document)
    assert list(found.tokens) == sorted(vocab, key=vocab.get)


def test_types_and_roles(tmp_path: Path) -> None:
    """Tokens with a role are control tokens, but for those that an answer's text has to show."""
    found = _read(tmp_path, _document(), config={"text_config": {"pad_token_id": 5}})
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert {kinds[text] for text in VISIBLE} == {USER_DEFINED}
    assert {kinds[text] for text in NAMED.values() if text not in VISIBLE} == {CONTROL}
    assert kinds["<0x0A>"] == BYTE
    assert (kinds["\n\n"], kinds["<table>"]) == (NORMAL, USER_DEFINED)
    # Settings come before config.json.
    assert found.roles == {"pad": 0, "eos": 1, "bos": 2, "unk": 3, "mask": 4}


def test_silent_settings(tmp_path: Path) -> None:
    """Without settings the usual tokens are control tokens, and config.json gives them roles."""
    config = {"bos_token_id": 2, "eos_token_id": [1, 8], "text_config": {"pad_token_id": 0}}
    found = _read(tmp_path, _document(), settings={}, config=config)
    assert found.types[:5] == (CONTROL,) * 5
    assert found.roles == {"bos": 2, "pad": 0}
    listed = _read(tmp_path, _document(), {"extra_special_tokens": {"x": "▁the"}})
    assert listed.types[listed.tokens.index("▁the")] == CONTROL


def test_end_of_texts(tmp_path: Path) -> None:
    """An end token behind each text is taken from the template, then from the settings."""
    document = _document()
    assert _read(tmp_path, document).ends is None
    assert _read(tmp_path, document, {**NAMED, "add_eos_token": False}).ends is False
    end = {"SpecialToken": {"id": "<eos>", "type_id": 0}}
    document["post_processor"]["single"].append(end)
    found = _read(tmp_path, document)
    assert found.ends is True
    assert {field.key: field.value for field in tokenizer_fields(found, None)}[
        "tokenizer.ggml.add_eos_token"
    ]


def _model(**values: Any) -> Callable[[Document], None]:
    return lambda document: document["model"].update(values)


def _top(**values: Any) -> Callable[[Document], None]:
    return lambda document: document.update(values)


@pytest.mark.parametrize(
    "change,said",
    [
        (_model(type="Unigram"), "byte-pair"),
        (_model(byte_fallback=False), "byte-pair"),
        (_model(ignore_merges=True), "ignore_merges"),
        (_model(merges=[]), "no merges"),
        (_model(merges=[["a", "b", "c"]]), "more than two"),
        (_model(merges=[["a"]]), "one part"),
        (_model(merges=[["a", " b"]]), "without spaces"),
        (_model(merges=["ab"]), "without spaces"),
        (_model(merges={}), "list"),
        (_model(vocab={"a": 0, "b": 2}), "there are"),
        (_model(vocab={"a": 0, "b": 0}), "two numbers|number 0"),
        (_model(vocab=[["a", 0.1]]), "table of numbers"),
        (_model(vocab={"a": -1}), "no number"),
        (_model(vocab={"a": "0"}), "no number"),
        (_top(normalizer=None), "normalizer"),
        (_top(normalizer={"type": "NFC"}), "normalizer"),
        (_top(pre_tokenizer={"type": "ByteLevel"}), "before merging"),
        (_top(post_processor={"type": "ByteLevel"}), "post-processor"),
        (_top(post_processor=[]), "post-processor"),
        (_top(post_processor={"type": "TemplateProcessing", "single": "x"}), "post-processor"),
        (_top(added_tokens=[{"id": 0, "content": "<eos>"}]), "two numbers"),
        (_top(added_tokens=[{"id": 9999, "content": "<x>"}]), "9999"),
        (_top(added_tokens=["<x>"]), "added token"),
    ],
)
def test_other_tokenizers(tmp_path: Path, change: Callable[[Document], None], said: str) -> None:
    """What llama.cpp would read in another way than this tokenizer is refused with the reason."""
    document = _document()
    change(document)
    with pytest.raises(BadModelFileError) as caught:
        _read(tmp_path, document)
    assert any(part in str(caught.value) for part in said.split("|")), str(caught.value)


def test_tokens_for_bytes(tmp_path: Path) -> None:
    """One that cannot write each byte is refused."""
    document = _document()
    vocab = document["model"]["vocab"]
    vocab["<0xZZ>"] = vocab.pop("<0x41>")
    with pytest.raises(BadModelFileError, match="single bytes"):
        _read(tmp_path, document)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_damaged_files(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever byte is off, there is a vocabulary or a domain error, and no other one."""
    text = bytearray(json.dumps(_document()).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    if data.draw(st.booleans()):
        del text[place:]
    else:
        text[place] = data.draw(st.integers(0, 255))
    (tmp_path / "tokenizer.json").write_bytes(bytes(text))
    none = Fields(tmp_path / "config.json", {})
    try:
        found = read_vocabulary(tmp_path, Fields(tmp_path / "x", dict(NAMED)), none)
    except BadModelFileError:
        return
    assert len(found.tokens) == len(found.types)


def test_no_tokenizer(tmp_path: Path) -> None:
    """A model without a vocabulary reads nothing."""
    none = Fields(tmp_path / "config.json", {})
    with pytest.raises(BadModelFileError, match="no such file"):
        read_vocabulary(tmp_path, none, none)
