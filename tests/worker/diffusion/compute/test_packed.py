"""Packed layers compute what transformers' own do with the same weights as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import DiffusionGemmaTextConfig
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaTextExperts

from gemd.worker.diffusion.compute import PackedExperts, PackedLinear, dequantize, use_path
from gemd.worker.diffusion.compute import reference as reference_path
from gemd.worker.diffusion.compute.nvfp4 import SCRATCH_PER_ELEMENT
from gemd.worker.diffusion.compute.reference import Reference
from tests.support.packed_layers import experts_of, linear_of, relative_error, routed

if TYPE_CHECKING:
    from tests.support.packed_layers import Routing

PATHS = ("reference", "dequantize")
ROUTINGS: tuple[Routing, ...] = ("random", "one expert", "one row each")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two threads on a busy machine of two cores are far slower than one."""
    torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    """Nobody else's."""
    return torch.Generator().manual_seed(seed)


def transformers_experts(module: PackedExperts) -> Any:
    """Transformers' module with these weights in float32."""
    config = DiffusionGemmaTextConfig(
        hidden_size=module.hidden_dim,
        moe_intermediate_size=module.intermediate_dim,
        num_experts=module.num_experts,
        top_k_experts=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    config._experts_implementation = "eager"
    theirs: Any = DiffusionGemmaTextExperts(config)
    for name, parts in {
        "gate_up_proj": (module.gate_up_packed, module.gate_up_scale, module.gate_up_global),
        "down_proj": (module.down_packed, module.down_scale, module.down_global),
    }.items():
        getattr(theirs, name).data = dequantize(*parts, dtype=torch.float32)
    return theirs


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("path", PATHS)
def test_experts_agree_with_transformers(path: str, routing: Routing) -> None:
    """Whichever experts the tokens go to."""
    ours = experts_of(generator(), experts=6, hidden=48, inner=32)
    x = torch.randn(11, 48, generator=generator(1))
    chosen, weights = routed(generator(2), tokens=11, experts=6, k=2, routing=routing)
    use_path(ours, path)

    with torch.no_grad():
        expected = transformers_experts(ours)(x, chosen, weights)

    assert relative_error(ours(x, chosen, weights), expected) < 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_a_linear_layer_is_a_product_with_its_numbers(path: str) -> None:
    """Two groups of rows, and any shape before the columns."""
    layer = linear_of(generator(), columns=48, rows=32, groups=2)
    x = torch.randn(2, 5, 48, generator=generator(1))
    use_path(layer, path)

    weight = dequantize(
        layer.weight_packed, layer.weight_scale, layer.global_scale, dtype=torch.float32
    )
    torch.testing.assert_close(layer(x), x @ weight.T)


def test_the_reference_unpacks_no_more_at_once_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only experts that have tokens, in groups; and the result is the same."""
    module = experts_of(generator(), experts=8, hidden=64, inner=32)
    x = torch.randn(9, 64, generator=generator(1))
    chosen = torch.tensor([[1, 3, 4, 6, 7]]).expand(9, 5)
    weights = torch.ones(9, 5)
    expected = module(x, chosen, weights)
    sizes: list[int] = []

    def recorded(packed: torch.Tensor, *rest: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        sizes.append(2 * packed.numel() * SCRATCH_PER_ELEMENT)
        return dequantize(packed, *rest, dtype=dtype)

    monkeypatch.setattr(reference_path, "dequantize", recorded)
    two_experts = 2 * 64 * 64 * SCRATCH_PER_ELEMENT
    module.arithmetic = Reference(two_experts)

    assert torch.equal(module(x, chosen, weights), expected)
    assert max(sizes) <= two_experts
    assert len(sizes) == 2 * 3
    assert sum(sizes) == 5 * 3 * 64 * 32 * SCRATCH_PER_ELEMENT


@pytest.mark.parametrize("path", PATHS)
def test_no_tokens_are_no_problem(path: str) -> None:
    """An empty batch gives an empty result."""
    module = experts_of(generator())
    use_path(module, path)

    out = module(torch.empty(0, 48), torch.empty(0, 2, dtype=torch.int64), torch.empty(0, 2))

    assert out.shape == (0, 48)


def test_what_comes_in_decides_the_type_of_what_goes_out() -> None:
    """Computation is in the module's own type."""
    module = experts_of(generator(), dtype=torch.bfloat16)
    x = torch.randn(4, 48, generator=generator(1))
    chosen, weights = routed(generator(2), tokens=4, experts=4, k=2)

    out = module(x, chosen, weights)

    assert out.dtype == torch.float32
    assert torch.equal(out, module(x.bfloat16(), chosen, weights).float())


def test_a_conversion_changes_what_is_computed_in_and_no_weight() -> None:
    """`to(bfloat16)` on a decoder would turn scales into something that nothing reads."""
    layer = torch.nn.Sequential(linear_of(generator()), torch.nn.Linear(32, 16))
    packed = layer[0]
    assert isinstance(packed, PackedLinear)
    before = {name: buffer.clone() for name, buffer in packed.named_buffers()}

    layer.to(torch.bfloat16)

    assert layer[1].weight.dtype == torch.bfloat16
    assert packed.dtype == torch.bfloat16
    for name, buffer in packed.named_buffers():
        assert buffer.dtype == before[name].dtype
        assert torch.equal(buffer.view(torch.uint8), before[name].view(torch.uint8))


def test_memory_can_be_made_later() -> None:
    """A decoder is built without memory and gets it on its device, as loaders do."""
    module = PackedExperts(2, 32, 16, dtype=torch.bfloat16, device=torch.device("meta"))

    module.to_empty(device="cpu")

    shapes = {name: (buffer.dtype, tuple(buffer.shape)) for name, buffer in module.named_buffers()}
    assert shapes == {
        "gate_up_packed": (torch.uint8, (2, 32, 16)),
        "gate_up_scale": (torch.float8_e4m3fn, (2, 32, 2)),
        "gate_up_global": (torch.float32, (2, 2)),
        "down_packed": (torch.uint8, (2, 32, 8)),
        "down_scale": (torch.float8_e4m3fn, (2, 32, 1)),
        "down_global": (torch.float32, (2, 1)),
    }
    assert {buffer.device.type for buffer in module.buffers()} == {"cpu"}
    assert module.dtype == torch.bfloat16
