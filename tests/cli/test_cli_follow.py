"""Following long work: over the end of a daemon, and on 80 columns."""

from __future__ import annotations

import io
import json
import signal
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gemd.cli import follow
from gemd.cli.failures import Exit
from gemd.cli.operation_lines import parts_done, show_operation, unit_lines
from gemd.cli.output import Output
from gemd.cli.progress import Progress
from gemd.cli.text import width
from gemd.client import Client, Operation
from gemd.client.operations import Unit
from gemd.v1 import decision_pb2, operation_pb2
from tests.support.clock import Clock
from tests.support.daemon_says import abort, operation
from tests.support.screen import Screen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

pytestmark = pytest.mark.usefixtures("hasty")

GIB = 1 << 30
MODEL = "smollm2-135m"
ATTEMPTS = 4
"""Of the client, for each call."""
BYTES = operation_pb2.Operation.Unit.MEASURE_BYTES
CHECKS = operation_pb2.Operation.Unit.MEASURE_CHECKS


def _nothing(_: grpc.ServicerContext) -> None:
    pass


fine: Any = _nothing
"""No failure: of the call before the one that is to fail."""


def gone(context: grpc.ServicerContext) -> NoReturn:
    """What gRPC says when nobody answers."""
    context.abort(grpc.StatusCode.UNAVAILABLE, "connection refused")


def ending(context: grpc.ServicerContext) -> NoReturn:
    """What a daemon says that was told to end."""
    abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "the pull is interrupted")


def unknown(context: grpc.ServicerContext) -> NoReturn:
    """What a daemon says that never heard of the operation."""
    abort(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "there is no operation '7'")


def _pulled() -> operation_pb2.Operation:
    last = operation("SUCCEEDED", current=1000)
    last.pull.size_bytes = last.pull.transferred_bytes = 1000
    return last


@pytest.mark.parametrize(
    "lost,words", [(gone, "does not answer any more"), (ending, "was told to end")]
)
def test_a_daemon_that_comes_back_is_followed_on(
    inside: Inside, daemon: FakeDaemon, lost: Any, words: str
) -> None:
    """It is said once that the daemon has gone, and once that there is one again."""
    daemon.script.pull = [operation("RUNNING", current=100), _pulled()]
    daemon.script.failures = [fine, *[lost] * (ATTEMPTS + 2 * ATTEMPTS)]
    done = inside("pull", MODEL)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines[0] == f"gemd {words}; waiting up to 60 s for the next one"
    assert lines[1] == f"gemd is back; the pull of {MODEL} goes on"
    assert lines[2].startswith(f"downloading {MODEL}   10 %")
    assert lines[-2].startswith(f"{MODEL} is on disk")
    assert len(daemon.asked("PullModel")) == 1
    assert daemon.asked("GetOperation")[-1].name == "operations/7"


def test_a_daemon_without_its_memory_is_asked_again(inside: Inside, daemon: FakeDaemon) -> None:
    """The pull may have ended just before: it is begun again, and never by force."""
    daemon.script.pull = [operation("RUNNING"), _pulled()]
    daemon.script.failures = [fine, *[gone] * ATTEMPTS, unknown]
    done = inside("pull", MODEL, "--force", "--variant", "q4_1", "--revision", "v2")
    assert done.returncode == 0
    first, second = daemon.asked("PullModel")
    assert (first.force, second.force) == (True, False)
    for request in (first, second):
        assert (request.variant, request.revision) == ("q4_1", "v2")


