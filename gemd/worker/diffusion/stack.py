"""The model's two passes over transformers' own layers: tokens into the cache, and a canvas step.

Encoder and decoder are one stack of layers that is run in two ways. Encoding is causal and stores
keys and values; denoising looks in both directions, over what is stored and the whole canvas, and
stores nothing. They differ in one number for each layer, `layer_scalar`. So there is one module
tree, and this file has the two passes instead of calling the modules' `forward`, whose cache is
concatenated anew in every layer and whose masks are as large as the prompt is long squared.

Source of the order of operations: transformers' ``modeling_diffusion_gemma.py``; tests compare
with its logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import apply_rotary_pos_emb

from gemd.worker.diffusion.cache import LayerShape, Slots
from gemd.worker.diffusion.checkpoint.text_config import FULL, SLIDING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gemd.worker.diffusion.checkpoint import Checkpoint

    Attend = Callable[[Any, torch.Tensor, int], torch.Tensor]

PREFILL_TOKENS = 512
"""The most of a prompt that one step reads; `gemd.footprint` counts on it."""
MASK_ELEMENTS = 1 << 25
"""Of the mask of one chunk of a prompt: 32 MiB, and eight times as much where attention has to
make numbers of it. Long contexts are read in smaller chunks."""


class Stack:
    """A checkpoint with a cache.

    Args:
        checkpoint: The weights.
        slots: Answers that may have a place at the same time.
        context_tokens: The most tokens of prompt and answer.

    """

    def __init__(self, checkpoint: Checkpoint, *, slots: int, context_tokens: int) -> None:
        self.decoder = checkpoint.decoder
        self._scalars = checkpoint.encoder_scalars
        self.config = config = checkpoint.config.text_config
        self._kinds: list[str] = list(config.layer_types)
        self.canvas_tokens: int = checkpoint.config.canvas_length
        self.vocabulary: int = config.vocab_size
        self.softcap: float = config.final_logit_softcapping
        weight = self.decoder.embed_tokens.weight
        self.device, self.dtype = weight.device, weight.dtype
        self._shapes = layer_shapes(config)
        self._count = slots
        self.slots = self._made(context_tokens)

    def resize(self, context_tokens: int) -> None:
        """Make the cache anew in another size; what stands in it is lost."""
        # The old one first: both together are more than there may be room for. None is there after
        # an attempt that failed.
        vars(self).pop("slots", None)
        self.slots = self._made(context_tokens)

    def _made(self, context_tokens: int) -> Slots:
        return Slots(
            self._shapes,
            count=self._count,
            context_tokens=context_tokens,
            canvas_tokens=self.canvas_tokens,
            dtype=self.dtype,
            device=self.device,
        )

    @property
    def embedding(self) -> torch.Tensor:
        """The table of input and output; shape (vocabulary, hidden)."""
        return cast("torch.Tensor", self.decoder.embed_tokens.weight)

    @property
    def embedding_scale(self) -> torch.Tensor:
        """What embeddings are multiplied with on their way in, in the table's type."""
        return cast("torch.Tensor", self.decoder.embed_tokens.embed_scale).to(self.dtype)

    def encode(self, slot: int, tokens: Sequence[int]) -> None:
        """Read tokens behind what a slot holds, into it.

        Args:
            slot: Of the cache.
            tokens: At most `chunk_limit` of them.

        """
        with torch.inference_mode():
            self._encode(slot, tokens)

    def _encode(self, slot: int, tokens: Sequence[int]) -> None:
        start = self.slots.length(slot)
        ids = torch.tensor([tokens], device=self.device)
        x = self.decoder.embed_tokens(ids)
        positions = torch.arange(start, start + len(tokens), device=self.device)
        rotary = self._rotary(x, positions[None])
        masks = self._masks(start, len(tokens), self.slots.held[slot].windowed)

        def store(
            attention: Any, states: torch.Tensor, layer: int
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            query, key, value = _project(attention, states, rotary[self._kinds[layer]])
            return query, *self.slots.extend(layer, slot, key[0], value[0])

        def attend(attention: Any, states: torch.Tensor, layer: int) -> torch.Tensor:
            return _attention(*store(attention, states, layer), masks[self._kinds[layer]])

        *layers, last = self.decoder.layers
        for index, layer in enumerate(layers):
            x = _layer(layer, x, index, attend, self._scalars[index])
        # Nobody reads what the last layer makes of it, but for its keys and values.
        store(last.self_attn, last.input_layernorm(x), len(layers))
        self.slots.advance(slot, tokens)

    def wait(self) -> None:
        """Until the device has done what was asked of it so far."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def chunk_limit(self, slot: int, most: int) -> int:
        """How many tokens may be encoded at once behind what a slot holds."""
        held = self.slots.length(slot)
        limit = most
        while limit > 1 and limit * (held + limit) > MASK_ELEMENTS:
            limit //= 2
        return limit

    def denoise(
        self, slots: Sequence[int], canvases: torch.Tensor, soft: torch.Tensor | None
    ) -> torch.Tensor:
        """One pass over the canvases of several answers.

        Args:
            slots: That each canvas goes on from.
            canvases: Token ids; shape (rows, canvas), on the device.
            soft: What each position was expected to be at the step before, as a mixture of
                embeddings; zeros for a canvas at its first step. Shape (rows, canvas, hidden).

        Returns:
            Hidden states after the last norm; shape (rows, canvas, hidden).

        """
        with torch.inference_mode():
            return self._denoise(slots, canvases, soft)

    def _denoise(
        self, slots: Sequence[int], canvases: torch.Tensor, soft: torch.Tensor | None
    ) -> torch.Tensor:
        decoder = self.decoder
        embeddings = decoder.embed_tokens(canvases)
        x = decoder.self_conditioning(
            embeddings, torch.zeros_like(embeddings) if soft is None else soft
        )
        rows, length = canvases.shape
        # Made on the device: a copy of the starts would wait for all that is under way there.
        starts = [self.slots.length(slot) for slot in slots]
        rows_of = [torch.arange(at, at + length, device=self.device) for at in starts]
        rotary = self._rotary(x, torch.stack(rows_of))

        def attend(attention: Any, states: torch.Tensor, layer: int) -> torch.Tensor:
            query, key, value = _project(attention, states, rotary[self._kinds[layer]])
            # By row: each has its own length, and a mask over the longest would cost a copy of
            # every cache. So what attention gives a row does not depend on its neighbours, either.
            parts = [
                _attention(
                    query[row : row + 1],
                    *self.slots.with_canvas(layer, slots[row], key[row], value[row]),
                    None,
                )
                for row in range(rows)
            ]
            return parts[0] if rows == 1 else torch.cat(parts)

        for index, layer in enumerate(decoder.layers):
            x = _layer(layer, x, index, attend, layer.layer_scalar)
        return cast("torch.Tensor", decoder.norm(x))

    def _rotary(
        self, x: torch.Tensor, positions: torch.Tensor
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """By kind of layer; positions have the shape (rows, tokens)."""
        return {kind: self.decoder.rotary_emb(x, positions, kind) for kind in set(self._kinds)}

    def _masks(self, start: int, count: int, windowed: int) -> dict[str, torch.Tensor]:
        """By kind of layer, which stored tokens each new one sees; shape (new, stored + new)."""
        window = self.slots.window_keep
        queries = torch.arange(start, start + count, device=self.device)[:, None]

        def keys(stored: int) -> torch.Tensor:
            return torch.arange(start - stored, start + count, device=self.device)[None]

        everything, near = keys(start), keys(windowed)
        return {
            FULL: everything <= queries,
            SLIDING: (near <= queries) & (near >= queries - window),
        }


def layer_shapes(config: Any) -> list[LayerShape]:
    """Shapes of keys and values by layer.

    Args:
        config: Transformers' ``DiffusionGemmaTextConfig``.

    """
    shapes = []
    for index, kind in enumerate(config.layer_types):
        layer = config.per_layer_config[index]
        window = config.sliding_window if kind == SLIDING else None
        shapes.append(LayerShape(layer.num_key_value_heads, layer.head_dim, window))
    return shapes


def _project(
    attention: Any, states: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of shape (rows, heads, tokens, width)."""
    shape = (*states.shape[:-1], -1, attention.head_dim)
    cos, sin = rotary
    query = attention.q_norm(attention.q_proj(states).view(shape))
    key = attention.k_proj(states).view(shape)
    # Layers that attend to everything have no projection of their own for values.
    value = key if attention.v_proj is None else attention.v_proj(states).view(shape)
    query = apply_rotary_pos_emb(query, cos, sin, unsqueeze_dim=2)
    key = apply_rotary_pos_emb(attention.k_norm(key), cos, sin, unsqueeze_dim=2)
    value = attention.v_norm(value)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def _attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Shape (rows, tokens, heads x width). The model scales queries in their norm, not here."""
    out = functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, scale=1.0, enable_gqa=True
    )
    return out.transpose(1, 2).flatten(2)


def _layer(
    layer: Any, x: torch.Tensor, index: int, attend: Attend, scalar: torch.Tensor
) -> torch.Tensor:
    attended = attend(layer.self_attn, layer.input_layernorm(x), index)
    x = x + layer.post_attention_layernorm(layer.self_attn.o_proj(attended))
    flat = x.reshape(-1, x.shape[-1])
    dense = layer.post_feedforward_layernorm_1(layer.mlp(layer.pre_feedforward_layernorm(x)))
    _, weights, chosen = layer.router(flat)
    routed = layer.experts(layer.pre_feedforward_layernorm_2(flat), chosen, weights)
    routed = layer.post_feedforward_layernorm_2(routed.view_as(x))
    x = x + layer.post_feedforward_layernorm(dense + routed)
    return x * scalar
