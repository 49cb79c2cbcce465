"""How the vectors of a text's tokens become one where the request leaves it to the model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gemd import wire
from gemd.errors import UnsupportedInputError
from gemd.footprint import read_gguf_header
from gemd.footprint.source import open_local
from gemd.footprint.types import TENSOR_TYPES
from gemd.worker.llama.pooling import pooling_of
from gemd.worker.quantize.gguf.header import ALIGNMENT, Entry, encoded, read_fields
from tests.support.llama import Bench, loaded

if TYPE_CHECKING:
    from pathlib import Path

MEAN, CLS, LAST, RANK = "1", "2", "3", "4"
TEXT = "A cat sat on the mat."


@pytest.mark.parametrize(
    "asked,made_for,expected",
    [
        (None, "", "mean"),
        (None, "0", "mean"),
        (None, MEAN, "mean"),
        (None, LAST, "last"),
        ("mean", LAST, "mean"),
        ("last", MEAN, "last"),
        ("last", "", "last"),
        ("mean", RANK, "mean"),
    ],
)
def test_a_pooling_is_the_one_asked_for_or_else_the_models(
    asked: wire.Pooling | None, made_for: str, expected: wire.Pooling
) -> None:
    """And the mean where nobody says anything."""
    assert pooling_of(asked, made_for) == expected


@pytest.mark.parametrize("made_for", [CLS, RANK, "7", "last"])
def test_a_model_made_for_another_way_wants_one_named(made_for: str) -> None:
    """The mean would be a vector that it was not made for, and nobody would know."""
    with pytest.raises(UnsupportedInputError, match="mean or last") as caught:
        pooling_of(None, made_for)
    assert caught.value.metadata == {"field": "pooling", "made_for": made_for}


def made_for(path: Path, kind: str, target: Path) -> Path:
    """The same model with this kind of pooling in its header."""
    header = read_gguf_header(path)
    kinds = {element.name: number for number, element in TENSOR_TYPES.items()}
    entries = [
        Entry(tensor.name, tensor.shape, kinds[tensor.type], tensor.offset)
        for tensor in header.tensors
    ]
    architecture = header.metadata["general.architecture"]
    with open_local(path) as source:
        fields = list(read_fields(source))
    (layers,) = (field for field in fields if field.key == f"{architecture}.block_count")
    pooling = dataclasses.replace(layers, key=f"{architecture}.pooling_type", value=int(kind))
    head = encoded([*fields, pooling], entries, alignment=ALIGNMENT)
    target.write_bytes(bytes(head) + path.read_bytes()[header.data_offset :])
    return target


def vector(
    bench: Bench, pooling: wire.Pooling | None
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The raw vector of a text that takes several tokens."""
    name = f"{pooling}-{len(bench.said)}"
    bench.forget()
    request = wire.Embed(request_id=name, texts=(TEXT,), pooling=pooling, normalize=False)
    bench.run(request)
    return np.array(bench.of(request).one(wire.Embeddings).vectors[0])


@pytest.mark.parametrize("kind,own", [(MEAN, "mean"), (LAST, "last")])
def test_a_model_pools_as_its_file_says(
    short_smollm2: Path, tmp_path: Path, kind: str, own: wire.Pooling
) -> None:
    """Either way can be asked for, and both are those of the file that says nothing."""
    with loaded(short_smollm2, context_tokens=256) as bench:
        plain = {pooling: vector(bench, pooling) for pooling in ("mean", "last", None)}
    with loaded(made_for(short_smollm2, kind, tmp_path / "made.gguf"), context_tokens=256) as bench:
        found = {pooling: vector(bench, pooling) for pooling in ("mean", "last", None)}
        bench.resize(128)
        resized = vector(bench, None)
    assert plain[None] == pytest.approx(plain["mean"])
    assert np.abs(plain["mean"] - plain["last"]).max() > 0.1
    for pooling in ("mean", "last"):
        assert found[pooling] == pytest.approx(plain[pooling])
    assert found[None] == pytest.approx(found[own])
    assert resized == pytest.approx(found[own])


def test_a_model_made_for_ranking_embeds_when_told_how(short_smollm2: Path, tmp_path: Path) -> None:
    """Otherwise that request is refused, and the worker goes on."""
    ranking = made_for(short_smollm2, RANK, tmp_path / "ranking.gguf")
    with loaded(ranking, context_tokens=256) as bench:
        request = wire.Embed(request_id="unnamed", texts=(TEXT,))
        bench.run(request)
        error = bench.of(request).one(wire.RequestFailed).error
        assert (error.reason, error.metadata["field"]) == ("UNSUPPORTED_INPUT", "pooling")
        assert "ranking" in error.why
        assert np.abs(vector(bench, "mean")).max() > 0
        assert bench.answer("Hello", max_tokens=2).finished.completion_tokens == 2
