"""How near the predicted memory of a worker is to what its process takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gemd.footprint import Placement, gguf_shape, predict_gguf, read_gguf_model
from tests.bench import machine
from tests.bench.report import Check, Section
from tests.support.measured import CONTEXTS, SEQUENCES, peak_after_a_prompt
from tests.support.models import CACHE, ensure_model

if TYPE_CHECKING:
    from tests.bench.setting import Setting

MODELS: Final = ("smollm2-135m", "gemma3-270m")
BOUND_PERCENT: Final = 5.0
ABOVE_PERCENT: Final = 2.0
"""Predictions for main memory only grow by what is seen: what lies above a measurement stays."""
_MIB: Final = 2**20


async def measure(setting: Setting) -> Section:
    """Workers of both models, each with a context that one prompt fills."""
    section = Section(
        title="Predicted memory",
        how="Peak of the resident size of a worker that has answered a prompt as long as its "
        "context, and what the header of the file predicted before; "
        f"{SEQUENCES} sequences, f16 cache. " + machine.describe(threads=setting.threads)[0] + ".",
        head=("model", "context", "measured MiB", "predicted MiB", "error"),
    )
    # In a thread: fetching a model runs a loop of its own.
    paths = {model: await asyncio.to_thread(ensure_model, model, CACHE) for model in MODELS}
    errors = []
    for model in MODELS:
        path = paths[model]
        shape = gguf_shape(read_gguf_model(path))
        for context in CONTEXTS:
            measured = await peak_after_a_prompt(path, context, context)
            predicted = predict_gguf(
                shape, context_tokens=context, max_sequences=SEQUENCES, placement=Placement()
            ).host.total
            errors.append(100 * (predicted / measured - 1))
            section.rows.append(
                (
                    model,
                    str(context),
                    f"{measured / _MIB:.1f}",
                    f"{predicted / _MIB:.1f}",
                    f"{errors[-1]:+.1f} %",
                )
            )
    section.checks += [
        Check("largest error", max(map(abs, errors)), BOUND_PERCENT, at_least=False, unit=" %"),
        Check("largest above", max(errors), ABOVE_PERCENT, at_least=False, unit=" %"),
    ]
    return section
