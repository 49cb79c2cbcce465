"""``python -m tests.support.glue_checks``: kernels between products by transformers, interpreted.

A process of its own, because Triton decides at its import whether functions are compiled. Prints
the error of each function in each case as JSON.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from tests.support import apart
from tests.support.glue_cases import CASES, VOCABULARY, Given

if TYPE_CHECKING:
    from collections.abc import Callable


def _worst(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    difference = (ours.double() - theirs.double()).abs().max()
    # A number that is none has an error, too.
    return float((difference / theirs.double().abs().max()).nan_to_num(math.inf))


def _norm(glue: Any, given: Given) -> float:
    x = given.random(given.case.rows, given.case.canvas, given.case.hidden)
    weighted = given.truth.input_layernorm
    bare = given.truth.router.norm
    return max(
        _worst(glue.norm(x, weighted.weight.to(x.dtype), given.eps), weighted(x.float())),
        _worst(glue.norm(x, None, given.eps), bare(x.float())),
        # Small enough for the epsilon to count.
        _worst(glue.norm(x * 1e-3, None, given.eps), bare((x * 1e-3).float())),
    )


def _queries_keys(glue: Any, given: Given) -> float:
    case, attention = given.case, given.truth.self_attn
    sizes = [case.heads * case.width] + [case.kv_heads * case.width] * (1 if case.full else 2)
    query, key, *value = torch.split(given.random(given.tokens, sum(sizes)), sizes, dim=1)
    # Not as rotary has them, the same in both halves: so each shows whose it is.
    cos, sin = (given.random(given.tokens, case.width) for _ in range(2))
    (slots, stored), cache = given.slots(), given.cache()
    expected = cache.float().clone()
    out = cache.new_full((case.rows, case.heads, case.canvas, case.width), math.nan)
    ours = glue.queries_keys(
        query,
        key,
        value[0] if value else key,
        given.layer.self_attn.q_norm.weight,
        given.layer.self_attn.k_norm.weight,
        cos,
        sin,
        cache,
        slots,
        stored,
        eps=given.eps,
        out=out if case.rows > 1 else None,
    )
    assert case.rows == 1 or ours is out

    def split(part: torch.Tensor) -> torch.Tensor:
        return part.float().reshape(case.rows, case.canvas, -1, case.width)

    def turned(part: torch.Tensor) -> Any:
        angles = [a.float().view(case.rows, case.canvas, -1) for a in (cos, sin)]
        return given.theirs.apply_rotary_pos_emb(part, *angles, unsqueeze_dim=2).transpose(1, 2)

    keys = turned(attention.k_norm(split(key)))
    values = attention.v_norm(split(value[0] if value else key)).transpose(1, 2)
    for row, (slot, start) in enumerate(zip(slots.tolist(), stored.tolist(), strict=True)):
        expected[0, slot, :, start : start + case.canvas] = keys[row]
        expected[1, slot, :, start : start + case.canvas] = values[row]
    return max(_worst(ours, turned(attention.q_norm(split(query)))), _worst(cache, expected))


def _after_attention(glue: Any, given: Given) -> float:
    layer, truth = given.layer, given.truth
    x, attended = (given.random(given.tokens, given.case.hidden) for _ in range(2))
    ours = glue.after_attention(
        x,
        attended,
        layer.post_attention_layernorm.weight,
        layer.pre_feedforward_layernorm.weight,
        layer.pre_feedforward_layernorm_2.weight,
        _router_scale(given),
        eps=given.eps,
    )
    y = x.float() + truth.post_attention_layernorm(attended.float())
    seen: list[torch.Tensor] = []
    hook = truth.router.proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    truth.router(y)
    hook.remove()
    theirs = (y, truth.pre_feedforward_layernorm(y), truth.pre_feedforward_layernorm_2(y), seen[0])
    return max(map(_worst, ours, theirs))


def _router_scale(given: Given) -> torch.Tensor:
    scale: torch.Tensor = given.truth.router.scale.data
    prepared: torch.Tensor = scale * given.case.hidden**-0.5
    return prepared


def _gated(glue: Any, given: Given) -> float:
    width = 3 * given.case.hidden
    # Some large ones too: there gelu is the number itself, or nothing.
    both = given.random(given.tokens, 2 * width) * 8
    gate, up = both.chunk(2, dim=1)
    theirs = given.truth.mlp.act_fn(gate.float()) * up.float()
    return max(
        _worst(glue.gated(gate, up), theirs),
        _worst(glue.gated(gate.contiguous(), up), theirs),
    )


def _chosen(glue: Any, given: Given) -> float:
    # All different, in every type: of equal ones torch chooses as it likes.
    ranks = given.random(given.tokens, given.case.experts).argsort(dim=1)
    scores = ((ranks - given.case.experts // 2) / 16).to(given.dtype)
    router = copy.deepcopy(given.truth.router)
    router.proj = torch.nn.Identity()
    router.proj.forward = lambda _: scores.float()
    _, weights, index = router(torch.ones(given.tokens, given.case.hidden, device=given.device))
    ours = glue.chosen(scores, given.layer.router.per_expert_scale, given.case.k)
    assert ours[0].dtype == torch.float32
    assert ours[1].dtype == torch.int64
    return _worst(ours[0], weights) if torch.equal(ours[1], index) else math.inf


def _after_experts(glue: Any, given: Given) -> float:
    layer, truth = given.layer, given.truth
    y, dense, following = (given.random(given.tokens, given.case.hidden) for _ in range(3))
    parts = given.random(given.tokens, given.case.k, given.case.hidden)
    norms = given.theirs.DiffusionGemmaRMSNorm(given.case.hidden, eps=given.eps)
    norms.weight.data = following[0].float()

    def ours(experts_out: torch.Tensor) -> Any:
        return glue.after_experts(
            y,
            dense,
            experts_out,
            layer.post_feedforward_layernorm_1.weight,
            layer.post_feedforward_layernorm_2.weight,
            layer.post_feedforward_layernorm.weight,
            layer.layer_scalar,
            following[0],
            eps=given.eps,
        )

    def theirs(total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = truth.post_feedforward_layernorm_1(dense.float())
        both = both + truth.post_feedforward_layernorm_2(total)
        z = (y.float() + truth.post_feedforward_layernorm(both)) * truth.layer_scalar
        return z, norms(z)

    first = parts[:, 0].contiguous()
    return max(
        *map(_worst, ours(parts), theirs(parts.float().sum(1))),
        *map(_worst, ours(first), theirs(first.float())),
    )


def _condition(glue: Any, given: Given) -> float:
    hidden = given.case.hidden
    words = given.theirs.DiffusionGemmaTextScaledWordEmbedding
    truth = SimpleNamespace(
        embed_tokens=given.filled(words(VOCABULARY, hidden, 0)),
        self_conditioning=given.filled(given.theirs.DiffusionGemmaSelfConditioning(given.config)),
    )
    # A scale that half types do not have; after loading it is still in float32.
    truth.embed_tokens.embed_scale.fill_(hidden**0.5)
    ours = SimpleNamespace(
        embed_tokens=copy.deepcopy(truth.embed_tokens),
        self_conditioning=copy.deepcopy(truth.self_conditioning).to(given.dtype),
    )
    ours.embed_tokens.weight.data = ours.embed_tokens.weight.data.to(given.dtype)
    shape = (given.case.rows, given.case.canvas)
    tokens = given.integers(VOCABULARY, *shape)
    soft = given.random(*shape, hidden)
    truth.embed_tokens.embed_scale.copy_(truth.embed_tokens.embed_scale.to(given.dtype))

    def theirs(signal: torch.Tensor) -> Any:
        return truth.self_conditioning(truth.embed_tokens(tokens), signal)

    zeros = torch.zeros_like(soft)
    return max(
        _worst(glue.condition(ours, tokens, soft), theirs(soft.float())),
        _worst(glue.condition(ours, tokens, zeros), theirs(zeros.float())),
        _worst(glue.condition(ours, tokens, None), theirs(zeros.float())),
    )


def _layer(glue: Any, given: Given) -> float:
    """All of them in their order, by the `forward` of transformers' layer, row by row."""
    case, layer = given.case, given.truth
    attention = layer.self_attn
    x = given.random(given.tokens, case.hidden).float()
    (cos, sin), (slots, stored), cache = given.rotary(), given.slots(), given.cache().float()
    cos, sin = cos.float(), sin.float()
    # Renamed between 5.17 and 5.24.
    taken = inspect.signature(type(layer.self_attn).forward).parameters
    named = "cache" if "cache" in taken else "past_key_values"
    rows = []
    for row, (slot, end) in enumerate(zip(slots.tolist(), stored.tolist(), strict=True)):
        held = SimpleNamespace(
            keys=cache[0, slot, :, :end][None], values=cache[1, slot, :, :end][None]
        )
        past = SimpleNamespace(is_compileable=False, layers=[held, held])
        mine = slice(row * case.canvas, (row + 1) * case.canvas)
        angles = (cos[None, mine], sin[None, mine])
        rows.append(layer(x[None, mine], position_embeddings=angles, **{named: past})[0])
    states = glue.norm(x, layer.input_layernorm.weight, given.eps)
    key = attention.k_proj(states)
    queries = glue.queries_keys(
        attention.q_proj(states),
        key,
        key if attention.v_proj is None else attention.v_proj(states),
        attention.q_norm.weight,
        attention.k_norm.weight,
        cos,
        sin,
        cache,
        slots,
        stored,
        eps=given.eps,
    )
    attended = []
    for row, (slot, start) in enumerate(zip(slots.tolist(), stored.tolist(), strict=True)):
        seen = cache[:, slot, :, : start + case.canvas][:, None]
        out = functional.scaled_dot_product_attention(
            queries[row : row + 1], seen[0], seen[1], scale=1.0, enable_gqa=True
        )
        attended.append(out[0].transpose(0, 1).flatten(1))
    y, dense, experts, router = glue.after_attention(
        x,
        attention.o_proj(torch.cat(attended)),
        layer.post_attention_layernorm.weight,
        layer.pre_feedforward_layernorm.weight,
        layer.pre_feedforward_layernorm_2.weight,
        _router_scale(given),
        eps=given.eps,
    )
    mlp = layer.mlp
    weights, index = glue.chosen(layer.router.proj(router), layer.router.per_expert_scale, case.k)
    z, _ = glue.after_experts(
        y,
        mlp.down_proj(glue.gated(mlp.gate_proj(dense), mlp.up_proj(dense))),
        layer.experts(experts, index, weights),
        layer.post_feedforward_layernorm_1.weight,
        layer.post_feedforward_layernorm_2.weight,
        layer.post_feedforward_layernorm.weight,
        layer.layer_scalar,
        layer.input_layernorm.weight,
        eps=given.eps,
    )
    return _worst(z, torch.cat(rows))


