"""A kernel that finds places as the head's kernels do; for Triton's interpreter."""

# mypy: disable-error-code="untyped-decorator"
# As in the kernels.

from __future__ import annotations

import torch
import triton
import triton.language as tl

from gemd.worker.diffusion.compute.head_kernels import _found


@triton.jit
def _place(
    sums: tl.tensor, adds: tl.tensor, wanted: tl.tensor, out: tl.tensor, count: tl.constexpr
) -> None:
    index = tl.arange(0, count)
    found = _found(tl.load(sums + index), tl.load(adds + index), tl.load(wanted))
    tl.store(out, found)


def place_of(sums: list[float], adds: list[float], wanted: float) -> int:
    """What `_found` says; as many sums as a power of two."""
    out = torch.full((1,), -1, dtype=torch.int32)
    _place[(1,)](
        torch.tensor(sums, dtype=torch.float64),
        torch.tensor(adds),
        torch.tensor([wanted], dtype=torch.float64),
        out,
        count=len(sums),
    )
    return int(out)
