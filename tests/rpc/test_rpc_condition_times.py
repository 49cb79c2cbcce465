"""Since when a condition holds."""

from __future__ import annotations

import time

from gemd.rpc.condition_times import ConditionTimes
from gemd.v1 import daemon_service_pb2, status_pb2
from tests.support.app import MODEL, serving


def _condition(kind: str, subject: str = "", reason: str = "") -> status_pb2.Condition:
    return status_pb2.Condition(type=kind, subject=subject, reason=reason)


def _since(times: ConditionTimes, now: float, *holding: status_pb2.Condition) -> list[float]:
    times.look(holding, now=now)
    return [each.last_transition_time.ToNanoseconds() / 1e9 for each in holding]


def test_a_condition_holds_since_it_was_first_seen_without_a_gap() -> None:
    """By its type and subject: another reason is the same condition; after a gap it is new."""
    times = ConditionTimes()
    assert _since(times, 10, _condition("A", "x")) == [10]
    same, other = _condition("A", "x", reason="WORSE"), _condition("A", "y")
    assert _since(times, 20, same, other) == [10, 20]
    assert _since(times, 30, _condition("A", "y")) == [20]
    assert _since(times, 40, _condition("A", "x"), _condition("B", "y")) == [40, 40]


async def test_a_condition_is_seen_before_anybody_asks() -> None:
    """With the sensors' first report; every status tells the same moment of it."""
    began = time.time()
    async with serving(schedules={"r": f"warm {MODEL}, local/gone"}) as running:
        await running.app.senses.fresh()
        asked = time.time()
        for _ in range(2):
            answer = await running.daemon.GetStatus(daemon_service_pb2.GetStatusRequest())
            (condition,) = answer.status.conditions
            since = condition.last_transition_time.ToNanoseconds() / 1e9
            assert began <= since <= asked
