"""The socketpair between daemon and worker, without a model: for the record."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from gemd import wire
from gemd.engine.worker import Worker, WorkerSpec
from tests.bench.report import Section, spread
from tests.bench.rounds import Samples

if TYPE_CHECKING:
    from tests.bench.setting import Setting

ROUND_TRIPS = 2000
TOGETHER = 64
BURSTS = 50
ROUNDS = 5


async def measure(setting: Setting) -> Section:
    """Pings one after another, and many at once."""
    section = Section(
        title="Engine channel",
        how=f"Pings to the engine's own thread in a worker process and back, {ROUNDS} rounds: "
        f"{ROUND_TRIPS} one after another, and {BURSTS} times {TOGETHER} at once (two frames "
        "each).",
        head=("figure", "median", "min – max"),
    )
    load = wire.Load(path="/none", context_tokens=4096, max_sequences=1, threads=1)
    worker = await Worker.start(
        WorkerSpec(model="channel", engine="scripted", load=load, environ=os.environ)
    )
    try:
        trips = [await _round_trip(worker) for _ in range(ROUNDS)]
        frames = [await _frames_per_second(worker) for _ in range(ROUNDS)]
    finally:
        await worker.stop(grace_s=0)
    section.rows += [
        ("round trip, µs", *spread(Samples(tuple(trips)), digits=0, scale=1e6)),
        ("frames per second", *spread(Samples(tuple(frames)), digits=0)),
    ]
    return section


async def _round_trip(worker: Worker) -> float:
    taken = []
    for _ in range(ROUND_TRIPS):
        began = time.monotonic()
        await worker.ping()
        taken.append(time.monotonic() - began)
    return Samples(tuple(taken)).median


async def _frames_per_second(worker: Worker) -> float:
    began = time.monotonic()
    for _ in range(BURSTS):
        await asyncio.gather(*(worker.ping() for _ in range(TOGETHER)))
    return 2 * BURSTS * TOGETHER / (time.monotonic() - began)
