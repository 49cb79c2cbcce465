"""How the host gives an engine its turns and sends what it emits; within this process."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from gemd import wire
from gemd.errors import (
    ContextTooLongError,
    EngineCrashedError,
    EngineMissingError,
    EngineStartFailedError,
)
from gemd.worker import host as host_module
from gemd.worker.host import WorkerHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from gemd.errors import GemdError
    from gemd.worker.host import Progress

IDENTITY = "m#1"


class _CountingSocket(socket.socket):
    sends = 0

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        self.sends += 1
        super().sendall(data, flags)


class _Engine:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on_step: Callable[[], bool] = lambda: True
        self.is_idle = True
        self.resize_error: GemdError | None = None

    def load(self, load: wire.Load, progress: Progress) -> wire.Ready:
        raise AssertionError

    def accept(self, message: wire.Work) -> None:
        self.calls.append(f"accept {message.request_id}")
        if message.request_id == "long":
            raise ContextTooLongError("too long")

    def cancel(self, request_id: str) -> None:
        self.calls.append(f"cancel {request_id}")

    def step(self) -> bool:
        self.calls.append("step")
        return self.on_step()

    def idle(self) -> bool:
        return self.is_idle

    def resize(self, resize: wire.Resize) -> wire.Resized:
        self.calls.append(f"resize {resize.context_tokens}")
        if self.resize_error is not None:
            raise self.resize_error
        return wire.Resized(
            request_id=resize.request_id,
            context_tokens=resize.context_tokens,
            memory_bytes={},
        )

    def status(self, nonce: int) -> wire.Pong:
        return wire.Pong(nonce=nonce, active=0, waiting=0, cached_tokens=0)

    def close(self) -> None:
        self.calls.append("close")


class _Setup:
    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(5)
        self.theirs = _CountingSocket(fileno=theirs.detach())
        self.host = WorkerHost(self.theirs, identity=IDENTITY)
        self.engine = _Engine()
        self._frames = wire.FrameReader()

    def turn(self) -> None:
        self.host._turn(self.engine)

    def give(self, *messages: wire.ToWorker) -> None:
        for message in messages:
            self.host._inbox.put(message)

    def received(self) -> list[wire.ToDaemon]:
        data = self.ours.recv(1 << 20)
        return [wire.decode_for_daemon(IDENTITY, body) for body in self._frames.feed(data)]


@pytest.fixture
def setup() -> Iterator[_Setup]:
    """A host on one end of a socket, the test on the other."""
    built = _Setup()
    with built.ours, built.theirs:
        yield built


def _delta(text: str) -> wire.Delta:
    return wire.Delta(request_id="r", text=text)


def _count(request_id: str) -> wire.Count:
    return wire.Count(request_id=request_id, prompt=wire.Prompt(text="x"))


def test_one_step_is_one_send(setup: _Setup) -> None:
    """Eight sequences' tokens leave with a single call, after the step."""

    def step() -> bool:
        for number in range(8):
            setup.host.emit(_delta(str(number)))
        assert setup.theirs.sends == 0
        return True

    setup.engine.on_step = step
    setup.turn()
    assert setup.theirs.sends == 1
    texts = [message.text for message in setup.received() if isinstance(message, wire.Delta)]
    assert texts == [str(number) for number in range(8)]


def test_a_silent_step_sends_nothing(setup: _Setup) -> None:
    """No call into the kernel when there is nothing to say."""
    setup.turn()
    assert setup.theirs.sends == 0


def test_messages_and_jobs_are_taken_in_order_before_the_step(setup: _Setup) -> None:
    """Requests, cancels, posted jobs: all that has come in, then one step."""
    setup.give(_count("a"), wire.Cancel(request_id="a"))
    setup.host.post(lambda: setup.engine.calls.append("job"))
    setup.give(_count("b"))
    setup.turn()
    assert setup.engine.calls == ["accept a", "cancel a", "job", "accept b", "step"]


def test_answers_from_taking_do_not_wait_for_the_step(setup: _Setup) -> None:
    """A refusal and a Pong are on their way before a long step begins."""
    setup.give(_count("long"), wire.Ping(nonce=5))

    def step() -> bool:
        refusal, pong = setup.received()
        assert isinstance(refusal, wire.RequestFailed)
        assert refusal.request_id == "long"
        assert refusal.error.reason == "CONTEXT_TOO_LONG"
        assert isinstance(pong, wire.Pong)
        assert pong.nonce == 5
        return True

    setup.engine.on_step = step
    setup.turn()