def test_a_pull_says_why_it_is_this_variant(inside: Inside, daemon: FakeDaemon) -> None:
    """Where the daemon had a choice: the newest decision, if it is about what is fetched."""
    daemon.script.pull = [operation("RUNNING", variant="q4_1"), _pulled()]
    chosen = decision_pb2.Decision(
        sequence=3,
        kind=decision_pb2.Decision.KIND_VARIANT,
        model=f"models/{MODEL}",
        summary="q4_1 of it is fetched: it is the first of its variants that fits",
        reasons=[decision_pb2.Reason(code="MODEL_NAMED", metadata={"variant": "q4_1"})],
    )
    daemon.script.decisions = [chosen]
    assert chosen.summary in inside("pull", MODEL).stderr.splitlines()
    [asked] = daemon.asked("Explain")
    assert (asked.model, list(asked.kinds)) == (MODEL, [chosen.kind])
    chosen.reasons[0].metadata["variant"] = "another"
    assert chosen.summary not in inside("pull", MODEL).stderr
    # Whoever names one knows why.
    assert inside("pull", MODEL, "--variant", "q4_1").returncode == 0
    assert len(daemon.asked("Explain")) == 2


def test_other_work_that_no_daemon_knows_is_lost(inside: Inside, daemon: FakeDaemon) -> None:
    """Nothing is begun that may have ended already; the answer is the daemon's."""
    daemon.script.pull = [operation("RUNNING"), _pulled()]
    daemon.script.failures = [fine, *[gone] * ATTEMPTS, unknown]
    done = inside("ops", "watch", "7")
    assert done.returncode == Exit.NOT_FOUND
    assert "there is no operation '7'" in done.stderr


