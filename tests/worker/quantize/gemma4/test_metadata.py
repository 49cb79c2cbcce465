"""General keys, the chat template, and what a model wants to be sampled with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gemd.errors import BadModelFileError
from gemd.worker.fields import Fields
from gemd.worker.quantize.gemma4.metadata import (
    general_fields,
    model_name,
    read_template,
    size_label,
    suppressed,
)
from gemd.worker.quantize.gemma4.tokenizer import Vocabulary
from gemd.worker.quantize.gguf.header import STRING, Packed
from gemd.worker.quantize.source import SourceTensor

if TYPE_CHECKING:
    from pathlib import Path


def _general(directory: Path, **generation: Any) -> dict[str, object]:
    table = Fields(directory / "generation_config.json", generation)
    return {field.key: field.value for field in general_fields(directory, table, ())}


def test_licence_of_the_card(tmp_path: Path) -> None:
    """It is taken from the front matter of README.md; a card without one or an odd one is none."""
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: apache-2.0\nlicense_link: https://ai.google.dev/x\n---\n# Model")
    fields = _general(tmp_path)
    assert fields["general.license"] == "apache-2.0"
    assert fields["general.license.link"] == "https://ai.google.dev/x"
    card.write_text("---\nlicense: [a, b]\n---\n")
    assert _general(tmp_path)["general.license"] == "a,b"
    for text in ("# Model", "---\n- [\n---\n", "---\nlicense: {}\n---\n", ""):
        card.write_text(text)
        assert not any("license" in key for key in _general(tmp_path))


def test_sampling(tmp_path: Path) -> None:
    """Numbers are passed on under llama.cpp's names; what is no number is an error."""
    fields = _general(tmp_path, top_k=64, top_p=0.95, temperature=1, repetition_penalty=1.1)
    found = {key: value for key, value in fields.items() if "sampling" in key}
    assert found == {
        "general.sampling.top_k": 64,
        "general.sampling.top_p": 0.95,
        "general.sampling.temp": 1.0,
        "general.sampling.penalty_repeat": 1.1,
    }
    with pytest.raises(BadModelFileError, match="top_k"):
        _general(tmp_path, top_k="many")


def test_names(tmp_path: Path) -> None:
    """A directory's own name counts, in the hub's cache the repository's."""
    snapshot = tmp_path / "models--a--gemma-4-E2B-it" / "snapshots" / "abc"
    assert model_name(snapshot) == "gemma-4-E2B-it"
    fields = _general(snapshot)
    assert fields["general.name"] == "Gemma 4 E2B It"
    assert fields["general.size_label"] == "E2B"
    assert fields["general.finetune"] == "it"
    fields = _general(tmp_path / "my-model v1")
    assert fields["general.name"] == "My Model V1"
    assert "general.basename" not in fields


@pytest.mark.parametrize(
    "count,said",
    [(5, "0.01K"), (190_700, "191K"), (4_629_000_000, "4.6B"), (30_697_000_000, "31B")],
)
def test_size_by_parameters(count: int, said: str) -> None:
    """Two digits at least, as in GGUF's naming convention."""
    assert size_label([SourceTensor("x.weight", (count,), "F32", "")]) == said


def test_size_of_a_mixture() -> None:
    """Experts are counted once, and how many there are comes first."""
    tensors = [
        SourceTensor("blk.0.ffn_down_exps.weight", (1000, 1000, 128), "BF16", ""),
        SourceTensor("blk.0.ffn_down_exps.scale", (128,), "F32", ""),
        SourceTensor("token_embd.weight", (1000, 1500), "BF16", ""),
    ]
    assert size_label(tensors) == "128x2.5M"


def test_chat_templates(tmp_path: Path) -> None:
    """A file comes before the settings; of several in the settings the default one counts."""
    several = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
    none, one = Fields(tmp_path, {}), Fields(tmp_path, {"chat_template": "s"})
    assert read_template(tmp_path, none) is None
    assert read_template(tmp_path, one) == "s"
    assert read_template(tmp_path, Fields(tmp_path, {"chat_template": several})) == "d"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "j"}))
    assert read_template(tmp_path, one) == "j"
    (tmp_path / "chat_template.jinja").write_text("jinja ▁")
    assert read_template(tmp_path, one) == "jinja ▁"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(BadModelFileError, match=r"chat_template\.jinja"):
        read_template(tmp_path, one)


def test_suppressed_tokens(tmp_path: Path) -> None:
    """They have to be tokens; none at all is no list."""
    vocabulary = Vocabulary(("a", "b"), (1, 1), Packed(b"", STRING, 0), {}, None)

    def of(value: object) -> list[object]:
        table = Fields(tmp_path, {"suppress_tokens": value})
        return [field.value for field in suppressed(table, vocabulary)]

    assert of([1, 0]) == [(1, 0)]
    assert of(None) == of([]) == []
    wrong: tuple[object, ...] = ([2], [True], "1", {})
    for odd in wrong:
        with pytest.raises(BadModelFileError, match="suppress_tokens"):
            of(odd)
