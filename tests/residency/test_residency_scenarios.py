"""The named failures of other model managers, one file each in `scenarios/`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import scenarios
from tests.support.stage import Stage

FILES = sorted(Path(__file__).with_name("scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
async def test_a_failure_of_another_manager_does_not_happen_here(path: Path) -> None:
    """Decisions in their order, every request's end, and what never happens on the way."""
    scenario = scenarios.read(path)
    expected = scenario.expect
    stage = Stage(scenario)
    await stage.play()
    ends = +stage.outcomes
    assert {name for name in expected.never if stage.violations[name]} == set()
    if expected.decisions is not None:
        assert stage.decisions == expected.decisions
    assert ends == {
        name: count
        for name, count in {
            "answered": expected.answered,
            "expired": expected.expired,
            "cancelled": expected.cancelled,
            **expected.refused,
        }.items()
        if count
    }
    assert stage.late == {}
    if expected.loads_at_most is not None:
        assert stage.loads <= expected.loads_at_most
    if expected.warm is not None:
        assert stage.warm == set(expected.warm)


def test_every_file_names_its_failure_and_its_source() -> None:
    """The first line of a scenario is a comment, and there are some."""
    assert len(FILES) >= 12
    for path in FILES:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# ")
        assert "Source: " in first, path.name
