"""What a worker prints, line by line."""

from __future__ import annotations

import pytest

from gemd.engine.process import _Lines


@pytest.mark.parametrize("line", [b"x\n", b"\xff\xff\n", b"\x1b\r\n"])
async def test_a_flood_costs_the_daemon_a_bounded_time_a_read(line: bytes) -> None:
    """The newest lines of it reach the log, behind the number of those that did not."""
    said: list[str] = []
    lines = _Lines(said.append)
    lines.data_received(line * 30_000)

    assert said[0] == "(29000 lines left out)"
    assert len(said) == 1001
    lines.data_received(b"the end\n")
    assert said[-1] == lines.lines[-1] == "the end"
    assert len(lines.lines) == 200


async def test_a_line_without_end_is_cut() -> None:
    """Nothing is collected for ever."""
    said: list[str] = []
    lines = _Lines(said.append)
    for _ in range(100):
        lines.data_received(b"x" * 1000)

    assert all(1 <= len(line) <= 4096 for line in said)
    assert len(said) >= 100_000 // 5000
    assert len(lines._partial) <= 4096
