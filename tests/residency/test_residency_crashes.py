from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.residency.crashes import CrashPolicy, is_quarantined, retry_time
from gemd.residency.entry import Entry
from gemd.residency.refusals import quarantined

times = st.lists(st.floats(min_value=0, max_value=1e6), max_size=8).map(
    lambda ts: tuple(sorted(ts))
)
POLICY = CrashPolicy()


@given(crashes=times, later=st.floats(min_value=0, max_value=1e6))
def test_backoff_stays_between_its_bounds(crashes: tuple[float, ...], later: float) -> None:
    """A retry is never in the past, and never further away than the longest rest."""
    now = (crashes[-1] if crashes else 0.0) + later
    retry = retry_time(crashes, now=now, policy=POLICY)
    assert now <= retry <= now + POLICY.max_delay_s


def test_backoff_doubles_from_one_second_to_sixty() -> None:
    """Each crash in the window doubles the rest until it is a minute."""
    delays = [
        retry_time((100.0,) * count, now=100.0, policy=POLICY) - 100.0 for count in range(1, 9)
    ]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_old_crashes_are_forgotten() -> None:
    """Crashes that left the window neither delay nor quarantine."""
    crashes = (0.0, 1.0, 2.0)
    assert is_quarantined(crashes, now=3.0, policy=POLICY)
    assert not is_quarantined(crashes, now=601.0, policy=POLICY)
    assert retry_time(crashes, now=700.0, policy=POLICY) == 700.0


@pytest.mark.parametrize(
    "pullable, advice", [(True, "gemctl pull local/m"), (False, "ls -lL '/models/my m.gguf'")]
)
def test_a_pull_is_advised_only_of_what_a_pull_brings(pullable: bool, advice: str) -> None:  # noqa: FBT001 - a case
    """A file or folder of the user's is to be looked at instead."""
    entry = Entry("local/m", pullable=pullable, path="/models/my m.gguf")
    assert list(quarantined(entry, POLICY).advice) == ["gemctl load local/m", advice]
