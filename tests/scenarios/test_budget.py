"""Two real models under a budget of main memory: real processes, real sizes, real swaps."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from gemd.v1 import daemon_service_pb2, decision_pb2
from gemd.v1.daemon_service_pb2_grpc import DaemonServiceStub
from tests.support.desktop import MODEL, OTHER, PARIS, asking, desktop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.desktop import Desktop

MIB = 2**20
SAMPLED_S = 0.05
TEXT = "The capital of France is"


class Watch(threading.Thread):
    """The workers' resident size every 50 ms."""

    def __init__(self, running: Desktop) -> None:
        super().__init__(daemon=True)
        self._running = running
        self._over = threading.Event()
        self.most = 0

    def run(self) -> None:
        """Look until `end`."""
        while not self._over.wait(SAMPLED_S):
            total = 0
            # Every child is a worker, or on its way to be one or to end.
            for child in self._running.daemon().children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += child.memory_info().rss
            self.most = max(self.most, total)

    def end(self) -> int:
        """The most that was seen; bytes."""
        self._over.set()
        self.join()
        return self.most


@pytest.mark.parametrize(
    "budget,loads,evictions", [(2000, 2, 0), (512, 3, 2)], ids=["both fit", "one fits"]
)
def test_models_share_what_the_budget_allows(
    both: Path, budget: int, loads: int, evictions: int
) -> None:
    """Every request is answered, nobody is refused, and the measured memory stays below it."""
    settings = {
        "GEMD_RAM_BUDGET": f"{budget}MiB",
        "GEMD_PROMPT_CACHE": "0B",
        "GEMD_CONTEXT_TOKENS": "512",
    }
    with desktop(both, **settings) as running, running.client() as client:
        watch = Watch(running)
        watch.start()
        try:
            for model in (MODEL, OTHER, MODEL):
                answer = client.generate(TEXT, asking(model=model, max_tokens=4)).answer()
                assert answer.text
        finally:
            most = watch.end()
        statistics = client.status().raw.statistics
    assert (statistics.loads, statistics.evictions) == (loads, evictions)
    assert 0 < most <= budget * MIB


def test_a_budget_that_holds_none_says_so(both: Path) -> None:
    """Refused at once with the numbers, and the refusal is on record."""
    with desktop(both, GEMD_RAM_BUDGET="100MiB") as running:
        done = running.gemctl("run", "--model", MODEL, PARIS)
        with grpc.insecure_channel(
            f"unix:{running.socket}", options=[("grpc.default_authority", "localhost")]
        ) as channel:
            explained = DaemonServiceStub(channel).Explain(
                daemon_service_pb2.ExplainRequest(model=MODEL), timeout=10
            )
    assert done.returncode == 5
    assert "the budget is 100 MiB" in done.stderr
    assert explained.decisions[0].kind == decision_pb2.Decision.KIND_REFUSE
