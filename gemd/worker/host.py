"""The loop that gives an engine its turns, and the worker's end of the channel.

Two threads::

    reader   blocks in recv; decodes frames into the inbox; ends the process when the
             daemon is gone, whatever the engine is doing at that moment
    engine   the main thread; takes the inbox, lets the engine do one bounded step,
             sends what the step emitted with one call, and again

The reader starts before any engine is imported: an import or a load may hang, and a
worker that outlives its daemon would hold a model's memory for nobody.
"""

from __future__ import annotations

import gc
import importlib
import os
import queue
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, NoReturn, Protocol, assert_never

from gemd import wire
from gemd.errors import (
    EngineCrashedError,
    EngineMissingError,
    GemdError,
    InvalidRequestError,
    ModelBusyError,
    ShuttingDownError,
)
from gemd.worker.memory import importing

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

ENGINES = {
    "diffusion": "gemd.worker.diffusion:create",
    "llama": "gemd.worker.llama:create",
    "scripted": "gemd.worker.scripted:create",
}
"""Engine names and their factories as ``module:function``; imported after the Load frame."""

EXIT_CRASHED = 1
"""An engine raised something that is no domain error, or has lost its context."""
EXIT_PROTOCOL = 76
"""The daemon sent something that is no frame (EX_PROTOCOL)."""

_RECEIVE_BYTES = 1 << 16
_PROGRESS_SECONDS = 0.05


class Host(Protocol):
    """What an engine sees of the process it lives in."""

    def emit(self, message: wire.FromWorker) -> None:
        """Send a message to the daemon; from any thread.

        On the engine's own thread messages are collected and leave with one call after
        the current step (or before it, if they were emitted between steps). On another
        thread they leave at once, and so ahead of what the engine thread has collected.
        A message of a request that is too large for a frame becomes its RequestFailed.
        """
        ...

    def post(self, job: Callable[[], None]) -> None:
        """Run a job on the engine's thread before its next step, waking it; from any thread."""
        ...


class Engine(Protocol):
    """What computes. Every method is called on one thread, the process's main thread.

    An exception that is no `GemdError`, and any from `step`, ends the process: the state
    of a native library after an unknown failure cannot be trusted.
    """

    def load(self, load: wire.Load, progress: Progress) -> wire.Ready:
        """Load the model and decode one token with it.

        Raises:
            GemdError: The load failed for good; sent as Failed, then the process ends.

        """
        ...

    def accept(self, message: wire.Work) -> None:
        """Take a request; quick, because every running request waits meanwhile.

        Raises:
            GemdError: This request cannot be answered; sent as its RequestFailed.

        """
        ...

    def cancel(self, request_id: str) -> None:
        """Drop a request, answering it with Finished; unknown ids are no error."""
        ...

    def step(self) -> bool:
        """One bounded piece of work, such as one decode; False if there was none to do.

        After False the thread sleeps until a message or a posted job arrives.
        """
        ...

    def idle(self) -> bool:
        """Whether no request is running, waiting or being prepared on another thread."""
        ...

    def resize(self, resize: wire.Resize) -> wire.Resized:
        """Make the context anew in another size and decode one token; called when idle.

        Raises:
            EngineCrashedError: There is no context any more; sent as RequestFailed, then
                the process ends.
            GemdError: The context has the size it had; sent as RequestFailed.

        """
        ...

    def status(self, nonce: int) -> wire.Pong:
        """The answer to a Ping."""
        ...

    def close(self) -> None:
        """Called once when a drain is complete; the process ends soon after."""
        ...


class Progress(Protocol):
    """Tells the daemon that a load goes on; may be called as often as one likes."""

    def __call__(self, phase: wire.Phase, current: int, total: int, /) -> None:
        """`current` of `total` (0 if unknown) in this phase, in any unit."""
        ...


