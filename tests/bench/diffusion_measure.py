"""Times, bytes and memory for `tests.bench.diffusion_gpu`."""

from __future__ import annotations

import inspect
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.diffusion_model import Model

_LEAST: Final = 3
_LONG_MS: Final = 2000.0
_COPY_BYTES: Final = 1 << 31
_TINY_COPY_BYTES: Final = 1 << 24


@dataclass(frozen=True)
class Times:
    """Milliseconds of one thing, done several times.

    Attributes:
        median: Of all.
        low: The shortest.
        high: The longest.

    """

    median: float
    low: float
    high: float


def timed(work: Callable[[], object], device: torch.device, repeats: int) -> Times:
    """How long it takes until the device is done, after two that warm it up.

    Slow work is repeated less often: once `_LONG_MS` have gone into it, `_LEAST` times are enough.
    """
    for _ in range(2):
        work()
    taken: list[float] = []
    while len(taken) < repeats and (len(taken) < _LEAST or sum(taken) < _LONG_MS):
        finish(device)
        begun = time.perf_counter()
        work()
        finish(device)
        taken.append(1000 * (time.perf_counter() - begun))
    return Times(statistics.median(taken), min(taken), max(taken))


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second of a copy within the device's memory, read and written ones counted."""
    size = _COPY_BYTES if device.type == "cuda" else _TINY_COPY_BYTES
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = timed(lambda: target.copy_(source), device, 10)
    return 2 * size / (times.median / 1000)


