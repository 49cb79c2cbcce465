"""Sixty-four clients, two real models that share memory for one, and workers that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import psutil
import pytest

from gemd.client import AsyncClient, Delta, GemdClientError, GenerationOptions, Sampling
from tests.support.desktop import MODEL, OTHER, desktop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.desktop import Desktop

CLIENTS = 64
BUDGET_MIB = 512
"""Holds either model and not both."""
DEADLINE_S = 120.0
ENDS = {"ENGINE_CRASHED", "MODEL_QUARANTINED", "DEADLINE_EXPIRED", "ENGINE_START_FAILED"}
"""What a request may end with where workers are killed; anything else is a defect."""


class Traffic:
    """What clients do, and what became of it."""

    def __init__(
        self, running: Desktop, *, seconds: float, pause_s: tuple[float, float], seed: int
    ) -> None:
        self.running = running
        self.over = time.monotonic() + seconds
        self.pause_s = pause_s
        self.random = random.Random(seed)
        self.asked = 0
        self.ends: Counter[str] = Counter()
        self.kills = 0
        self.most = 0

    async def run(self) -> None:
        """Everybody until the time is over."""
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self.client(number))
            group.create_task(self.kill())
            group.create_task(self.weigh())

    async def client(self, number: int) -> None:
        """One program: asks, reads or goes away, thinks."""
        async with AsyncClient(self.running.socket, name=f"client-{number}") as client:
            while time.monotonic() < self.over:
                await self.ask(client)
                await asyncio.sleep(self.random.expovariate(0.5))

    async def ask(self, client: AsyncClient) -> None:
        """One request; it ends in one of the ways that are counted."""
        options = GenerationOptions(
            model=self.random.choice((MODEL, OTHER)),
            background=self.random.random() < 0.3,
            sampling=Sampling(max_tokens=self.random.randint(1, 6), ignore_eos=True),
        )
        leaves = self.random.random() < 0.1
        self.asked += 1
        try:
            async with client.generate("One two", options, deadline=DEADLINE_S) as stream:
                async for event in stream:
                    if leaves and isinstance(event, Delta):
                        self.ends["left"] += 1
                        return
            self.ends["answered"] += 1
        except GemdClientError as error:
            self.ends[error.reason] += 1
            if error.reason == "MODEL_QUARANTINED":
                with contextlib.suppress(GemdClientError):
                    await client.load_and_wait(options.model or MODEL, deadline=DEADLINE_S)

    async def kill(self) -> None:
        """Some worker, now and then when ten have had an answer, and two in any case."""
        answered = 0
        while time.monotonic() < self.over or self.kills < 2:
            await asyncio.sleep(self.random.uniform(*self.pause_s))
            # A load that is killed fails all who wait for it: soon nobody would be answered.
            if self.ends["answered"] < answered + 10 and self.ends.total() < self.asked:
                continue
            answered = self.ends["answered"]
            workers = await asyncio.to_thread(self.running.workers)
            with contextlib.suppress(IndexError, psutil.NoSuchProcess):
                self.random.choice(workers).send_signal(signal.SIGKILL)
                self.kills += 1

    async def weigh(self) -> None:
        """The resident size of all workers, every 50 ms."""
        while time.monotonic() < self.over:
            total = 0
            for child in self.running.daemon().children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += child.memory_info().rss
            self.most = max(self.most, total)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "seconds,pause_s",
    [
        (5, (0.5, 2.0)),
        pytest.param(600, (2.0, 8.0), marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
async def test_no_request_is_lost(both: Path, seconds: int, pause_s: tuple[float, float]) -> None:
    """Each is answered or told why not, memory stays within the budget, and then all is calm."""
    with desktop(
        both, GEMD_RAM_BUDGET=f"{BUDGET_MIB}MiB", GEMD_PROMPT_CACHE="0B", GEMD_CONTEXT_TOKENS="512"
    ) as running:
        traffic = Traffic(running, seconds=seconds, pause_s=pause_s, seed=seconds)
        await traffic.run()
        sys.stdout.write(f"{traffic.ends} of {traffic.asked}\n")
        assert traffic.ends.total() == traffic.asked
        assert set(traffic.ends) <= {"answered", "left", *ENDS}
        assert traffic.ends["answered"] > traffic.asked // 4, traffic.ends
        assert traffic.kills > 1
        assert 0 < traffic.most <= BUDGET_MIB << 20
        with running.client() as client:
            status = client.status().raw
            assert (status.running_requests, status.queued_requests) == (0, 0)
            counts = status.statistics
            assert counts.requests >= traffic.asked
            assert counts.crashes <= traffic.kills
