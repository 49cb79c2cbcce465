"""The formula against the worker that it describes: what it loads, what its cache takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from gemd.catalog import Catalog
from gemd.footprint import diffusion, predict_diffusion, read_diffusion
from gemd.footprint.diffusion import diffusion_shape
from gemd.worker.diffusion import cache, head, stack
from gemd.worker.diffusion.checkpoint import files, load_checkpoint
from gemd.worker.diffusion.compute import nvfp4, reference
from tests.support.models import PROFILES
from tests.support.tiny_diffusion import TINY, write_nvfp4

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tiny_diffusion import Layout

WIDE, NARROW = 512, 256
"""Columns of a head of the published model, in layers that see everything and in the others."""


@pytest.mark.parametrize(
    "layout, dense", [(None, False), ("modelopt", True), ("compressed-tensors", False)]
)
def test_weights_and_cache_are_the_workers_to_the_byte(
    tmp_path: Path, layout: Layout | None, *, dense: bool
) -> None:
    """Of plain and of packed checkpoints, where the context fills the window and where not."""
    torch.set_num_threads(1)
    folder = TINY
    if layout is not None:
        folder = tmp_path / layout
        write_nvfp4(TINY, folder, layout, dense=dense)
    shape = read_diffusion(folder)
    checkpoint = load_checkpoint(folder, device=torch.device("cpu"))
    held = sum(tensor.nbytes for tensor in checkpoint.decoder.state_dict().values())
    held += sum(scalar.nbytes for scalar in checkpoint.encoder_scalars)
    assert shape.weights == held
    for tokens, slots in ((100, 1), (1000, 3)):
        made = stack.Stack(checkpoint, slots=slots, context_tokens=tokens)
        predicted = predict_diffusion(shape, context_tokens=tokens, sequences=slots)
        assert predicted.gpu.kv_cache == made.slots.nbytes


def test_figures_of_the_worker_are_its_own() -> None:
    """The daemon cannot import them; whoever changes one changes the other."""
    assert {
        "slack": diffusion.SLACK_TOKENS,
        "piece": diffusion.PREFILL_TOKENS,
        "mask": diffusion.MASK_ELEMENTS,
        "slice": diffusion.SLICE_TOKENS,
        "rows": diffusion.FEW_ROWS,
        "reference": diffusion.REFERENCE_BYTES,
        "unpacked": diffusion.UNPACKED_BYTES,
        "staging": diffusion.STAGING_BYTES,
    } == {
        "slack": cache.SLACK,
        "piece": stack.PREFILL_TOKENS,
        "mask": stack.MASK_ELEMENTS,
        "slice": head.SLICE,
        "rows": head.FEW_ROWS,
        "reference": reference.SCRATCH_BYTES,
        "unpacked": nvfp4.SCRATCH_PER_ELEMENT,
        "staging": files.CHUNK_BYTES,
    }


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_shared_attention_takes_less_than_the_experts(capability: tuple[int, int]) -> None:
    """Its float32 sums are there when no token is with its experts, for which there is room."""
    pytest.importorskip("triton")
    from gemd.worker.diffusion.compute import attention  # noqa: PLC0415 - it imports Triton

    facts = Catalog.load(PROFILES).resolve("diffusiongemma-26b-a4b").architecture
    shape = diffusion_shape(facts, weights=0)
    heads = shape.attention // WIDE
    shared = []
    for width, capacity in ((WIDE, 1 << 18), (NARROW, shape.window + shape.canvas)):
        blocks = attention.blocks_for(capability, width, torch.bfloat16)
        splits = attention.splits_for(
            blocks, heads=heads, canvas=shape.canvas, width=width, capacity=capacity
        )
        lines = splits * heads * shape.canvas
        shared.append(4 * lines * (width + 2) if splits > 1 else 0)
    assert 0 < max(shared) < shape.canvas * shape.routed * shape.element_bytes
