"""What is said about a worker's end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gemd.engine.reports import TAIL_BYTES, ExitReport, tail


@given(st.lists(st.text(max_size=600)).map(tuple))
def test_tail_is_whole_last_lines_within_the_limit(lines: tuple[str, ...]) -> None:
    """Never more bytes than allowed, and nothing but the end of what was printed."""
    text = tail(lines)
    assert len(text.encode()) <= TAIL_BYTES
    assert "\n".join(lines).endswith(text)
    if lines and lines[-1]:
        assert text


def test_tail_of_one_enormous_line_is_its_end() -> None:
    """Cut between characters, not within one."""
    assert tail(("ä" * 5000,)) == "ä" * (TAIL_BYTES // 2)


def test_tail_leaves_the_python_stack_out() -> None:
    """The engine's own words before a crash matter more."""
    lines = ("GGML_ASSERT(x) failed", "Fatal Python error: Aborted", "", *["  File x"] * 100)
    assert tail(lines) == "GGML_ASSERT(x) failed\nFatal Python error: Aborted"


def test_causes() -> None:
    """Each kind of end is named in one clause, with its numbers in the metadata."""
    code = ExitReport(returncode=3, lines=("bye",))
    assert (code.signal, code.cause) == (None, "it exited with code 3")
    assert code.metadata == {"exit_code": "3", "oom_killed": "false", "stderr": "bye"}
    killed = ExitReport(returncode=-9, oom_killed=None)
    assert killed.metadata == {"signal": "SIGKILL", "oom_killed": "unknown", "stderr": ""}
    assert killed.cause == "it was ended by SIGKILL"
    foreign = ExitReport(returncode=-4)
    assert foreign.cause.startswith("it was ended by SIGILL: its engine was built for another")
    assert "memory ran out" in ExitReport(returncode=-9, oom_killed=True).cause
    assert ExitReport(returncode=-63).signal == "signal 63"
    garbage = ExitReport(returncode=-9, protocol_error="length 0")
    assert garbage.metadata["protocol_error"] == "length 0"
    assert "length 0" in garbage.cause
