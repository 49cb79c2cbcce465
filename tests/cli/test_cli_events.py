from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import pytest

from gemd.cli.events import TYPES
from gemd.cli.failures import Exit
from gemd.cli.text import format_moment
from gemd.v1 import (
    daemon_service_pb2,
    device_pb2,
    event_pb2,
    generation_pb2,
    lease_pb2,
    model_pb2,
    status_pb2,
)
from tests.support.daemon_says import (
    YEAR_SECONDS,
    abort,
    cpu,
    decision,
    lease,
    loading,
    model,
    operation,
)

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

REQUEST = status_pb2.RequestStatus(
    request_id="r-1",
    method="Generate",
    client="editor/1",
    state=status_pb2.RequestStatus.STATE_QUEUED,
    model="models/m",
    position=2,
)
FAILED = status_pb2.RequestStatus(
    request_id="r-1",
    method="Generate",
    state=status_pb2.RequestStatus.STATE_FAILED,
    usage=generation_pb2.Usage(completion_tokens=7),
    error_reason="ENGINE_CRASHED",
)
RELEASED = lease_pb2.Lease(name="leases/1", model="models/m", state=lease_pb2.Lease.STATE_RELEASED)
PRESSED = status_pb2.Condition(
    type="MemoryPressure",
    subject="devices/cpu",
    status=status_pb2.Condition.STATUS_TRUE,
    message="others took 1.00 GiB",
)
OVER = status_pb2.Condition(
    type="MemoryPressure", subject="devices/cpu", status=status_pb2.Condition.STATUS_FALSE
)
UNTIL = format_moment(YEAR_SECONDS + 600)
CRASHED = model("m", state="FAILED")
CRASHED.failure.message = "m crashed\nwith signal 9"


def event(sequence: int, **payload: Any) -> daemon_service_pb2.WatchEventsResponse:
    """An event of the second at which 1971 began."""
    made = event_pb2.Event(sequence=sequence, **payload)
    made.time.FromSeconds(YEAR_SECONDS)
    return daemon_service_pb2.WatchEventsResponse(event=made)


def snapshot(sequence: int) -> daemon_service_pb2.WatchEventsResponse:
    """The whole state after the event of that number."""
    info = status_pb2.DaemonInfo(instance_id="i-1")
    return event(sequence, snapshot=status_pb2.DaemonStatus(info=info, sequence=sequence))


def lost(context: grpc.ServicerContext) -> NoReturn:
    """The reader was too slow."""
    abort(context, grpc.StatusCode.OUT_OF_RANGE, "EVENTS_LOST", "this reader fell behind")


@pytest.mark.parametrize(
    "payload,kind,said",
    [
        ({"model": model("m", state="READY", pinned=True)}, "model", "m is ready, pinned"),
        ({"model": CRASHED}, "model", "m is failed: m crashed with signal 9"),
        ({"loading": loading(1, 4)}, "loading", "smollm2-135m: reading weights 25 %"),
        (
            {
                "loading": model_pb2.Loading(
                    model="models/m", phase=model_pb2.Loading.PHASE_STARTING, message="engine"
                )
            },
            "loading",
            "m: starting engine",
        ),
        (
            {"decision": decision(confirmed=False)},
            "decision",
            "unload m for n: it frees 1.0 GiB (nobody used it for 30 s)",
        ),
        (
            {"decision": decision()},
            "decision",
            "unload m for n: it frees 1.0 GiB; took 350 ms",
        ),
        (
            {"lease": lease()},
            "lease",
            f"leases/1 on smollm2-135m is active until {UNTIL}, for editor/1",
        ),
        ({"lease": RELEASED}, "lease", "leases/1 on m is released"),
        (
            {"operation": operation("RUNNING", current=512, total=1024)},
            "operation",
            "operations/7 pull smollm2-135m is running, 512 B of 1.0 KiB",
        ),
        ({"request": REQUEST}, "request", "Generate r-1 on m is queued, place 2, for editor/1"),
        ({"request": FAILED}, "request", "Generate r-1 is failed, 7 tokens: ENGINE_CRASHED"),
        (
            {
                "daemon": status_pb2.DaemonInfo(
                    version="0.1.0", state=status_pb2.DaemonInfo.STATE_DRAINING
                )
            },
            "daemon",
            "gemd 0.1.0 is draining",
        ),
        (
            {"condition": PRESSED},
            "condition",
            "MemoryPressure (devices/cpu): others took 1.00 GiB",
        ),
        ({"condition": OVER}, "condition", "MemoryPressure (devices/cpu) is over"),
        ({"device": cpu()}, "device", "cpu: ours 200 MiB, others 8.0 GiB, free 55.0 GiB"),
        ({"device": device_pb2.Device(id="gpu0")}, "device", "gpu0: no sensor tells"),
    ],
)
def test_an_event_is_one_line(
    payload: dict[str, Any], kind: str, said: str, inside: Inside, daemon: FakeDaemon
) -> None:
    """When, of which type, what."""
    daemon.script.events = [snapshot(7), event(8, **payload)]
    (line,) = inside("events").stdout.splitlines()
    assert line[19:] == f"  {kind:<9}  {said}"


