"""A worker process, spoken to in frames."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd import wire
from tests.support.workers import generate, load

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTITY = "model#1"


class _Process:
    def __init__(self, *, parent: int | None = None, engine: str = "scripted") -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(10)
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "gemd.worker", "--engine", engine),
                    *("--identity", IDENTITY, "--fd", str(theirs.fileno())),
                    *("--parent", str(parent or os.getpid())),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        self._frames = wire.FrameReader()
        self._received: list[wire.ToDaemon] = []

    def send(self, message: wire.ToWorker, identity: str = IDENTITY) -> None:
        self.channel.sendall(wire.encode(identity, message))

    def receive(self) -> wire.ToDaemon:
        while not self._received:
            data = self.channel.recv(1 << 16)
            assert data, "the worker has closed the channel"
            self._received += (
                wire.decode_for_daemon(IDENTITY, body) for body in self._frames.feed(data)
            )
        return self._received.pop(0)

    def receive_until(self, kind: type[wire.FromWorker]) -> wire.ToDaemon:
        while True:
            message = self.receive()
            if isinstance(message, kind):
                return message

    def end(self) -> tuple[int, str]:
        _, stderr = self.process.communicate(timeout=10)
        return self.process.returncode, stderr


@contextlib.contextmanager
def _started(*, parent: int | None = None, engine: str = "scripted") -> Iterator[_Process]:
    worker = _Process(parent=parent, engine=engine)
    try:
        yield worker
    finally:
        worker.channel.close()
        worker.process.kill()
        worker.process.communicate()


def test_the_order_of_one_life() -> None:
    """Hello, Progress, Ready; an answer; Drained; then closing ends it with 0."""
    with _started() as worker:
        hello = worker.receive()
        assert isinstance(hello, wire.Hello)
        assert (hello.protocol, hello.engine) == (wire.PROTOCOL, "scripted")
        assert hello.pid == worker.process.pid
        worker.send(load(steps=1))
        assert isinstance(worker.receive(), wire.Progress)
        worker.receive_until(wire.Ready)
        worker.send(generate(count=2))
        assert isinstance(worker.receive(), wire.Started)
        assert [worker.receive().type for _ in range(3)] == ["delta", "delta", "finished"]
        worker.send(generate("last", count=3, token_seconds=0.01))
        worker.send(wire.Drain())
        worker.receive_until(wire.Finished)
        assert isinstance(worker.receive(), wire.Drained)
        worker.channel.close()
        assert worker.end() == (0, "")


def test_a_load_that_fails_says_so_and_ends_in_order() -> None:
    """A domain error is no crash: Failed, then exit code 0."""
    error = wire.ErrorBody(reason="BAD_MODEL_FILE", message="damaged")
    with _started() as worker:
        worker.send(load(fail_at=0, error=error.model_dump()))
        failed = worker.receive_until(wire.Failed)
        assert isinstance(failed, wire.Failed)
        assert failed.error == error
        assert worker.end() == (0, "")


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x04null",
        wire.encode("another#1", wire.Drain()),
        wire.encode(IDENTITY, wire.Drain()),
        wire.encode(IDENTITY, load()) * 2,
    ],
    ids=["zero", "huge", "null", "identity", "before-load", "second-load"],
)
def test_a_broken_protocol_ends_the_worker(data: bytes) -> None:
    """No frame, another worker's frame, or the wrong order: exit code 76, and it says why."""
    with _started() as worker:
        worker.channel.sendall(data)
        code, stderr = worker.end()
    assert code == 76
    assert stderr.startswith("protocol error: ")


def test_end_of_file_ends_a_load_that_hangs_in_native_code() -> None:
    """The reader thread is there before the engine, and needs nobody's help."""
    with _started() as worker:
        worker.send(load(stall_at=0, stall="c"))
        assert worker.process.stderr is not None
        assert worker.process.stderr.readline() == "stalled\n"
        worker.channel.close()
        assert worker.end() == (0, "")


def test_a_worker_whose_parent_is_gone_does_not_start() -> None:
    """Its parent is not who it was told: it would wait for a daemon that has died."""
    with _started(parent=1) as worker:
        assert worker.end()[0] == 0
        assert worker.channel.recv(1) == b""


def test_output_of_libraries_goes_to_standard_error() -> None:
    """Standard output is not read by anybody."""
    with _started() as worker:
        worker.send(load(stdout=("printed",)))
        worker.receive_until(wire.Ready)
        worker.channel.close()
        stdout, stderr = worker.process.communicate(timeout=10)
    assert (stdout, stderr) == ("", "printed\n")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_kernel_knows_what_it_is() -> None:
    """Its name has the model's, and it is the first choice when memory runs out."""
    with _started() as worker:
        worker.receive()
        proc = Path(f"/proc/{worker.process.pid}")
        assert (proc / "comm").read_text(encoding="utf-8") == "gemd:model\n"
        assert int((proc / "oom_score_adj").read_text(encoding="utf-8")) >= 500


def test_an_interrupt_is_the_daemons_business() -> None:
    """Ctrl-C reaches the whole terminal; a worker goes on until it is told to end."""
    with _started() as worker:
        worker.receive()
        worker.process.send_signal(signal.SIGINT)
        worker.send(load())
        worker.receive_until(wire.Ready)
