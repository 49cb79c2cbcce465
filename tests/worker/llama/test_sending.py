"""How often messages leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd import wire
from gemd.worker.llama import loading
from tests.support.llama import Bench, loaded

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Timed:
    """A bench with one sequence, whose clock stands still between its steps."""

    def __init__(self, bench: Bench, now: list[float]) -> None:
        self.bench = bench
        self.now = now

    def stream(self, steps: int, seconds: float) -> wire.Generate:
        """An answer after so many steps, each of which took so long."""
        self.now[0] += 1.0
        # A comma and nothing else: half a character would wait for its other half.
        request = self.bench.generate([9, 8, 7], max_tokens=40, logit_bias={28: 100.0})
        self.bench.submit(request.model_copy(update={"deadline_seconds": 30.0}))
        for _ in range(steps):
            self.bench.step()
            self.now[0] += seconds
        return request

    def sizes(self, request: wire.Generate) -> list[int]:
        """Tokens of each message."""
        return [len(delta.tokens) for delta in self.bench.of(request).all(wire.Delta)]


def test_tokens_that_come_fast_travel_together(short_smollm2: Path) -> None:
    """The first one goes at once, then at most twenty messages a second; nothing is lost.

    What is collected goes ahead of whatever ends or interrupts the answer.
    """
    now = [0.0]
    with loaded(short_smollm2, context_tokens=256, max_sequences=1, clock=lambda: now[0]) as bench:
        timed = Timed(bench, now)

        slow = timed.stream(12, 0.051)
        assert timed.sizes(slow) == [1] * 12
        bench.engine.cancel(slow.request_id)

        fast = timed.stream(12, 0.024)
        assert timed.sizes(fast) == [1, 3, 3, 3]
        bench.engine.cancel(fast.request_id)
        assert timed.sizes(fast) == [1, 3, 3, 3, 2]

        late = timed.stream(3, 0.001)
        assert timed.sizes(late) == [1]
        now[0] += 31
        bench.step()
        assert timed.sizes(late) == [1, 2]
        assert isinstance(bench.of(late).messages[-1], wire.RequestFailed)


def test_beside_a_gpu_they_leave_more_often(
    short_smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decodes without the cores that a message takes."""
    monkeypatch.setattr(loading, "_require_gpu", lambda _: None)
    now = [0.0]
    with loaded(
        short_smollm2, context_tokens=256, max_sequences=1, gpu_layers=99, clock=lambda: now[0]
    ) as bench:
        timed = Timed(bench, now)
        assert timed.sizes(timed.stream(12, 0.006)) == [1, 4, 4]
