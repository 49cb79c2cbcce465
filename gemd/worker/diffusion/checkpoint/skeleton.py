"""The decoder before its weights: first without memory, then with memory that waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import (
    DiffusionGemmaDecoderModel,
)

from gemd.worker.diffusion.compute.packed import PackedExperts, PackedLinear

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import DiffusionGemmaConfig


def empty_decoder(config: DiffusionGemmaConfig) -> DiffusionGemmaDecoderModel:
    """The decoder's modules on the meta device; takes no memory, whatever the model's size."""
    with torch.device("meta"):
        decoder = DiffusionGemmaDecoderModel(config)
    return decoder.requires_grad_(requires_grad=False).train(mode=False)


def tree_of(decoder: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of all that a file has to fill, by path."""
    return {path: tuple(tensor.shape) for path, tensor in decoder.state_dict().items()}


def allocate(
    decoder: DiffusionGemmaDecoderModel,
    packed: Iterable[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Give the decoder its memory: packed where weights are packed, and nothing twice.

    Parameters hold arbitrary numbers afterwards. What no file has, the frequencies of positions
    and the factor of the embedding, is computed.

    Args:
        decoder: As `empty_decoder` made it.
        packed: Paths of the modules that are packed.
        device: Where all of it goes.
        dtype: Of parameters that are not packed, and what packed modules compute in.

    Raises:
        torch.OutOfMemoryError: The device has no room for it.

    """
    for path in packed:
        owner, _, field = path.rpartition(".")
        module = _packed(decoder.get_submodule(path), device=device, dtype=dtype)
        setattr(decoder.get_submodule(owner), field, module)
    embedding, rotary = decoder.embed_tokens, decoder.rotary_emb
    decoder.rotary_emb = type(rotary)(decoder.config.text_config).to(device)
    embedding.embed_scale = torch.tensor(embedding.scalar_embed_scale, device=device)
    for group in _side_by_side(decoder):
        _allocate_together(group, device=device, dtype=dtype)
    for module in decoder.modules():
        for field, parameter in module.named_parameters(recurse=False):
            if not parameter.is_meta:
                continue
            memory = torch.empty(parameter.shape, dtype=dtype, device=device)
            setattr(module, field, nn.Parameter(memory, requires_grad=False))
        for field, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, field, torch.empty(buffer.shape, dtype=dtype, device=device))


def _side_by_side(decoder: Any) -> Iterable[list[nn.Linear | None]]:
    """Linear layers of the same input, which become one product (`fused_pass.Products`)."""
    for layer in decoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        yield [attention.q_proj, attention.k_proj, attention.v_proj]
        yield [mlp.gate_proj, mlp.up_proj]


def _allocate_together(
    modules: Iterable[nn.Linear | None], *, device: torch.device, dtype: torch.dtype
) -> None:
    """One after the other in one piece of memory, those that are there and not packed."""
    plain = [module for module in modules if isinstance(module, nn.Linear)]
    if not plain:
        return
    shape = (sum(module.out_features for module in plain), plain[0].in_features)
    memory = torch.empty(shape, dtype=dtype, device=device)
    begin = 0
    for module in plain:
        end = begin + module.out_features
        module.weight = nn.Parameter(memory[begin:end], requires_grad=False)
        begin = end


def _packed(module: Any, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The packed module in place of one of transformers'."""
    if isinstance(module, nn.Linear):
        return PackedLinear(module.in_features, module.out_features, dtype=dtype, device=device)
    experts, rows, hidden = module.gate_up_proj.shape
    return PackedExperts(experts, hidden, rows // 2, dtype=dtype, device=device)
