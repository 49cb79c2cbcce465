"""llama.cpp computes from the file what transformers computes from the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from gemd.worker.quantize.gemma4 import Gemma4Source
from tests.support.gemma4_checkpoints import FORMS, VOCABULARY, write_checkpoint
from tests.support.unquantized_gguf import llama_of, write_unquantized

if TYPE_CHECKING:
    from pathlib import Path

_PROMPTS = 4
_TOKENS = 24
"""Three windows long."""


@pytest.mark.parametrize("form", FORMS)
def test_logits_of_f32(form: str, tmp_path: Path) -> None:
    """They differ by less than 0.02 at a spread of 1.2, and the likeliest token is the same.

    What is left is ggml's activation function, which looks its values up in half precision.
    """
    model = write_checkpoint(tmp_path, form, dtype=torch.float32)
    expected, found = _both(model, tmp_path, form)
    assert expected.std() > 1.0
    assert np.abs(expected - found).max() < 0.02
    assert np.array_equal(expected.argmax(-1), found.argmax(-1))


@pytest.mark.parametrize("form", FORMS)
def test_logits_of_bf16(form: str, tmp_path: Path) -> None:
    """With weights in BF16 95 of 100 likeliest tokens are the same.

    llama.cpp rounds what it multiplies them with to BF16 too; transformers is asked in F32.
    """
    model = write_checkpoint(tmp_path, form, dtype=torch.bfloat16)
    expected, found = _both(model.float(), tmp_path, form)
    assert np.abs(expected - found).mean() < 0.05
    assert (expected.argmax(-1) == found.argmax(-1)).mean() >= 0.95


def _both(model: torch.nn.Module, directory: Path, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits of transformers and llama.cpp behind each token of some prompts."""
    torch.set_num_threads(1)
    source = Gemma4Source(directory)
    write_unquantized(directory / "model.gguf", source)
    source.close()
    draws = np.random.default_rng(len(form))
    expected, found = [], []
    with llama_of(directory / "model.gguf") as loaded, torch.no_grad():
        for _ in range(_PROMPTS):
            tokens = [2, *draws.integers(20, VOCABULARY, _TOKENS).tolist()]
            expected.append(model(input_ids=torch.tensor([tokens])).logits[0].numpy())
            found.append(loaded.logits(tokens))
    return np.concatenate(expected), np.concatenate(found)
