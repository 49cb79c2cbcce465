"""``python -m tests.support.interpreted``: the Triton kernels, interpreted, by the reference.

A process of its own, because Triton decides at its import whether functions are compiled. Reads
cases as JSON from stdin, prints one result for each.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from unittest import mock

import torch

from tests.support import apart
from tests.support.packed_layers import experts_of, linear_of, relative_error, routed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.packed_layers import Routing, Scales


@dataclass(frozen=True)
class Case:
    """A layer and what it is given.

    Attributes:
        dtype: Name of the type that is computed in.
        experts: How many; 0 for a linear layer.
        hidden: Columns that come in.
        inner: Of an expert; of a linear layer, columns that go out.
        tokens: How many.
        k: Experts of a token; of a linear layer, groups of rows.
        scales: See `packed_layers.fill`.
        routing: See `packed_layers.routed`.
        tile: Rows, tokens, columns and parts of the kernels' tiles.
        seed: Of all numbers.
        hopper: In the order for Hopper's tensor cores.

    """

    dtype: str
    experts: int
    hidden: int
    inner: int
    tokens: int
    k: int
    scales: Scales = "usual"
    routing: Routing = "random"
    tile: tuple[int, int, int, int] = (32, 16, 64, 1)
    seed: int = 0
    hopper: bool = False


def run_interpreted(cases: Sequence[Case], checkpoint: Path | None = None) -> dict[str, Any]:
    """Results of the cases, and of a whole model.

    Args:
        cases: To compute.
        checkpoint: A folder with a packed checkpoint whose canvas step is compared too.

    Returns:
        «errors» relative to the reference by case; «again»: whether a second run of the first case
        gave the same bits; «model»: the relative error of the model's last hidden states.

    """
    given = {
        "cases": [asdict(case) for case in cases],
        "checkpoint": None if checkpoint is None else str(checkpoint),
    }
    found: dict[str, Any] = apart.interpreted("interpreted", given)
    return found


def _main() -> None:
    torch.set_num_threads(1)
    given = json.load(sys.stdin)
    cases = [Case(**case) for case in given["cases"]]
    outputs = [_outputs(case) for case in cases]
    found: dict[str, Any] = {
        "errors": [relative_error(ours, theirs) for ours, theirs in outputs],
        "again": all(torch.equal(_outputs(case)[0], outputs[0][0]) for case in cases[:1]),
    }
    if given["checkpoint"] is not None:
        found["model"] = _whole_model(Path(given["checkpoint"]))
    json.dump(found, sys.stdout)


def _outputs(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the kernels and of the reference."""
    from gemd.worker.diffusion.compute import fused, use_path  # noqa: PLC0415 - needs Triton
    from gemd.worker.diffusion.compute.tiles import Kind, Tile, bucket  # noqa: PLC0415 - as above

    assert fused.interpreted()
    generator = torch.Generator().manual_seed(case.seed)
    dtype = getattr(torch, case.dtype)
    x = torch.randn(case.tokens, case.hidden, generator=generator).to(dtype)
    arguments: tuple[torch.Tensor, ...] = (x,)
    module: torch.nn.Module
    if case.experts:
        module = experts_of(
            generator,
            experts=case.experts,
            hidden=case.hidden,
            inner=case.inner,
            dtype=dtype,
            scales=case.scales,
        )
        chosen, weights = routed(
            generator, tokens=case.tokens, experts=case.experts, k=case.k, routing=case.routing
        )
        arguments = (x, chosen, weights.to(dtype))
        size = bucket(case.tokens * case.k, case.experts)
    else:
        module = linear_of(
            generator,
            columns=case.hidden,
            rows=case.inner,
            groups=case.k,
            dtype=dtype,
            scales=case.scales,
        )
        size = bucket(case.tokens, 1)
    rows, tokens, columns, parts = case.tile
    for kind in get_args(Kind):
        fused.FUSED.tiles[kind, size] = Tile(rows, tokens, columns, 4, 1, parts)
    theirs = module(*arguments)
    use_path(module, "triton")
    with mock.patch.object(fused, "hopper", return_value=case.hopper):
        ours = module(*arguments)
    assert ours.dtype == theirs.dtype
    return ours, theirs


def _whole_model(path: Path) -> float:
    from gemd.worker.diffusion.checkpoint import load_checkpoint  # noqa: PLC0415 - needs Triton
    from gemd.worker.diffusion.compute import fused, use_path  # noqa: PLC0415 - as above
    from gemd.worker.diffusion.stack import Stack  # noqa: PLC0415 - as above

    fused.FUSED.tiles.clear()

    checkpoint = load_checkpoint(path, device=torch.device("cpu"), dtype=torch.float32)
    stack = Stack(checkpoint, slots=1, context_tokens=64)
    stack.encode(0, [2, 17, 40, 99, 7, 300])
    generator = torch.Generator().manual_seed(0)
    shape = (1, stack.canvas_tokens)
    canvas = torch.randint(0, stack.vocabulary, shape, generator=generator)
    outputs = []
    for name in ("reference", "triton"):
        use_path(checkpoint.decoder, name)
        outputs.append(stack.denoise([0], canvas, None))
    return relative_error(outputs[1], outputs[0])


if __name__ == "__main__":
    _main()
