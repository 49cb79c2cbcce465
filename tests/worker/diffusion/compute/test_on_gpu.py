"""On a real GPU: the kernels' bfloat16, tiles by measurement, and steps as CUDA graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from gemd.worker.diffusion.compute import choose_path, tune, use_path
from gemd.worker.diffusion.compute.check import BOUNDS, error_of
from tests.support.packed_layers import experts_of, linear_of, relative_error, routed

if TYPE_CHECKING:
    from tests.support.packed_layers import Routing

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda:0")
ROUTINGS: tuple[Routing, ...] = ("random", "one expert", "one row each")


@pytest.fixture(autouse=True)
def needs_gpu() -> None:
    """There has to be one that the kernels are for."""
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")


def decoder(dtype: torch.dtype = torch.bfloat16) -> torch.nn.Module:
    """Experts and a linear layer whose widths no tile divides, on the GPU."""
    generator = torch.Generator().manual_seed(0)
    modules = (
        experts_of(generator, experts=16, hidden=368, inner=208, dtype=dtype),
        linear_of(generator, columns=368, rows=240, groups=2, dtype=dtype),
    )
    return torch.nn.ModuleList(modules).to(GPU)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_kernels_compute_what_the_reference_does(dtype: torch.dtype) -> None:
    """In every type."""
    model = decoder(dtype)
    use_path(model, "triton")

    error, bound = error_of(model)

    assert error <= bound


@pytest.mark.parametrize("scales", ["usual", "extreme"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_experts_in_bfloat16_for_every_routing(routing: Routing, scales: str) -> None:
    """The reference in float32 is the truth; bfloat16 differs by what it rounds."""
    generator = torch.Generator().manual_seed(1)
    module = experts_of(
        generator,
        experts=12,
        hidden=352,
        inner=176,
        scales="extreme" if scales == "extreme" else "usual",
    )
    x = torch.randn(300, 352, generator=generator).bfloat16()
    chosen, weights = routed(generator, tokens=300, experts=12, k=4, routing=routing)
    expected = module(x.float(), chosen, weights)
    module.to(GPU).to(torch.bfloat16)
    use_path(module, "triton")

    ours = module(x.to(GPU), chosen.to(GPU), weights.to(GPU).bfloat16())

    assert relative_error(ours.cpu(), expected) < 1e-2


def test_the_same_input_gives_the_same_bits() -> None:
    """Sums are made in a fixed order."""
    module = experts_of(torch.Generator().manual_seed(0), dtype=torch.bfloat16).to(GPU)
    use_path(module, "triton")
    chosen, weights = routed(torch.Generator().manual_seed(1), tokens=64, experts=4, k=2)
    arguments = (
        torch.randn(64, 48, generator=torch.Generator().manual_seed(2)).to(GPU, torch.bfloat16),
        chosen.to(GPU),
        weights.to(GPU, torch.bfloat16),
    )

    first = module(*arguments)

    assert all(torch.equal(module(*arguments), first) for _ in range(5))


def test_experts_can_be_recorded_as_a_cuda_graph() -> None:
    """Nothing waits for the host, and routing may differ from one replay to the next."""
    module = experts_of(torch.Generator().manual_seed(0), dtype=torch.bfloat16).to(GPU)
    use_path(module, "triton")
    x = torch.randn(64, 48, device=GPU).bfloat16()
    drawn = [
        routed(torch.Generator().manual_seed(seed), tokens=64, experts=4, k=2) for seed in (1, 2)
    ]
    chosen, weights = (part.to(GPU) for part in drawn[0])
    module(x, chosen, weights)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = module(x, chosen, weights)
    chosen.copy_(drawn[1][0])
    weights.copy_(drawn[1][1])
    graph.replay()

    assert torch.equal(out, module(x, chosen, weights))


def test_tiles_are_measured_and_the_numbers_stay_right() -> None:
    """Whatever tile is kept."""
    model = decoder()
    found = tune(model, tokens=[64], k=2, budget=20.0)
    use_path(model, "triton")
    error, bound = error_of(model)

    assert {one.kind for one in found} == {"gate_up", "down", "linear"}
    assert all(one.milliseconds <= one.first for one in found)
    assert error <= bound


def test_a_path_is_chosen_by_real_times() -> None:
    """All three are timed on this GPU, or named with what was in the way."""
    model = decoder()
    x = torch.randn(64, 368, device=GPU).bfloat16()
    chosen, weights = (
        part.to(GPU)
        for part in routed(torch.Generator().manual_seed(1), tokens=64, experts=16, k=2)
    )
    choice = choose_path(model, lambda: model[0](x, chosen, weights), GPU)  # type: ignore[index]  # a list

    assert choice.name in choice.milliseconds
    assert set(choice.milliseconds) == {"reference", "dequantize", "triton"}
