"""``python -m tests.bench.canvas_turn ours|theirs``: one turn of `tests.bench.canvas`, as JSON."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
)

from gemd.worker.diffusion.head import Head
from gemd.worker.diffusion.sampler import Schedule
from gemd.worker.diffusion.stack import Stack
from gemd.worker.memory import give_back
from tests.support.denoising import checkpoint_of, denoise
from tests.support.diffusion_training import smallest_vision

STEPS: Final = 4
PROMPT: Final = list(range(10, 26))


def main() -> None:
    """Load, denoise one canvas in four steps, tell peak and time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = _model()
    contender = {"ours": _ours, "theirs": _theirs}[sys.argv[1]](model)
    # Once before: what libraries load at their first use is no scratch.
    contender()
    gc.collect()
    give_back()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    begun = time.perf_counter()
    contender()
    seconds = time.perf_counter() - begun
    scratch = _status("VmHWM") - before
    sys.stdout.write(json.dumps({"scratch_mb": scratch / 1e6, "seconds": seconds / STEPS}))


def _model() -> Any:
    text = DiffusionGemmaTextConfig(
        vocab_size=262_144,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        global_head_dim=32,
        num_global_key_value_heads=1,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=1024,
        num_experts=8,
        top_k_experts=2,
        moe_intermediate_size=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    config = DiffusionGemmaConfig(
        text_config=text, vision_config=smallest_vision(), canvas_length=256
    )
    made: Any = DiffusionGemmaForBlockDiffusion._from_config(config, dtype=torch.bfloat16)
    return made.eval()


def _ours(model: Any) -> Any:
    checkpoint = checkpoint_of(model)
    # No early stop: both have as many steps.
    schedule = Schedule(max_steps=STEPS, confidence_threshold=None)

    def turn() -> None:
        stack = Stack(checkpoint, slots=1, context_tokens=512)
        head = Head(stack.embedding, stack.embedding_scale, stack.softcap, canvas_tokens=256)
        denoise(stack, head, [PROMPT], [1], canvases=1, ends=set(), schedule=schedule)

    return turn


def _theirs(model: Any) -> Any:
    settings = model.generation_config
    settings.max_denoising_steps = STEPS
    settings.confidence_threshold = 1e-9
    return lambda: model.generate(torch.tensor([PROMPT]), max_new_tokens=256)


def _status(field: str) -> int:
    """Of this process, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
