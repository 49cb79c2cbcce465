"""Block-diffusion models of random weights for `tests.bench.diffusion_gpu`, the real shape or tiny.

Written for a machine that has torch and transformers and little else. Packages of gemd that import
more when they are imported are entered without their ``__init__``.
"""

from __future__ import annotations

import importlib
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.worker.diffusion.head import Head
    from gemd.worker.diffusion.stack import Stack

ROOT: Final = Path(__file__).parents[2]
_CLOSED: Final = ("gemd.footprint", "gemd.worker.diffusion.checkpoint")
"""Packages whose ``__init__`` imports what only the daemon's environment has."""


def open_packages() -> None:
    """Make modules importable whose packages are not."""
    for name in _CLOSED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            package = types.ModuleType(name)
            package.__path__ = [str(ROOT / name.replace(".", "/"))]
            sys.modules[name] = package


@dataclass(frozen=True)
class Shape:
    """A model as its config describes it.

    Attributes:
        hidden: Of the residual stream.
        dense: Of the dense MLP.
        layers: How many; every sixth attends to everything.
        heads: Of queries, and of keys with a window and without.
        widths: Of a head, with a window and without.
        experts: How many.
        k: Of a token.
        inner: Of an expert.
        vocabulary: Tokens.
        window: Tokens.
        canvas: Tokens.

    """

    hidden: int
    dense: int
    layers: int
    heads: tuple[int, int, int]
    widths: tuple[int, int]
    experts: int
    k: int
    inner: int
    vocabulary: int
    window: int
    canvas: int


REAL: Final = Shape(2816, 2112, 30, (16, 8, 2), (256, 512), 128, 8, 704, 262144, 1024, 256)
"""DiffusionGemma 26B-A4B."""
TINY: Final = Shape(64, 96, 6, (4, 2, 1), (16, 32), 8, 2, 32, 512, 64, 32)
"""To see that everything runs."""


@dataclass
class Model:
    """A decoder with its cache and its head.

    Attributes:
        shape: That it was made of.
        layers: It has; fewer than the shape where memory was short.
        decoder: Transformers' module tree.
        stack: Its two passes.
        head: Reads hidden states.

    """

    shape: Shape
    layers: int
    decoder: Any
    stack: Stack
    head: Head

    @property
    def experts(self) -> list[Any]:
        """The experts of every layer."""
        return [layer.experts for layer in self.decoder.layers]


def config_of(shape: Shape, layers: int) -> Any:
    """Transformers' config."""
    from transformers import DiffusionGemmaConfig, DiffusionGemmaTextConfig  # noqa: PLC0415 - slow

    pattern = ["sliding_attention"] * 5 + ["full_attention"]
    text = DiffusionGemmaTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.dense,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads[0],
        num_key_value_heads=shape.heads[1],
        num_global_key_value_heads=shape.heads[2],
        head_dim=shape.widths[0],
        global_head_dim=shape.widths[1],
        layer_types=(pattern * layers)[:layers],
        sliding_window=shape.window,
        max_position_embeddings=8192,
        num_experts=shape.experts,
        top_k_experts=shape.k,
        moe_intermediate_size=shape.inner,
        use_bidirectional_attention="vision",
    )
    config = DiffusionGemmaConfig(text_config=text, canvas_length=shape.canvas)
    # What `from_pretrained` gives a model by default.
    for one in (config, config.text_config):
        one._experts_implementation = "grouped_mm"
        one._attn_implementation = "sdpa"
    return config


def make_model(
    shape: Shape,
    *,
    packed: bool,
    layers: int,
    slots: int,
    context_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Model:
    """A model of random weights, made on the device.

    Args:
        shape: Of the model.
        packed: Experts in NVFP4; else as numbers, computed by transformers' default.
        layers: How many to make.
        slots: Canvases at once.
        context_tokens: Of each.
        device: Where.
        dtype: Of all that is not packed.

    Raises:
        torch.OutOfMemoryError: The device has no room for it.

    """
    from gemd.worker.diffusion.checkpoint.skeleton import (  # noqa: PLC0415 - see the module
        allocate,
        empty_decoder,
    )
    from gemd.worker.diffusion.head import Head  # noqa: PLC0415 - as above
    from gemd.worker.diffusion.stack import Stack  # noqa: PLC0415 - as above

    torch.manual_seed(0)
    config = config_of(shape, layers)
    decoder: Any = empty_decoder(config)
    names = [f"layers.{index}.experts" for index in range(layers)] if packed else []
    allocate(decoder, names, device=device, dtype=dtype)
    with torch.no_grad():
        _fill(decoder)
    checkpoint: Any = types.SimpleNamespace(
        decoder=decoder,
        config=config,
        encoder_scalars=tuple(torch.ones(1, device=device, dtype=dtype) for _ in range(layers)),
    )
    stack = Stack(checkpoint, slots=slots, context_tokens=context_tokens)
    head = Head(
        stack.embedding, stack.embedding_scale, stack.softcap, canvas_tokens=stack.canvas_tokens
    )
    return Model(shape, layers, decoder, stack, head)


def _fill(decoder: Any) -> None:
    """Numbers of the size that a trained model has, so that nothing overflows."""
    kept = set(map(id, decoder.rotary_emb.buffers())) | {id(decoder.embed_tokens.embed_scale)}
    for name, tensor in _tensors(decoder):
        if id(tensor) in kept:
            continue
        if tensor.dtype == torch.uint8:
            tensor.random_(0, 256)
        elif tensor.dtype == torch.float8_e4m3fn:
            for row in tensor:
                row.copy_(torch.rand(row.shape, device=row.device) + 0.5)
        elif name.endswith("_global"):
            # Codes are 3 on average: weights of 0.02.
            tensor.fill_(0.006)
        elif tensor.dim() > 1:
            tensor.normal_(std=0.02)
        else:
            tensor.fill_(1.0)


def _tensors(decoder: Any) -> Iterable[tuple[str, torch.Tensor]]:
    yield from decoder.named_parameters()
    yield from decoder.named_buffers()
