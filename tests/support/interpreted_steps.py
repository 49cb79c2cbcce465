"""``python -m tests.support.interpreted_steps``: whole steps in few launches, against plain ones.

A process of its own, since Triton has to be in its interpreter from the start.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import numpy as np
import torch

from tests.bench.diffusion_model import Shape, make_model
from tests.support import apart

SHAPE: Final = Shape(48, 80, 6, (4, 2, 1), (16, 32), 4, 2, 32, 300, 24, 8)
LENGTHS: Final = (9, 70)
"""Tokens before each canvas: less than a window, and more."""


def run_steps() -> dict[str, Any]:
    """Steps of a small packed model in float32, canvases together, as recorded ones are made.

    Returns:
        «soft»: the largest relative error of what the next step is told; «entropy», «confidence»:
        the largest differences; «likeliest», «drawn»: shares of positions with the same token;
        «alone»: whether a canvas alone has the same bits.

    """
    found: dict[str, Any] = apart.interpreted("interpreted_steps")
    return found


def _main() -> None:
    from gemd.worker.diffusion.compute import use_path  # noqa: PLC0415 - needs Triton
    from gemd.worker.diffusion.denoiser import Denoiser  # noqa: PLC0415 - as above

    torch.set_num_threads(1)
    model = make_model(
        SHAPE,
        packed=True,
        layers=SHAPE.layers,
        slots=4,
        context_tokens=96,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    use_path(model.decoder, "triton")
    stack, head = model.stack, model.head
    rng = np.random.default_rng(0)
    slots = [2, 0]
    for slot, length in zip(slots, LENGTHS, strict=True):
        stack.encode(slot, rng.integers(0, stack.vocabulary, length).tolist())
    denoiser = Denoiser(stack, head)
    assert denoiser.records
    wishes = [_wish(rng, stack, temperature) for temperature in (0.8, 0.4)]
    nothing: list[torch.Tensor | None] = [None] * len(slots)
    first = denoiser.step(slots, wishes, nothing)
    steps = [first, denoiser.step(slots, wishes, [soft for _, soft in first])]
    alone = denoiser.step(slots[1:], wishes[1:], nothing[1:])[0][1]
    use_path(model.decoder, "reference")
    assert not denoiser.records
    errors: dict[str, list[float]] = {}
    told = nothing
    for made in steps:
        plain = denoiser.step(slots, wishes, told)
        for (reading, soft), (other, other_soft) in zip(made, plain, strict=True):
            for name, value in _compared(reading, soft, other, other_soft).items():
                errors.setdefault(name, []).append(value)
        told = [soft for _, soft in plain]
    found = {
        **{name: max(errors[name]) for name in ("soft", "entropy", "confidence")},
        **{name: min(errors[name]) for name in ("likeliest", "drawn")},
        "alone": torch.equal(alone, first[1][1]),
    }
    json.dump(found, sys.stdout)


def _wish(rng: np.random.Generator, stack: Any, temperature: float) -> Any:
    from gemd.worker.diffusion.head import Wish  # noqa: PLC0415 - needs Triton

    length = stack.canvas_tokens
    return Wish(
        temperature=temperature,
        uniforms=rng.random(length, dtype=np.float32),
        fixed=rng.random(length) < 0.2,
        tokens=rng.integers(0, stack.vocabulary, length),
    )


def _compared(
    reading: Any, soft: torch.Tensor, other: Any, other_soft: torch.Tensor
) -> dict[str, float]:
    return {
        "soft": float((soft - other_soft).norm() / other_soft.norm()),
        "entropy": float(np.abs(reading.entropy - other.entropy).max()),
        "confidence": float(np.abs(reading.confidence - other.confidence).max()),
        "likeliest": float((reading.likeliest == other.likeliest).mean()),
        "drawn": float((reading.drawn == other.drawn).mean()),
    }


if __name__ == "__main__":
    _main()
