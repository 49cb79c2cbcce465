"""Scratch and time of a step over Gemma's vocabulary, against transformers' `generate()`."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from typing import TYPE_CHECKING, Any, Final

from tests.bench import machine
from tests.bench.report import Check, Section

if TYPE_CHECKING:
    from tests.bench.setting import Setting

CONTENDERS: Final = {"gemd's loop": "ours", "transformers' generate()": "theirs"}
SCRATCH_MB: Final = 350.0


async def measure(setting: Setting) -> Section:
    """Each turn is a process of its own; contenders take turns."""
    section = Section(
        title="A canvas over Gemma's vocabulary",
        how="A model of 2 layers with random weights in bf16, 64 wide, with 262,144 words and a "
        "canvas of 256 tokens: 4 denoising steps on one thread. Scratch is the peak of the "
        f"resident size above that after the load. {setting.rounds} interleaved rounds. "
        + machine.describe(threads=1)[0]
        + ".",
        head=("contender", "scratch MB", "seconds a step", "min – max"),
    )
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(setting.rounds):
        for name, argument in CONTENDERS.items():
            found[name].append(await _turn(argument))
    scratch = {
        name: statistics.median(turn["scratch_mb"] for turn in turns)
        for name, turns in found.items()
    }
    seconds = {
        name: statistics.median(turn["seconds"] for turn in turns) for name, turns in found.items()
    }
    for name, turns in found.items():
        times = [turn["seconds"] for turn in turns]
        section.rows.append(
            (
                name,
                f"{scratch[name]:.0f}",
                f"{seconds[name]:.2f}",
                f"{min(times):.2f} – {max(times):.2f}",
            )
        )
    ours, theirs = CONTENDERS
    section.checks += [
        Check("scratch", scratch[ours], SCRATCH_MB, at_least=False, unit=" MB", digits=0),
        Check(
            "scratch of transformers / ours", scratch[theirs] / scratch[ours], 4.0, at_least=True
        ),
        Check("step of ours / transformers", seconds[ours] / seconds[theirs], 1.0, at_least=False),
    ]
    return section


async def _turn(contender: str) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.bench.canvas_turn",
        contender,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(errors.decode(errors="replace")[-2000:])
    found: dict[str, Any] = json.loads(output)
    return found