def test_an_event_has_its_time(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """As the clock on the wall shows it."""
    daemon.script.events = [event(8, model=model("m"))]
    done = gemctl("events", TZ="UTC0")
    assert done.stdout == "1971-01-01 00:00:00  model      m is on disk\n"


def test_every_type_of_the_daemon_can_be_asked_for() -> None:
    """The names are those of the API."""
    for name in TYPES:
        assert f"TYPE_{name.upper()}" in event_pb2.Event.Type.keys()  # noqa: SIM118 - no mapping


def test_only_the_named_types_are_asked_for(inside: Inside, daemon: FakeDaemon) -> None:
    """Case does not matter; a type that there is not is a usage error."""
    inside("events", "--type", "model", "--type", "DECISION")
    (asked,) = daemon.asked("WatchEvents")
    assert list(asked.types) == [event_pb2.Event.TYPE_MODEL, event_pb2.Event.TYPE_DECISION]
    done = inside("events", "--type", "weather")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")


def test_the_end_of_the_daemon_is_said(inside: Inside, daemon: FakeDaemon) -> None:
    """As every look at a daemon that is not there: exit code 3."""

    def ending(context: grpc.ServicerContext) -> NoReturn:
        abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "gemd ends")

    daemon.script.events = [snapshot(7)]
    assert inside("events").returncode == Exit.UNREACHABLE
    daemon.script.watches = [[snapshot(7), event(8, model=model("m")), ending]]
    done = inside("events")
    assert (done.returncode, len(done.stdout.splitlines())) == (Exit.UNREACHABLE, 1)
    assert done.stderr == "error: gemd ends\n"
    daemon.stop()
    assert inside("events").returncode == Exit.UNREACHABLE


def test_as_json_events_are_the_messages(inside: Inside, daemon: FakeDaemon) -> None:
    """One document per line, numbers as numbers; the state at the start is not one of them."""
    daemon.script.events = [snapshot(7), event(8, model=model("m")), event(2**53, lease=lease())]
    *lines, last = [json.loads(line) for line in inside("events", "--json").stdout.splitlines()]
    assert last["error"]["message"] == "gemd ended the stream of events"
    assert [line["sequence"] for line in lines] == [8, 2**53]
    assert lines[0]["model"]["size_bytes"] == 98_000_000
    assert lines[1]["time"] == "1971-01-01T00:00:00Z"


def test_a_lost_stream_is_read_on(inside: Inside, daemon: FakeDaemon) -> None:
    """From where it broke if that is possible; what is missing is said and marked."""
    broken: list[list[Any]] = [
        [snapshot(7), event(8, model=model("a")), lost],
        [event(9, model=model("b")), lost],
        [snapshot(40), event(41, model=model("c"))],
    ]
    daemon.script.watches = [list(watch) for watch in broken]
    done = inside("events")
    assert [line.split()[3] for line in done.stdout.splitlines()] == ["a", "b", "c"]
    assert done.stderr.splitlines()[:3] == [
        "this reader fell behind; reading on",
        "this reader fell behind; reading on",
        "up to 31 events are missing here",
    ]
    asked = daemon.asked("WatchEvents")
    assert [one.initial_state for one in asked] == [True] * 3
    assert not asked[0].HasField("since_sequence")
    assert [(one.since_sequence, one.instance_id) for one in asked[1:]] == [(8, "i-1"), (9, "i-1")]
    daemon.script.watches = [list(watch) for watch in broken]
    *lines, last = [json.loads(line) for line in inside("events", "--json").stdout.splitlines()]
    assert last["error"]["message"] == "gemd ended the stream of events"
    assert [line["sequence"] for line in lines] == [8, 9, 40, 41]
    assert "snapshot" in lines[2]


def test_a_stream_that_is_lost_at_once_is_an_error(inside: Inside, daemon: FakeDaemon) -> None:
    """It is not asked for again and again."""
    daemon.script.watches = [[lost], [lost]]
    assert inside("events").returncode == Exit.FAILURE
    assert len(daemon.asked("WatchEvents")) == 1


def test_an_interrupt_ends_it_quietly(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """As it ends `status --watch`."""

    def hold(context: grpc.ServicerContext) -> NoReturn:
        daemon.draining.wait(30)
        abort(context, grpc.StatusCode.CANCELLED, "CANCELLED", "too late")

    daemon.script.watches = [[snapshot(7), event(8, model=model("m")), hold]]
    process = gemctl.start("events")
    assert process.stdout is not None
    assert "m is on disk" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    daemon.draining.set()
    assert (process.returncode, errors) == (Exit.INTERRUPTED, "\n")
