"""What a real worker with a real model takes of main memory, at most."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd import wire
from gemd.engine.spec import WorkerSpec
from tests.support.workers import QUICK, running, text_of

if TYPE_CHECKING:
    from gemd.engine.worker import Worker

CONTEXTS: Final = (512, 1024, 2048, 4096, 8192)
SEQUENCES: Final = 4
PROMPT_TOKENS: Final = 700
"""More than one step evaluates. The cache is all there from the start, because llama.cpp clears
it when it makes it; a prompt that fills it adds some MiB of masks, and takes minutes."""


FAST: Final = """
import gemd.worker.schedule as schedule
schedule.STEP_SECONDS_ALONE, schedule.SMALLEST_CHUNK = 1e9, 128
"""
"""A machine on which every step takes as many tokens as a step may. A slow one never touches all
the scratch that was planned: with 64 tokens 12 MiB less for SmolLM2, 16 for Gemma 3."""


def worker_spec(
    path: Path, context_tokens: int, *, threads: int = 2, overlay: Path | None = None
) -> WorkerSpec:
    """A worker as the daemon starts it."""
    load = wire.Load(
        path=str(path), context_tokens=context_tokens, max_sequences=SEQUENCES, threads=threads
    )
    return WorkerSpec(
        model="m",
        engine="llama",
        load=load,
        environ=os.environ,
        ladder=QUICK,
        overlay=overlay,
    )


async def peak_after_a_prompt(
    path: Path, context_tokens: int, prompt_tokens: int, *, threads: int = 2
) -> int:
    """The most that a worker's process had resident when it has answered in whole steps, bytes."""
    draw = random.Random(7)
    count = min(prompt_tokens, context_tokens - 8)
    question = wire.Generate(
        request_id="g",
        prompt=wire.Prompt(tokens=tuple(draw.randrange(10, 8_000) for _ in range(count))),
        sampling=wire.Sampling(max_tokens=4, ignore_eos=True),
    )
    with tempfile.TemporaryDirectory() as name:
        overlay = Path(name)
        (overlay / "sitecustomize.py").write_text(FAST, encoding="utf-8")
        spec = worker_spec(path, context_tokens, threads=threads, overlay=overlay)
        async with running(spec) as worker:
            await text_of(worker.generate(question))
            return _peak(worker)


def _peak(worker: Worker) -> int:
    """The largest resident size of the process so far."""
    status = Path(f"/proc/{worker.pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
