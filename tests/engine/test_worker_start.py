"""Starting a worker: handshake, progress, and every way it can fail."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gemd import wire
from gemd.engine.spec import Ladder
from gemd.engine.worker import Worker, WorkerSpec
from gemd.errors import BadModelFileError, EngineStartFailedError, GemdError
from tests.support.workers import (
    alive,
    descriptors,
    eventually,
    let_pass,
    running,
    spec,
    state_of,
)

if TYPE_CHECKING:
    from pathlib import Path


async def test_start_reports_progress_and_ends_ready() -> None:
    """Each sign of life is reported in order, and the worker comes back ready."""
    reports: list[wire.Progress] = []
    worker = await Worker.start(spec(steps=3, step_seconds=0.06), report=reports.append)
    try:
        assert state_of(worker) == "ready"
        assert worker.ready.engine == "scripted"
        assert alive(worker.pid)
        assert worker.rss_bytes() > 5 * 1024 * 1024
        phases = [(report.phase, report.current, report.total) for report in reports]
        assert phases == [
            ("import", 0, 0),
            ("weights", 0, 3),
            ("weights", 1, 3),
            ("weights", 2, 3),
        ]
    finally:
        await worker.stop(grace_s=0)
    assert state_of(worker) == "exited"
    assert worker.rss_bytes() == 0


async def test_identities_differ_and_survive_odd_names() -> None:
    """Two workers of one model have identities of their own, plain even for an odd name."""
    odd = spec(model='local/naïve "model"')
    async with running(odd) as first, running(odd) as second:
        assert first.identity != second.identity
        assert first.identity.isascii()
        assert '"' not in first.identity
        assert (await first.ping()).active == 0


async def test_allocated_memory_shows_in_rss() -> None:
    """What a worker holds is seen from outside."""
    async with running(spec(allocate_mib=64)) as worker:
        assert worker.rss_bytes() > 64 * 1024 * 1024


async def test_domain_error_of_the_load_arrives_as_itself() -> None:
    """A damaged file is a BadModelFileError here too, with its four texts and the log."""
    error = BadModelFileError(
        "x.gguf is damaged", why="bad magic", advice=("gemctl verify x",), metadata={"offset": 12}
    )
    failing = spec(fail_at=0, error=wire.ErrorBody.of(error).model_dump(), noise=("offset 12",))
    with pytest.raises(BadModelFileError) as caught:
        await Worker.start(failing)
    assert caught.value.message == error.message
    assert caught.value.why == error.why
    assert caught.value.advice == error.advice
    assert caught.value.metadata == {"offset": "12", "stderr": "offset 12"}


@pytest.mark.parametrize(
    "fault,expected",
    [
        ({"crash_at": 0, "exit_code": 7}, {"exit_code": "7"}),
        ({"crash_at": 0, "signal": int(signal.SIGSEGV)}, {"signal": "SIGSEGV"}),
        ({"raise_at": 0}, {"exit_code": "1"}),
    ],
)
async def test_death_while_loading_names_cause_and_stderr(
    fault: dict[str, Any], expected: dict[str, str]
) -> None:
    """Exit code or signal, and what it printed last, are in the error."""
    with pytest.raises(EngineStartFailedError) as caught:
        await Worker.start(spec(noise=("something is wrong",), **fault))
    metadata = caught.value.metadata
    assert expected.items() <= metadata.items()
    # A traceback takes the room of what came before it, the more the longer its paths are.
    last = "RuntimeError: scripted failure" if "raise_at" in fault else "something is wrong"
    assert last in metadata["stderr"]
    assert len(metadata["stderr"].encode()) <= 1024
    (cause,) = expected.values()
    assert cause in str(caught.value)


@pytest.mark.parametrize("stall", ["c", "gil"])
async def test_stalled_load_is_killed(stall: str) -> None:
    """No sign of life for the stall timeout ends the process, however it hangs."""
    stalled = spec(
        ladder=Ladder(close_s=0.2, terminate_s=10, kill_s=10),
        stall_timeout_s=62.5,
        steps=2,
        stall_at=1,
        stall=stall,
        noise=("here I hang",),
    )
    seen: list[object] = []

    def see(sign: object) -> None:
        # Of the last ones, one comes over the channel and one over standard error.
        seen.append(sign)
        if "stalled" in seen and wire.Progress(phase="weights", current=0, total=2) in seen:
            let_pass(62.5)

    with pytest.raises(EngineStartFailedError) as caught:
        await Worker.start(stalled, report=see, log=see)
    assert "for 62.5 s" in caught.value.message
    assert caught.value.metadata["phase"] == "weights"
    assert caught.value.metadata["stderr"] == "here I hang\nstalled"


async def test_slow_load_with_progress_is_no_stall() -> None:
    """The stall timeout counts from the last progress, not from the start."""
    reports: list[wire.Progress] = []

    def report(progress: wire.Progress) -> None:
        reports.append(progress)
        let_pass(15)

    worker = await Worker.start(spec(stall_timeout_s=20, steps=3, step_seconds=0.06), report=report)
    await worker.stop(grace_s=0)
    assert len(reports) == 4


async def test_cancelled_start_leaves_no_process() -> None:
    """Cancelling a start kills and reaps the process before the cancellation is through."""
    seen: list[Worker] = []
    reports: list[wire.Progress] = []

    class Spy(Worker):
        def __init__(self, worker_spec: WorkerSpec) -> None:
            super().__init__(worker_spec)
            seen.append(self)

    starting = asyncio.create_task(
        Spy.start(spec(stall_at=1, steps=2, stall="c"), report=reports.append)
    )
    await eventually(lambda: any(report.phase == "weights" for report in reports))
    (worker,) = seen
    assert state_of(worker) == "starting"
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert state_of(worker) == "exited"
    assert not alive(worker.pid)


async def test_unusable_interpreter_is_a_start_failure(tmp_path: Path) -> None:
    """A python that does not exist, or knows no gemd, is named; nothing stays open."""
    before = descriptors()
    missing = dataclasses.replace(spec(), python=str(tmp_path / "python"))
    with pytest.raises(EngineStartFailedError) as caught:
        await Worker.start(missing)
    assert str(tmp_path / "python") in caught.value.message

    script = tmp_path / "other"
    script.write_text("#!/bin/sh\necho no module named gemd >&2\nexit 1\n")
    script.chmod(0o700)
    with pytest.raises(EngineStartFailedError) as caught:
        await Worker.start(dataclasses.replace(spec(), python=str(script)))
    assert caught.value.metadata["stderr"] == "no module named gemd"
    await eventually(lambda: descriptors() == before)


async def test_other_protocol_is_refused(tmp_path: Path) -> None:
    """A worker of another gemd version is not spoken to."""
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\n"
        "import socket, struct, sys\n"
        "arguments = dict(zip(sys.argv[4::2], sys.argv[5::2]))\n"
        'body = (\'{"w":"%s","m":{"type":"hello","protocol":99,"pid":1,'
        '"engine":"x"}}\' % arguments[\'--identity\']).encode()\n'
        "channel = socket.socket(fileno=int(arguments['--fd']))\n"
        "channel.sendall(struct.pack('>I', len(body)) + body)\n"
        "channel.recv(1)\n"
    )
    script.chmod(0o700)
    with pytest.raises(EngineStartFailedError) as caught:
        await Worker.start(dataclasses.replace(spec(), python=str(script)))
    assert caught.value.metadata["worker_protocol"] == "99"
    assert caught.value.metadata["daemon_protocol"] == str(wire.PROTOCOL)


async def test_environment_is_scrubbed_and_nothing_else_is_inherited() -> None:
    """No secrets, no service manager's variables, no descriptors but the channel."""
    lines: list[str] = []
    environ = dict(os.environ) | {
        "HF_TOKEN": "secret",
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_PID": "1",
        "PYTHONSTARTUP": "/x",
        "CUDA_VISIBLE_DEVICES": "GPU-1",
    }
    with contextlib.ExitStack() as stack:
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        stack.callback(os.close, write_end)
        os.set_inheritable(write_end, True)
        worker = await Worker.start(
            spec(report_environment=True, environ=environ), log=lines.append
        )
        async with running(spec(report_environment=True)) as second:
            report = (await second.stop(grace_s=0)).exit
        await worker.stop(grace_s=0)
    names = {line.split()[1].partition("=")[0] for line in lines if line.startswith("env ")}
    assert not names & {"HF_TOKEN", "NOTIFY_SOCKET", "WATCHDOG_PID", "PYTHONSTARTUP"}
    assert {"env HF_HUB_OFFLINE=1", "env CUDA_VISIBLE_DEVICES=GPU-1", "cwd /"} <= set(lines)
    assert report is not None
    for output in (lines, report.lines):
        sockets = [line for line in output if line.startswith("fd ") and "kind=14" in line]
        assert len(sockets) == 1, "the channel of the first worker leaked into the second"
        others = {line.split()[1] for line in output if line.startswith("fd ")}
        # 0, 1, 2, the channel, and the listing itself.
        assert len(others) <= 5


