"""Importance matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest

from gemd.errors import BadModelFileError, InvalidRequestError
from gemd.worker.quantize.gguf.importance import Importance

if TYPE_CHECKING:
    from pathlib import Path


def matrix(path: Path, **tensors: object) -> Path:
    """A file with these tensors; two underscores stand for a point."""
    writer = gguf.GGUFWriter(path, "")
    for name, values in tensors.items():
        writer.add_tensor(name.replace("__", "."), np.array(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_weights_are_means_and_one_where_nothing_was_counted(tmp_path: Path) -> None:
    """One row for each expert; the second one was never asked."""
    path = matrix(tmp_path / "i.gguf", t__in_sum2=[[6, 9], [5, 5]], t__counts=[[3], [0]])
    found = Importance(path).of("t", (2, 7, 2))
    assert found is not None
    assert found.tolist() == [[2, 3], [1, 1]]
    assert Importance(path).of("u", (2, 7, 2)) is None


def test_one_of_another_model_is_refused(tmp_path: Path) -> None:
    """Its width or number of experts differs; embeddings alone may be left out."""
    path = matrix(
        tmp_path / "i.gguf",
        t__in_sum2=[[6, 9]], t__counts=[[3]],
        token_embd__weight__in_sum2=[[6, 9]], token_embd__weight__counts=[[3]],
    )  # fmt: skip
    with pytest.raises(InvalidRequestError, match="another model"):
        Importance(path).of("t", (3, 7))
    with pytest.raises(InvalidRequestError, match="another model"):
        Importance(path).of("t", (2, 7, 2))
    assert Importance(path).of("token_embd.weight", (3, 7)) is None


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """No pairs, a single one, other tensors, numbers that are none."""
    for number, tensors in enumerate(
        ({}, {"t__in_sum2": [1]}, {"t__weight": [1]}, {"t__counts": [1]})
    ):
        with pytest.raises(BadModelFileError, match="importance matrix"):
            Importance(matrix(tmp_path / f"{number}.gguf", **tensors))
    path = matrix(tmp_path / "nan.gguf", t__in_sum2=[[float("inf"), 9]], t__counts=[[3]])
    with pytest.raises(BadModelFileError, match="finite"):
        Importance(path).of("t", (2, 7))
