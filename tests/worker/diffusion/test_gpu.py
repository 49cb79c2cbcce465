"""On an NVIDIA GPU of compute capability 8.0 and newer: every way to compute gives the answers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from gemd.worker.diffusion.compute import available_paths, use_path
from gemd.worker.diffusion.head import Bias, Head, Wish
from tests.support.diffusion import bench
from tests.support.tiny_diffusion import ANSWERS, TINY, write_nvfp4

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("layout", ["bf16", "modelopt", "compressed-tensors"])
def test_every_path_answers_sixteen_of_sixteen(tmp_path: Path, layout: str) -> None:
    """In the layouts as they are published, alone and in a batch of four."""
    path = TINY
    if layout != "bf16":
        path = tmp_path
        write_nvfp4(TINY, path, layout, dense=layout == "compressed-tensors")  # type: ignore[arg-type]
    with bench(path, gpu_layers=5) as made:
        decoder = made.engine._loaded.checkpoint.decoder
        # Of weights that are not packed there is one way to compute.
        paths = available_paths(torch.device("cuda:0"))[: 1 if layout == "bf16" else None]
        for each in paths:
            assert not each.obstacle
            use_path(decoder, each.name)
            assert {question: made.answer(question) for question in ANSWERS} == ANSWERS, each.name
            ids = {question: made.ask(question) for question in ANSWERS}
            made.run()
            found = {question: made.text(request) for question, request in ids.items()}
            assert found == ANSWERS, each.name


def test_a_reading_waits_for_the_gpu_once() -> None:
    """With a bias and given positions too, whose figures come from the host."""
    gpu, length, vocabulary = torch.device("cuda:0"), 16, 4096
    head = Head(
        torch.randn(vocabulary, 32, device=gpu),
        torch.tensor(1.0, device=gpu),
        30.0,
        canvas_tokens=length,
    )
    hidden = torch.randn(2, length, 32, device=gpu)
    wish = Wish(
        temperature=0.6,
        uniforms=np.full(length, 0.5, dtype=np.float32),
        fixed=np.arange(length) < 3,
        tokens=np.arange(length),
        bias=Bias.of({5: 1.0, 4000: -1.0}),
    )
    head.read(hidden, [wish, wish])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            head.read(hidden, [wish, wish])
        finally:
            torch.cuda.set_sync_debug_mode("default")

    # Not «synchroniz»: the mode's own notice, given once in a process, has that word too.
    assert sum("called a synchronizing" in str(each.message) for each in caught) == 1
