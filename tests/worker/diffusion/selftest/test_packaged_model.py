"""The tiny model that travels with gemd is what the tests' fixture makes of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gemd.worker.diffusion.selftest.measuring import TINY, answers, load_report
from tests.support.packaged_tiny import MODEL, PACKAGED, write_packaged
from tests.support.tiny_diffusion import ANSWERS, read_tensors

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_what_the_generator_writes(tmp_path: Path) -> None:
    """Run `python -m tests.support.packaged_tiny` when the fixture or the layout has changed."""
    torch.set_num_threads(1)
    write_packaged(tmp_path)

    assert TINY == PACKAGED
    assert {file.name for file in TINY.iterdir()} == {file.name for file in tmp_path.iterdir()}
    for file in TINY.iterdir():
        if file.name != MODEL:
            assert file.read_bytes() == (tmp_path / file.name).read_bytes()
    ours, theirs = read_tensors(TINY), read_tensors(tmp_path)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        # Bytes: numbers in eight bits have no equality of their own.
        assert torch.equal(tensor.reshape(-1).view(torch.uint8), _bytes(theirs[name])), name


def test_it_is_small_and_has_everything_that_is_packed() -> None:
    """Experts and dense layers of four layers, without the tower that sees images."""
    assert sum(file.stat().st_size for file in TINY.iterdir()) < 1.6e6
    assert (TINY / MODEL).stat().st_mode & 0o777 == 0o644
    assert answers() == ANSWERS
    assert load_report(torch.device("cpu")) == {
        "layout": "modelopt",
        "parameters": 1_573_472,
        "packed_modules": 16,
    }
    assert not [name for name in read_tensors(TINY) if "vision" in name]


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)
