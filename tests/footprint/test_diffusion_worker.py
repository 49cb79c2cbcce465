"""The formula against the worker that it describes: what it loads, what its cache takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from gemd.footprint import diffusion, predict_diffusion, read_diffusion
from gemd.worker.diffusion import cache, head, stack
from gemd.worker.diffusion.checkpoint import files, load_checkpoint
from gemd.worker.diffusion.compute import nvfp4, reference
from tests.support.tiny_diffusion import TINY, write_nvfp4

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tiny_diffusion import Layout


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