async def test_output_lines_reach_the_log_as_they_come() -> None:
    """Standard output and error go to the log line by line, progress bars included."""
    lines: list[str] = []
    noise = ("plain", "10%\r20%\r30%", "esc\x1b[0m", "ünïcode")
    worker = await Worker.start(spec(noise=noise, stdout=("printed",)), log=lines.append)
    stopped = await worker.stop(grace_s=0)
    assert lines == ["plain", "10%", "20%", "30%", "esc�[0m", "ünïcode", "printed"]
    assert stopped.exit is not None
    assert stopped.exit.lines == tuple(lines)


async def test_only_the_last_200_lines_are_kept() -> None:
    """A noisy library costs no memory, and its noise never blocks it."""
    noise = tuple(f"{number} {'x' * 200}" for number in range(2000))
    async with running(spec(noise=noise)) as worker:
        stopped = await worker.stop(grace_s=0)
    assert stopped.exit is not None
    assert stopped.exit.lines == noise[-200:]
    assert stopped.exit.stderr_tail.splitlines() == list(noise[-4:])


async def test_a_failing_report_callback_ends_the_process() -> None:
    """An error in the caller's own callback does not leave a worker behind."""

    def report(progress: wire.Progress) -> None:
        raise GemdError("no")

    before = descriptors()
    with pytest.raises(GemdError, match="no"):
        await Worker.start(spec(), report=report)
    await eventually(lambda: descriptors() == before)