def test_other_threads_send_at_once(setup: _Setup) -> None:
    """What a preparing thread emits does not wait for the engine's thread."""
    thread = threading.Thread(target=setup.host.emit, args=(_delta("aside"),))
    thread.start()
    thread.join()
    assert setup.received() == [_delta("aside")]


def test_a_posted_job_wakes_a_sleeping_engine(setup: _Setup) -> None:
    """After an idle step the thread sleeps until something comes in; a job is enough."""
    setup.engine.on_step = lambda: False
    threading.Timer(0.05, setup.host.post, args=(lambda: setup.engine.calls.append("job"),)).start()
    setup.turn()
    assert setup.engine.calls == ["step", "job"]


def test_while_draining_new_requests_are_refused(setup: _Setup) -> None:
    """Cancels and pings still pass."""
    setup.give(wire.Drain(), _count("late"), wire.Cancel(request_id="a"), wire.Ping(nonce=1))
    setup.turn()
    assert setup.engine.calls == ["cancel a", "step"]
    refusal, pong = setup.received()
    assert isinstance(refusal, wire.RequestFailed)
    assert refusal.error.reason == "SHUTTING_DOWN"
    assert isinstance(pong, wire.Pong)


RESIZE = wire.Resize(request_id="z", context_tokens=512, prompt_cache_bytes=0)


def test_a_resize_takes_its_turn_between_requests(setup: _Setup) -> None:
    """In the order in which they came, and before the step."""
    setup.give(_count("a"), RESIZE, _count("b"))
    setup.turn()
    assert setup.engine.calls == ["accept a", "resize 512", "accept b", "step"]
    (resized,) = setup.received()
    assert isinstance(resized, wire.Resized)


@pytest.mark.parametrize("before, reason", [((), "MODEL_BUSY"), ((wire.Drain(),), "SHUTTING_DOWN")])
def test_a_resize_beside_requests_is_refused_at_once(
    setup: _Setup, before: tuple[wire.ToWorker, ...], reason: str
) -> None:
    """The engine does not hear of it, and the refusal does not wait for the step."""
    setup.engine.is_idle = False
    setup.give(*before, RESIZE)

    def step() -> bool:
        (refusal,) = setup.received()
        assert isinstance(refusal, wire.RequestFailed)
        assert (refusal.request_id, refusal.error.reason) == ("z", reason)
        return True

    setup.engine.on_step = step
    setup.turn()
    assert setup.engine.calls == ["step"]


@pytest.mark.parametrize(
    "error, ends", [(EngineStartFailedError("no room"), []), (EngineCrashedError("lost"), [1])]
)
def test_a_worker_ends_with_its_context_and_with_nothing_less(
    setup: _Setup, monkeypatch: pytest.MonkeyPatch, error: GemdError, ends: list[int]
) -> None:
    """Whoever asked is told first."""
    codes: list[int] = []

    def end(code: int) -> None:
        (refusal,) = setup.received()
        assert isinstance(refusal, wire.RequestFailed)
        assert refusal.error.reason == error.reason
        codes.append(code)

    monkeypatch.setattr(host_module, "end_process", end)
    setup.engine.resize_error = error
    setup.give(RESIZE)
    setup.turn()
    assert codes == ends


def test_an_answer_too_large_for_a_frame_fails_its_request(setup: _Setup) -> None:
    """The worker lives on, and whoever asked learns why there is no answer."""
    setup.host.emit(wire.Delta(request_id="r", text="x" * (wire.MAX_FRAME_BYTES + 1)))
    setup.host._flush()
    (refusal,) = setup.received()
    assert isinstance(refusal, wire.RequestFailed)
    assert refusal.request_id == "r"
    assert refusal.error.reason == "INVALID_REQUEST"


def test_progress_is_thinned(setup: _Setup) -> None:
    """Thousands of reports of one phase cost a few frames; a new phase is always told."""
    for number in range(5000):
        setup.host._progress("weights", number, 5000)
    setup.host._progress("context", 0, 0)
    assert 2 <= setup.theirs.sends < 500
    messages = setup.received()
    first, last = messages[0], messages[-1]
    assert isinstance(first, wire.Progress)
    assert (first.phase, first.current) == ("weights", 0)
    assert isinstance(last, wire.Progress)
    assert last.phase == "context"


def test_software_that_is_not_there_is_a_missing_engine(
    setup: _Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that cannot be imported is named, with the module and the interpreter."""
    monkeypatch.setitem(host_module.ENGINES, "absent", "gemd.no_such_engine:create")
    with pytest.raises(EngineMissingError) as caught:
        host_module._create("absent", setup.host)
    assert caught.value.metadata["engine"] == "absent"
    assert caught.value.metadata["module"] == "gemd.no_such_engine"