def recorded(work: Callable[[], object]) -> Callable[[], object]:
    """The same work as a CUDA graph, without what the host does in between.

    Raises:
        RuntimeError: It waits for the device, or copies from the host.

    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types here
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


@dataclass(frozen=True)
class Floor:
    """Bytes that a step cannot do without, by part.

    Attributes:
        experts: Of those that are hit.
        rest: All other weights; the embedding twice, for logits and for the mixture of embeddings
            that conditions the next step.
        cache: Keys and values that canvases attend to.

    """

    experts: float
    rest: float
    cache: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.experts + self.rest + self.cache


def floor_of(model: Model, hit: float, prefix: int, canvases: int) -> Floor:
    """Bytes that must move.

    Args:
        model: Whose weights.
        hit: Share of the experts that get tokens.
        prefix: Tokens before each canvas.
        canvases: At once.

    """
    every = _bytes_of(model.decoder)
    experts = sum(_bytes_of(module) for module in model.experts)
    embedding = model.stack.embedding.nbytes
    cache = 0
    for layer in model.decoder.layers:
        attention = layer.self_attn
        reach = prefix if not attention.is_sliding else min(prefix, model.shape.window - 1)
        width = attention.k_proj.weight.shape[0]
        cache += 2 * width * (reach + model.stack.canvas_tokens) * model.stack.embedding.itemsize
    return Floor(hit * experts, every - experts + embedding, cache * canvases)


def _bytes_of(module: Any) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.nbytes for tensor in tensors)


@dataclass(frozen=True)
class Routed:
    """What layers of experts are given.

    Attributes:
        hidden: Shape (tokens, hidden).
        chosen: Shape (tokens, k).
        weights: Shape (tokens, k).

    """

    hidden: torch.Tensor
    chosen: torch.Tensor
    weights: torch.Tensor


def routed(model: Model, canvases: int) -> Routed:
    """Tokens that go to experts at random, all as likely."""
    shape, like = model.shape, model.stack.embedding
    count = canvases * shape.canvas
    hidden = torch.randn((count, shape.hidden), device=like.device).to(like.dtype)
    scores = torch.rand((count, shape.experts), device=like.device)
    weights, chosen = scores.softmax(-1).topk(shape.k)
    return Routed(hidden, chosen, (weights / weights.sum(-1, keepdim=True)).to(like.dtype))


def experts_pass(model: Model, given: Routed) -> Callable[[], None]:
    """The experts of all layers, one after the other, and nothing else."""

    def work() -> None:
        with torch.inference_mode():
            for module in model.experts:
                module(given.hidden, given.chosen, given.weights)

    return work


def step(model: Model, canvases: int, prefix: int, *, plain: bool = False) -> Callable[[], object]:
    """One denoising step as the engine does it: a pass over all layers, and the head.

    Args:
        model: Whose.
        canvases: At once.
        prefix: Tokens before each.
        plain: Through torch's modules one by one, where the engine would use its kernels.

    """
    from gemd.worker.diffusion.denoiser import Denoiser  # noqa: PLC0415 - see `diffusion_model`

    stack = model.stack
    for slot in range(canvases):
        if stack.slots.length(slot) < prefix:
            encode(model, slot, prefix)
    denoiser = Denoiser(stack, model.head)
    wishes = [_wish(stack.canvas_tokens, stack.vocabulary, seed) for seed in range(canvases)]
    soft: list[torch.Tensor | None] = [None] * canvases
    make = denoiser._plain if plain else denoiser.step

    def work() -> None:
        made = make(range(canvases), wishes, soft)
        soft[:] = [next_soft for _, next_soft in made]

    return work


def parts(model: Model, canvases: int, prefix: int) -> dict[str, Callable[[], object]]:
    """What a recorded step consists of, for `recorded`."""
    from gemd.worker.diffusion.compute import glue  # noqa: PLC0415 - needs Triton
    from gemd.worker.diffusion.compute.attention import attend  # noqa: PLC0415 - as above
    from gemd.worker.diffusion.fused_head import FusedHead  # noqa: PLC0415 - as above
    from gemd.worker.diffusion.fused_pass import FusedPass, Given  # noqa: PLC0415 - as above

    stack, device = model.stack, model.stack.device
    numbers = torch.tensor([stack.slots.extents(slot) for slot in range(canvases)])
    stored, windowed, first = numbers.to(device, torch.int32).T.contiguous()
    slots = torch.arange(canvases, dtype=torch.int32, device=device)
    shape = (canvases, stack.canvas_tokens)
    tokens = torch.randint(0, stack.vocabulary, shape, device=device)
    soft = torch.randn((*shape, model.shape.hidden), device=device).to(stack.dtype)
    given = Given(tokens, soft, slots, stored, windowed, first)
    layers = FusedPass(stack)
    head = FusedHead(
        stack.embedding,
        stack.embedding_scale,
        stack.softcap,
        canvas_tokens=stack.canvas_tokens,
        room=model.head.room,
    )
    columns = torch.empty((canvases, 6, stack.canvas_tokens), device=device)
    uniforms = torch.rand(shape, device=device)
    fixed = torch.zeros(shape, dtype=torch.bool, device=device)
    temperatures = torch.full((canvases,), 0.8, device=device)
    told = torch.empty_like(soft)
    queries = []
    for index, layer in enumerate(model.decoder.layers):
        cache = stack.slots.layer(index)
        heads, width = model.shape.heads[0], cache.shape[-1]
        query = torch.randn((canvases, heads, stack.canvas_tokens, width), device=device)
        queries.append((layer, cache, query.to(stack.dtype)))

    def attention() -> None:
        for layer, cache, query in queries:
            sliding = layer.self_attn.is_sliding
            held = (first, windowed) if sliding else (torch.zeros_like(first), stored)
            attend(query, cache, slots, *held)

    def dense() -> None:
        flat = soft.view(-1, model.shape.hidden)
        for number, layer in enumerate(model.decoder.layers):
            *_, wide = layers._attention[number](flat)
            query = queries[number][2].transpose(1, 2).reshape(len(flat), -1)
            layer.self_attn.o_proj(query)
            layer.mlp.down_proj(glue.gated(*layers._dense[number](flat)))
            layer.router.proj(flat)
            del wide

    def read() -> None:
        head.read(soft, temperatures, uniforms, fixed, tokens, told, columns)

    def whole() -> None:
        layers(given)

    return {
        name: _without_gradients(work)
        for name, work in {
            "all layers": whole,
            "of them attention": attention,
            "of them dense products": dense,
            "head": read,
        }.items()
    }


def _without_gradients(work: Callable[[], None]) -> Callable[[], None]:
    def inner() -> None:
        with torch.inference_mode():
            work()

    return inner


def _wish(length: int, vocabulary: int, seed: int = 0) -> Any:
    from gemd.worker.diffusion.head import Wish  # noqa: PLC0415 - see `diffusion_model`

    return Wish(
        temperature=0.8,
        uniforms=np.full(length, 0.5, dtype=np.float32),
        fixed=np.zeros(length, dtype=np.bool_),
        tokens=np.random.default_rng(seed).integers(0, vocabulary, length),
    )


def encode(model: Model, slot: int, tokens: int) -> None:
    """Read a prompt in pieces, as the engine does."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, model.stack.vocabulary, (tokens,), generator=generator).tolist()
    while ids:
        limit = model.stack.chunk_limit(slot, 512)
        model.stack.encode(slot, ids[:limit])
        del ids[:limit]


