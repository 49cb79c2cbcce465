"""On an NVIDIA GPU of compute capability 8.0 and newer: every way to compute gives the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from gemd.worker.diffusion.compute import available_paths, use_path
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
        for each in available_paths(torch.device("cuda:0")):
            assert not each.obstacle
            use_path(decoder, each.name)
            assert {question: made.answer(question) for question in ANSWERS} == ANSWERS, each.name
            ids = {question: made.ask(question) for question in ANSWERS}
            made.run()
            found = {question: made.text(request) for question, request in ids.items()}
            assert found == ANSWERS, each.name
