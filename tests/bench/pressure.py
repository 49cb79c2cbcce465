"""Another program takes memory: how soon gemd gives its own back, and what a smaller context buys.

The GPU is a device file; daemon, sensors, worker and model are real.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from gemd.v1 import decision_pb2
from tests.bench import machine
from tests.bench.report import Check, Section
from tests.support.desktop import MODEL, asking, desktop, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.client import Client
    from tests.bench.setting import Setting

BEGINS_WITHIN_MS = 500.0
"""The project's own bound, from the issue that asked for it."""
OTHERS_GIB = 6
ROUNDS = 15
GPU = """
[[gpu]]
name = "NVIDIA GeForce RTX 4090"
capacity = "24GiB"
others = "{others}GiB"
drives_display = true
scale = {scale}
"""
SCALE = 100.0
"""A model that fills such a GPU, out of one of 240 MiB."""


async def measure(setting: Setting) -> Section:
    """The whole daemon on a simulated RTX 4090 of which another program takes six GiB."""
    store = next(parent for parent in setting.model.parents if (parent / "manifests").is_dir())
    begun, confirmed = [], []
    file = store.parent / f"gemd-bench-{time.monotonic_ns()}.toml"
    try:
        for _ in range(ROUNDS):
            # A daemon of its own each time: one that has just given way comes back slowly.
            _others(file, 0)
            with (
                desktop(store, GEMD_DEVICES_FILE=str(file), GEMD_PROMPT_CACHE="0B") as running,
                running.client() as client,
            ):
                client.generate("The capital of France is", asking(max_tokens=2)).answer()
                changed = time.time()
                _others(file, OTHERS_GIB)
                made = _release(client)
                begun.append((made.time.ToNanoseconds() / 1e9 - changed) * 1e3)
                confirmed.append(made.effect_duration.ToNanoseconds() / 1e6)
    finally:
        file.unlink()
    return Section(
        "Another program takes a GPU's memory",
        f"A simulated RTX 4090 (a device file) on which {MODEL} is said to hold 19 of 24 GiB, "
        f"and of which another program takes {OTHERS_GIB}. All but the GPU is real. "
        f"{len(begun)} rounds. {machine.describe(threads=setting.threads)[0]}.",
        ("from … to", "median ms", "min – max"),
        [
            ("its memory shows – gemd begins to give back", *_row(begun)),
            ("that – a sensor has seen it free", *_row(confirmed)),
        ],
        [
            Check(
                "gemd begins to give back",
                statistics.median(begun),
                BEGINS_WITHIN_MS,
                at_least=False,
                unit=" ms",
                digits=0,
            )
        ],
    )


def _row(samples: list[float]) -> tuple[str, str]:
    return f"{statistics.median(samples):.0f}", f"{min(samples):.0f} – {max(samples):.0f}"


def _others(file: Path, gib: int) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(GPU.format(others=gib, scale=SCALE), encoding="utf-8")
    beside.rename(file)


def _release(client: Client) -> decision_pb2.Decision:
    """The decision to give back, once its effect is confirmed."""

    def done() -> bool:
        return any(each.HasField("effect_duration") for each in _yields(client))

    wait_until(done, what="the release")
    return _yields(client)[0]


def _yields(client: Client) -> list[decision_pb2.Decision]:
    made = (each.raw for each in client.explain())
    return [each for each in made if each.kind == decision_pb2.Decision.KIND_YIELD]