class WorkerHost:
    """The one `Host`: it owns the channel, and its creator's thread is the engine thread.

    Args:
        channel: The connected socket to the daemon, blocking.
        identity: What every frame in both directions has to carry.

    """

    def __init__(self, channel: socket.socket, *, identity: str) -> None:
        self._channel = channel
        self._identity = identity
        self._engine_thread = threading.get_ident()
        self._inbox: queue.SimpleQueue[wire.ToWorker | Callable[[], None]] = queue.SimpleQueue()
        self._outbox: list[bytes] = []
        self._send_lock = threading.Lock()
        self._draining = False
        self._progress_phase = ""
        self._progress_at = 0.0

    @property
    def model(self) -> str:
        """Whose weights this worker holds, as the daemon names them."""
        return self._identity.rpartition("#")[0]

    def emit(self, message: wire.FromWorker) -> None:
        """See `Host.emit`."""
        frame = self._frame(message)
        if threading.get_ident() == self._engine_thread:
            self._outbox.append(frame)
        else:
            self.send(frame)

    def post(self, job: Callable[[], None]) -> None:
        """See `Host.post`."""
        self._inbox.put(job)

    def send(self, data: bytes) -> None:
        """Write bytes to the channel as they are; ends the process if the daemon is gone."""
        try:
            with self._send_lock:
                self._channel.sendall(data)
        except OSError:
            end_process(0)

    def serve(self, engine_name: str) -> NoReturn:
        """Greet, load, and answer until the daemon closes the channel."""
        threading.Thread(target=self._read, name="gemd-reader", daemon=True).start()
        self.emit(wire.Hello(pid=os.getpid(), engine=engine_name))
        self._flush()
        first = self._inbox.get()
        if not isinstance(first, wire.Load):
            self._protocol_error(f"the first message has to be load, not {first}")
        engine = self._load(engine_name, first)
        while not (self._draining and engine.idle()):
            self._turn(engine)
        engine.close()
        self.emit(wire.Drained())
        self._flush()
        # The reader ends the process when the daemon closes the channel.
        threading.Event().wait()
        raise AssertionError("unreachable")

    def _load(self, engine_name: str, load: wire.Load) -> Engine:
        self._progress("import", 0, 0)
        try:
            engine = _create(engine_name, self)
            ready = engine.load(load, self._progress)
        except GemdError as error:
            self.emit(wire.Failed(error=wire.ErrorBody.of(error)))
            self._flush()
            end_process(0)
        # What the load left behind stays: looking through it again would take 10 ms and more
        # of some token's time.
        gc.collect()
        gc.freeze()
        self.emit(ready)
        self._flush()
        return engine

    def _turn(self, engine: Engine) -> None:
        while not self._inbox.empty():
            self._take(engine, self._inbox.get())
        self._flush()
        worked = engine.step()
        self._flush()
        if not worked and not (self._draining and engine.idle()):
            self._take(engine, self._inbox.get())

    def _take(self, engine: Engine, item: wire.ToWorker | Callable[[], None]) -> None:
        match item:
            case wire.Generate() | wire.Score() | wire.Embed() | wire.Count():
                self._accept(engine, item)
            case wire.Cancel():
                engine.cancel(item.request_id)
            case wire.Resize():
                self._resize(engine, item)
            case wire.Ping():
                self.emit(engine.status(item.nonce))
            case wire.Drain():
                self._draining = True
            case wire.Load():
                self._protocol_error("a second load")
            case _ if callable(item):
                item()
            case _:
                assert_never(item)

    def _accept(self, engine: Engine, work: wire.Work) -> None:
        try:
            if self._draining:
                raise ShuttingDownError(
                    "the worker takes no new requests", why="its model is being unloaded"
                )
            engine.accept(work)
        except GemdError as error:
            self.emit(wire.RequestFailed.of(work.request_id, error))

    def _resize(self, engine: Engine, resize: wire.Resize) -> None:
        try:
            if self._draining:
                raise ShuttingDownError(
                    "the context keeps its size", why="its model is being unloaded"
                )
            if not engine.idle():
                raise ModelBusyError("the context keeps its size", why="requests run in it")
            self.emit(engine.resize(resize))
        except GemdError as error:
            self.emit(wire.RequestFailed.of(resize.request_id, error))
            if isinstance(error, EngineCrashedError):
                self._flush()
                end_process(EXIT_CRASHED)

    def _progress(self, phase: wire.Phase, current: int, total: int) -> None:
        # Libraries report per tensor or per percent; the daemon needs a sign of life only.
        now = time.monotonic()
        if phase == self._progress_phase and now - self._progress_at < _PROGRESS_SECONDS:
            return
        self._progress_phase, self._progress_at = phase, now
        self.emit(wire.Progress(phase=phase, current=current, total=total))
        self._flush()

    def _frame(self, message: wire.FromWorker) -> bytes:
        try:
            return wire.encode(self._identity, message)
        except wire.WireError as error:
            request_id = getattr(message, "request_id", None)
            if request_id is None:
                raise
            refusal = InvalidRequestError(
                f"the {message.type} message for this request cannot be sent", why=str(error)
            )
            return wire.encode(self._identity, wire.RequestFailed.of(request_id, refusal))

    def _flush(self) -> None:
        if self._outbox:
            frames = self._outbox
            self._outbox = []
            self.send(frames[0] if len(frames) == 1 else b"".join(frames))

    def _read(self) -> None:
        frames = wire.FrameReader()
        buffer = bytearray(_RECEIVE_BYTES)
        view = memoryview(buffer)
        try:
            while size := self._channel.recv_into(buffer):
                for body in frames.feed(view[:size]):
                    self._inbox.put(wire.decode_for_worker(self._identity, body))
        except wire.WireError as error:
            self._protocol_error(str(error))
        except OSError:
            # A reset: the daemon died with frames of ours unread.
            pass
        except BaseException:  # noqa: BLE001 - without this thread nobody would notice a dead daemon
            traceback.print_exc()
            end_process(EXIT_CRASHED)
        end_process(0)

    @staticmethod
    def _protocol_error(text: str) -> NoReturn:
        sys.stderr.write(f"protocol error: {text}\n")
        end_process(EXIT_PROTOCOL)


def end_process(code: int) -> NoReturn:
    """End at once, from any thread.

    No destructors: those of native libraries hang or abort while other threads compute.
    """
    sys.stderr.flush()
    os._exit(code)


def _create(engine_name: str, host: Host) -> Engine:
    module_name, _, factory_name = ENGINES[engine_name].partition(":")
    try:
        with importing():
            module = importlib.import_module(module_name)
            engine: Engine = getattr(module, factory_name)(host)
    except ImportError as error:
        raise EngineMissingError(
            f"the {engine_name} engine cannot be imported by {sys.executable}",
            why=str(error),
            metadata={
                "engine": engine_name,
                "module": error.name or module_name,
                "python": sys.executable,
            },
        ) from error
    return engine