def test_a_daemon_that_stays_away_is_given_up(
    inside: Inside, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that goes on, and the exit code of a daemon that is not there."""
    monkeypatch.setattr(follow, "COME_BACK_SECONDS", 0.0)
    daemon.script.pull = [operation("RUNNING"), _pulled()]
    daemon.script.failures = [fine, *[gone] * 99]
    done = inside("pull", MODEL)
    assert done.returncode == Exit.UNREACHABLE
    assert "error: no gemd came back within 0 s" in done.stderr
    assert f"the pull of {MODEL} goes on with the next one" in done.stderr
    assert done.stderr.endswith("  try: gemctl ops watch 7\n")


@pytest.mark.parametrize("lost,started", [(gone, 1), (ending, 0)])
def test_only_a_daemon_that_died_is_started_again(
    daemon: FakeDaemon, socket: Path, monkeypatch: pytest.MonkeyPatch, lost: Any, started: int
) -> None:
    """And once: who told a daemon to end does not want to see another one."""
    monkeypatch.setattr(follow, "_REVIVE_SECONDS", 0.0)
    daemon.script.pull = [operation("RUNNING"), _pulled()]
    # The watch, and two looks whether somebody is there again.
    daemon.script.failures = [lost] * ATTEMPTS * 3
    revived: list[int] = []
    output = Output(io.StringIO(), io.StringIO(), {})
    begun = Operation.of(daemon.script.pull[0])
    with Client(socket) as client:
        last = follow.follow_operation(client, begun, output, revive=lambda: revived.append(1))
    assert last.state == "SUCCEEDED"
    assert len(revived) == started


def test_ctrl_c_while_nobody_answers(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """What is left goes on with the next daemon."""
    daemon.script.pull = [operation("RUNNING"), _pulled()]
    daemon.script.failures = [fine, *[gone] * 999]
    process = gemctl.start("pull", MODEL)
    assert process.stderr is not None
    assert "does not answer any more" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == Exit.INTERRUPTED
    assert f"the pull of {MODEL} goes on with the next gemd\n" in errors
    assert "to follow it: gemctl ops watch operations/7\n" in errors


def test_an_operation_can_be_watched_by_its_name(inside: Inside, daemon: FakeDaemon) -> None:
    """To its end, which is told; as a document where that is asked for."""
    daemon.script.pull = [operation("RUNNING", current=500), _pulled()]
    done = inside("ops", "watch", "operations/7")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == "operations/7 has succeeded"
    assert json.loads(inside("ops", "watch", "7", "--json").stdout)["state"] == "STATE_SUCCEEDED"
    daemon.script.pull = [operation("RUNNING"), operation("CANCELLED")]
    assert inside("ops", "watch", "7").returncode == Exit.FAILURE


def test_a_pull_may_name_source_and_revision(inside: Inside, daemon: FakeDaemon) -> None:
    """They reach the daemon as they are."""
    inside("pull", MODEL, "--source", "hub", "--revision", "refs/pr/1")
    (request,) = daemon.asked("PullModel")
    assert (request.source, request.revision) == ("hub", "refs/pr/1")


def _unit(
    name: str, current: int, total: int, *, state: str = "active", measure: Any = BYTES
) -> operation_pb2.Operation.Unit:
    unit = operation_pb2.Operation.Unit(
        id=name, name=name, current=current, total=total, measure=measure
    )
    if state != "waiting":
        unit.started.FromSeconds(1)
    if state == "done":
        unit.completed.FromSeconds(2)
    return unit


def _read(*units: operation_pb2.Operation.Unit) -> list[Unit]:
    return [Unit.of(unit) for unit in units]


def _several(current: int, phase: str = "downloading") -> Operation:
    """Fourteen files of which three are done and one is at work."""
    units = [
        _unit(
            f"model-{number:05d}-of-00014.safetensors",
            {"done": 3 * GIB, "active": current, "waiting": 0}[state],
            3 * GIB,
            state=state,
        )
        for number, state in enumerate(["done"] * 3 + ["active"] + ["waiting"] * 10, 1)
    ]
    made = operation("RUNNING", phase=phase, current=9 * GIB + current, total=42 * GIB, units=units)
    made.model = "models/diffusiongemma-26b-a4b"
    made.rate_bytes_per_second = 105 << 20
    made.estimated_remaining.FromSeconds(750)
    return Operation.of(made)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def test_several_files_on_eighty_columns() -> None:
    """The file at work and the total, each on a line of its own; a note scrolls them on."""
    stderr, clock, screen = Terminal(), Clock(), Screen(80)
    before = Operation.of(operation("RUNNING"))
    with Progress(Output(io.StringIO(), stderr, {}), clock=clock, columns=lambda: 80) as progress:
        show_operation(progress, before, _several(GIB))
        clock.now += 1
        show_operation(progress, before, _several(2 * GIB))
        screen.feed(stderr.getvalue())
        assert screen.text == (
            "  model-00004-of-00014.safetensors   66 %  2.0 GiB of 3.0 GiB\n"
            "downloading   26 %  11.0 GiB of 42.0 GiB  105 MiB/s  3/14 files  12m 30s left"
        )
        progress.note("using a mirror")
        show_operation(progress, before, _several(GIB))
    after = Screen(80)
    after.feed(stderr.getvalue())
    assert after.text == "using a mirror\n"


def test_what_has_no_rate_any_more_gets_none_from_what_came_before() -> None:
    """Nor a time left: a comparison that follows the reading takes as long as it takes."""
    stderr, clock = io.StringIO(), Clock()
    before = Operation.of(operation("RUNNING"))
    with Progress(Output(io.StringIO(), stderr, {}), clock=clock) as progress:
        for current in (0, 400, 900):
            clock.now += 1
            now = operation("RUNNING", phase="verifying", current=current, total=1000)
            now.rate_bytes_per_second = 0
            now.ClearField("estimated_remaining")
            show_operation(progress, before, Operation.of(now))
    assert "/s" not in stderr.getvalue()
    assert " left" not in stderr.getvalue()
    assert "verifying smollm2-135m   90 %" in stderr.getvalue()


def test_several_files_in_a_pipe_are_sparse_lines() -> None:
    """A line every tenth, whatever the phases of single files are."""
    stderr, clock = io.StringIO(), Clock()
    with Progress(Output(io.StringIO(), stderr, {}), clock=clock) as progress:
        before = Operation.of(operation("RUNNING"))
        for number in range(9 * 64):
            clock.now += 0.1
            phase = "checking" if number % 2 else "downloading"
            show_operation(progress, before, _several(number * GIB // 64, phase))
    shown = [line.partition(" ")[2] for line in stderr.getvalue().splitlines()]
    assert shown == [
        f"diffusiongemma-26b-a4b  {done}  105 MiB/s  3/14 files  12m 30s left"
        for done in (
            " 21 %  9.0 GiB of 42.0 GiB",
            " 30 %  12.6 GiB of 42.0 GiB",
            " 40 %  16.8 GiB of 42.0 GiB",
        )
    ]


def test_what_is_counted_is_named() -> None:
    """Files by their bytes, checks by their number; one alone is not counted."""
    assert parts_done(_read(_unit("a", 1, 2))) == ""
    checks = [_unit("hash", 3, 3, state="done", measure=CHECKS), _unit("kl", 1, 8, measure=CHECKS)]
    assert parts_done(_read(*checks)) == "1/2 parts"
    assert unit_lines(_read(*checks)) == ["  kl   12 %  1 of 8 checks"]
    assert unit_lines(_read(_unit("a", 7, 0), _unit("bc", 0, 0))) == ["  a   7 B", "  bc"]


@given(
    names=st.lists(st.text(max_size=300), min_size=1, max_size=40),
    current=st.integers(0, 2**63),
    total=st.integers(0, 2**63),
)
def test_lines_of_files_are_few_and_short(names: list[str], current: int, total: int) -> None:
    """Whatever the names and sizes: at most four lines, none wider than a terminal."""
    lines = unit_lines(_read(*(_unit(name, current, total) for name in names)))
    assert len(lines) == min(len(names), 4)
    assert all(len(line) <= 77 for line in lines)


def test_a_unit_is_left_out_before_the_count_of_files() -> None:
    """Where the widest figures would not fit otherwise."""
    units = [_unit(f"f{number}", 1, 2) for number in range(200)]
    made = operation("RUNNING", current=900 * GIB, total=1000 * GIB, units=units)
    made.rate_bytes_per_second = 1023 << 20
    made.estimated_remaining.FromSeconds(10**6)
    stderr = Terminal()
    progress = Progress(Output(io.StringIO(), stderr, {}), clock=Clock(), columns=lambda: 80)
    show_operation(progress, Operation.of(operation("RUNNING")), Operation.of(made))
    assert stderr.getvalue().endswith(
        "\ndownloading   90 %  900 of 1000 GiB  1023 MiB/s  0/200 files  11d 13h left"
    )


@example("downloading", "m", 900 * GIB, 100 * GIB, 1023 << 20, 10**6, 200)
@example("downloading", "m", 1023 << 20, 1022 * GIB, 1023 << 20, 10**6, 200)
@given(
    label=st.sampled_from(["downloading", "quantizing", "verifying"]),
    model=st.text("abcdef-", min_size=1, max_size=50),
    current=st.integers(0, 10**14),
    rest=st.integers(0, 10**14),
    rate=st.integers(0, 10**10),
    remaining=st.integers(0, 10**6),
    files=st.integers(1, 200),
)
def test_the_total_fits_into_eighty_columns(
    label: str, model: str, current: int, rest: int, rate: int, remaining: int, files: int
) -> None:
    """With rate, files and time left, whatever the figures are."""
    units = [_unit(f"f{number}", 1, 2) for number in range(files)]
    made = operation("RUNNING", phase=label, current=current, total=current + rest, units=units)
    made.model = f"models/{model}"
    made.rate_bytes_per_second = rate
    made.estimated_remaining.FromSeconds(remaining)
    stderr = Terminal()
    progress = Progress(Output(io.StringIO(), stderr, {}), clock=Clock(), columns=lambda: 80)
    show_operation(progress, Operation.of(operation("RUNNING")), Operation.of(made))
    last = stderr.getvalue().replace("\r\x1b[K", "").split("\r\n")[-1]
    assert width(last) <= 77
    if rest:
        assert last.endswith(" left")
