"""The model with known answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from gemd.engine.builds.tiny_model import (
    _FIRST,
    PROMPTS,
    SIZE,
    STEPS,
    expected,
    successor,
    tiny_model,
)
from gemd.footprint import read_gguf_model

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_a_valid_file(tmp_path: Path) -> None:
    """Our own bounds-checking reader takes it: one layer, 12 tensors, all inside the file."""
    file = tmp_path / "model.gguf"
    file.write_bytes(tiny_model())
    header = read_gguf_model(file)
    assert header.metadata["general.architecture"] == "llama"
    assert len(header.tensors) == 12


@given(st.integers(_FIRST, SIZE - 1))
def test_successors_are_other_plain_tokens(token: int) -> None:
    """Never a control token, never the token itself."""
    assert _FIRST <= successor(token) < SIZE
    assert successor(token) != token


def test_answers_depend_on_the_whole_context() -> None:
    """The most frequent token wins, the last one breaks a tie: the steps of a prompt differ."""
    assert expected((262, 290, 290)) == [successor(290)] * 2 + [successor(successor(290))]
    assert expected((310,), 2) == [successor(310), successor(successor(310))]
    assert all(len(expected(prompt)) == STEPS for prompt in PROMPTS)
    assert max(map(len, PROMPTS)) > 32
