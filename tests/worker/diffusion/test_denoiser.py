"""Steps in few launches, as they are recorded on a GPU, and what goes the plain way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import pytest
import torch

from gemd.worker.diffusion.checkpoint import load_checkpoint
from gemd.worker.diffusion.denoiser import Denoiser
from gemd.worker.diffusion.fused_pass import together
from gemd.worker.diffusion.head import Bias, Filters, Head, Wish
from gemd.worker.diffusion.stack import Stack
from tests.support.interpreted_steps import run_steps
from tests.support.tiny_diffusion import TINY

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("triton")


@pytest.mark.slow
def test_fused_steps_read_what_plain_ones_read() -> None:
    """Two steps of two canvases behind short and long prompts, with positions that are given."""
    found = run_steps()

    assert found["soft"] < 1e-5
    assert found["entropy"] < 1e-5
    # Sums in another order, and a softmax that makes more of it.
    assert found["confidence"] < 1e-3
    assert found["likeliest"] == found["drawn"] == 1.0
    assert found["alone"]


@pytest.fixture(scope="module")
def stack() -> Stack:
    """The tiny model, with room for two answers."""
    checkpoint = load_checkpoint(TINY, device=torch.device("cpu"), dtype=torch.float32)
    return Stack(checkpoint, slots=2, context_tokens=64)


def _wish(stack: Stack) -> Wish:
    length = stack.canvas_tokens
    return Wish(
        temperature=0.8,
        uniforms=np.full(length, 0.5, dtype=np.float32),
        fixed=np.zeros(length, dtype=np.bool_),
        tokens=np.arange(length) % stack.vocabulary,
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda wish: replace(wish, filters=Filters(top_k=3)),
        lambda wish: replace(wish, bias=Bias.of({5: 2.0})),
    ],
)
def test_filters_and_biases_go_the_plain_way(
    stack: Stack, change: Callable[[Wish], Wish], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels know neither; so do canvases beside such a one."""
    head = Head(
        stack.embedding, stack.embedding_scale, stack.softcap, canvas_tokens=stack.canvas_tokens
    )
    denoiser = Denoiser(stack, head)
    recorded = mock.Mock(side_effect=AssertionError("a recorded step"))
    monkeypatch.setattr(Denoiser, "records", True)
    monkeypatch.setattr(denoiser, "_recorded", recorded)
    wish = _wish(stack)

    made = denoiser.step([0, 1], [wish, change(wish)], [None, None])

    assert len(made) == 2
    with pytest.raises(AssertionError, match="a recorded step"):
        denoiser.step([0, 1], [wish, wish], [None, None])


def test_products_of_the_same_input_lie_together(stack: Stack) -> None:
    """Queries, keys and values of a layer are one matrix, and each of them a part of it."""
    for layer in stack.decoder.layers:
        attention = layer.self_attn
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        modules = [module for module in parts if module is not None]
        weight = together(modules)
        assert weight is not None
        assert torch.equal(weight, torch.cat([module.weight for module in modules]))
        assert together([layer.mlp.gate_proj, layer.mlp.up_proj]) is not None
        assert together([attention.k_proj, attention.q_proj]) is None