FUNCTIONS: Final[dict[str, Callable[[Any, Given], float]]] = {
    "norm": _norm,
    "queries_keys": _queries_keys,
    "after_attention": _after_attention,
    "gated": _gated,
    "chosen": _chosen,
    "after_experts": _after_experts,
    "condition": _condition,
    "layer": _layer,
}


def run_glue() -> dict[str, Any]:
    """By case and function, the largest error as a share of the largest number."""
    found: dict[str, Any] = apart.interpreted("glue_checks")
    return found


def errors_of(given: Given) -> dict[str, float]:
    """By function, the largest error as a share of the largest number."""
    from gemd.worker.diffusion.compute import glue  # noqa: PLC0415 - needs Triton

    return {
        name: check(glue, given)
        for name, check in FUNCTIONS.items()
        # Other roundings may choose other experts.
        if name != "layer" or given.dtype == torch.float32
    }


def _ties(glue: Any) -> dict[str, Any]:
    """Experts chosen where scores are equal, far apart, or no numbers."""
    one = torch.ones(4)
    rows = {
        "equal": [1.0, 2.0, 2.0, 2.0],
        "all equal": [0.0, 0.0, 0.0, 0.0],
        "far apart": [-200.0, 300.0, -400.0, 0.0],
        "one is no number": [math.nan, 3.0, math.nan, 4.0],
        "none is a number": [math.nan] * 4,
    }
    weights, index = glue.chosen(torch.tensor(list(rows.values())), one, 3)
    return {name: [index[at].tolist(), weights[at].tolist()] for at, name in enumerate(rows)}


@torch.inference_mode()
def _main() -> None:
    from gemd.worker.diffusion.compute import fused, glue  # noqa: PLC0415 - needs Triton

    assert fused.interpreted()
    torch.set_num_threads(1)
    found: dict[str, Any] = {name: errors_of(Given(case)) for name, case in CASES.items()}
    found["ties"] = _ties(glue)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    _main()