def transformers_step(
    model: Model, canvases: int, prefix: int
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step of transformers' own forward: its cache, its masks, all logits in float32.

    Without what its ``generate`` does with the logits, which only makes it slower.

    Returns:
        The whole of it, and the logits alone.

    """
    from transformers import DynamicCache  # noqa: PLC0415 - slow to import

    decoder, stack = model.decoder, model.stack
    config = decoder.config.text_config
    cache = DynamicCache(config=config)
    like = stack.embedding
    for index, layer in enumerate(decoder.layers):
        attention = layer.self_attn
        shape = (canvases, attention.k_proj.weight.shape[0] // attention.head_dim)
        keys = torch.zeros(
            (*shape, prefix, attention.head_dim), dtype=like.dtype, device=like.device
        )
        cache.update(keys, keys.clone(), index)
    canvas = torch.randint(0, stack.vocabulary, (canvases, stack.canvas_tokens)).to(like.device)
    # Renamed between 5.17 and 5.24.
    named = "cache" if "cache" in inspect.signature(decoder.forward).parameters else ""
    arguments = {named or "past_key_values": cache}

    def head(hidden: torch.Tensor) -> None:
        logits = (hidden @ like.T).float()
        (logits / stack.softcap).tanh_().mul_(stack.softcap)

    def work() -> None:
        with torch.inference_mode():
            head(decoder(decoder_input_ids=canvas, **arguments).last_hidden_state)

    def head_alone() -> None:
        with torch.inference_mode():
            head(like.new_zeros((canvases, stack.canvas_tokens, like.shape[1])))

    return work, head_alone


def head_alone(model: Model, canvases: int) -> Callable[[], None]:
    """What gemd's step does after the last layer."""
    stack, like = model.stack, model.stack.embedding
    hidden = like.new_zeros((canvases, stack.canvas_tokens, like.shape[1]))
    wish = _wish(stack.canvas_tokens, stack.vocabulary)

    def work() -> None:
        model.head.read(hidden, [wish] * canvases)

    return work


def stretched(whole: Times, head: Times | None, scale: float) -> Times:
    """Times of a model with more of the same layers, and the same head."""
    fixed = 0.0 if head is None else head.median

    def one(figure: float) -> float:
        return fixed + scale * (figure - fixed)

    return Times(one(whole.median), one(whole.low), one(whole.high))


def experts_hit(model: Model, work: Callable[[], object]) -> tuple[float, int]:
    """Of a step: which share of the experts gets tokens, and the most that one gets."""
    shares: list[float] = []
    most: list[int] = []

    def look(_module: Any, arguments: Sequence[torch.Tensor]) -> None:
        counts = torch.bincount(arguments[1].flatten(), minlength=model.shape.experts)
        shares.append(float((counts > 0).float().mean()))
        most.append(int(counts.max()))

    hooks = [module.register_forward_pre_hook(look) for module in model.experts]
    try:
        work()
    finally:
        for hook in hooks:
            hook.remove()
    return statistics.mean(shares), max(most)
