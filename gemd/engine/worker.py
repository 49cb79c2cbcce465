"""One warm model's process, as the rest of the daemon sees it."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import psutil

from gemd import wire
from gemd.engine import failures
from gemd.engine.channel import Channel
from gemd.engine.ending import Ending
from gemd.engine.loading import Loading
from gemd.engine.process import WorkerProcess
from gemd.engine.reports import ExitReport, StopReport, StuckCallback
from gemd.engine.requests import Requests
from gemd.engine.spec import WorkerSpec
from gemd.engine.waiting import uninterrupted
from gemd.engine.watch import Watch
from gemd.errors import (
    EngineCrashedError,
    GemdError,
    ShuttingDownError,
    UnexpectedError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from gemd.engine.mailbox import Mailbox

__all__ = ["ExitReport", "State", "StopReport", "Worker", "WorkerSpec"]

State = Literal["starting", "ready", "stopping", "exited"]

_REMAINS_S = 1.0

_AnswerT = TypeVar("_AnswerT", wire.Scores, wire.Embeddings, wire.Counted, wire.Resized)


class Worker:
    """A worker process and its channel; made by `start`, ended by `stop`.

    It belongs to one asyncio loop, whose thread has to live as long as the process: on
    Linux the kernel kills a worker when the thread that started it ends.

    Attributes:
        spec: What was started.
        identity: In every frame of this worker and of no other.
        ready: What it said about the loaded model; its context as it is now.

    """

    ready: wire.Ready
    _process: WorkerProcess
    _ending: Ending

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        # Plain characters only: it goes into frames, arguments and the process's name.
        name = re.sub(r"[^A-Za-z0-9._/-]", "_", spec.model)
        self.identity = f"{name}#{secrets.token_hex(4)}"
        self._channel = Channel(self.identity, receive=self._receive, broken=self._broken)
        self._requests = Requests(spec.model, self._channel)
        self._loading = Loading(
            spec, self._channel, stop=lambda: self.stop(grace_s=0), wait_exit=self.wait_exit
        )
        self._exit: asyncio.Future[ExitReport] = asyncio.get_running_loop().create_future()
        self._protocol_error = ""
        self._stalled_s = 0.0
        self._stuck = False
        self._tell_stuck: StuckCallback = lambda _: None
        self._watch = Watch(
            patience_s=spec.answer_stall_timeout_s,
            is_busy=lambda: self._requests.busy,
            ask=self._requests.poke,
            stalled=self._on_stall,
        )

    @classmethod
    async def start(
        cls,
        spec: WorkerSpec,
        *,
        report: Callable[[wire.Progress], None] = lambda _: None,
        log: Callable[[str], None] = lambda _: None,
        born: Callable[[int], None] = lambda _: None,
        stuck: StuckCallback = lambda _: None,
    ) -> Worker:
        """Spawn a process and load the model.

        However this ends other than with a worker, the process is gone by then, or `stuck`.

        Args:
            spec: What to start.
            report: Called with each sign of life of the load.
            log: Called with each line the process prints, as long as it lives.
            born: Called with the process id, before anything is loaded.
            stuck: Called once, now or later, if the process outlives SIGKILL, with what waits
                for its end: until then it holds its memory. All its requests have failed.

        Raises:
            EngineStartFailedError: The process could not be started, ended, or gave no
                sign of life for `WorkerSpec.stall_timeout_s`; ``metadata["stderr"]`` has
                the last that it printed.
            GemdError: Whatever the engine said was wrong, such as BadModelFileError.

        """
        worker = cls(spec)
        worker._tell_stuck = stuck
        await worker._spawn(log)
        try:
            born(worker.pid)
            worker.ready = await worker._loading.run(worker._process, report=report)
        except BaseException:
            await uninterrupted(worker.stop(grace_s=0))
            raise
        return worker

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def state(self) -> State:
        """Where in its life it is; ready only after, exited only after the fact."""
        if self._exit.done():
            return "exited"
        if self._ending.begun:
            return "stopping"
        return "ready" if hasattr(self, "ready") else "starting"

    async def generate(
        self, request: wire.Generate, *, on_complete: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[wire.Started | wire.Delta | wire.Canvas | wire.Finished, None]:
        """Stream an answer: Started, any number of Delta and Canvas, one Finished per candidate.

        Closing the stream early cancels the request in the worker, so close it
        (`contextlib.aclosing`). What waits for the reader is thinned as `Mailbox` says.

        Args:
            request: What to answer.
            on_complete: Called when the worker is done with it; a slow reader may have much
                to read then. Not called if the worker ended before.

        Raises:
            EngineCrashedError: The process ended; ABORTED if a Delta was read before.
            CancelledError: `stop` ran out of grace.
            ShuttingDownError: The worker is being stopped.
            InvalidRequestError: The id is in use, or the request is too large.
            GemdError: Whatever the engine said was wrong.

        """
        mailbox = self._open(request, on_complete=on_complete)
        try:
            while True:
                message = await mailbox.get()
                match message:
                    case wire.Started() | wire.Delta() | wire.Canvas():
                        yield message
                    case wire.Finished():
                        yield message
                        if message.last:
                            return
                    case wire.RequestFailed():
                        raise message.error.error()
                    case _:
                        raise _out_of_place(message)
        finally:
            self._requests.settle(request.request_id, mailbox)

    async def score(self, request: wire.Score) -> wire.Scores:
        """Log-probabilities of continuations. Raises as `generate`."""
        return await self._ask(request, wire.Scores)

    async def embed(self, request: wire.Embed) -> wire.Embeddings:
        """Vectors of texts. Raises as `generate`."""
        return await self._ask(request, wire.Embeddings)

    async def count(self, request: wire.Count) -> wire.Counted:
        """Tokens of a prompt. Raises as `generate`."""
        return await self._ask(request, wire.Counted)

    async def ping(self) -> wire.Pong:
        """An answer from the engine's own thread: proof that it is not stuck.

        Raises:
            EngineCrashedError: The process ended.
            CancelledError: `stop` closed the channel before the answer.
            ShuttingDownError: The worker is being stopped.

        """
        self._refuse_if_over()
        return await self._requests.ping()

    async def resize(self, *, context_tokens: int, prompt_cache_bytes: int) -> wire.Resized:
        """Make the context of an idle worker anew in another size.

        What stood in it is lost, but for what the prompt cache takes. `ready` has the new
        size as soon as the worker says so, even if this call was cancelled meanwhile.

        Args:
            context_tokens: Cells of the KV cache; the model's training context is the most.
            prompt_cache_bytes: The most that prompts may take outside it.

        Raises:
            ModelBusyError: Requests run in it.
            EngineStartFailedError: There is no memory for that size; it has the old one.
            EngineCrashedError: The process has ended, perhaps because there was no memory
                for the old size any more either.
            CancelledError: `stop` closed the channel before the answer.
            ShuttingDownError: The worker is being stopped.

        """
        request = wire.Resize(
            request_id=f"resize-{secrets.token_hex(8)}",
            context_tokens=context_tokens,
            prompt_cache_bytes=prompt_cache_bytes,
        )
        try:
            return await self._ask(request, wire.Resized)
        except EngineCrashedError as error:
            report = await self.wait_exit()
            error.metadata = {"model": self.spec.model, **report.metadata, **error.metadata}
            raise

    async def stop(self, *, grace_s: float) -> StopReport:
        """End the process, as gently as it lets us.

        Drain for at most `grace_s`; close the channel; SIGTERM; SIGKILL; each with a time
        of its own (`WorkerSpec.ladder`). What still runs after the grace fails with
        CancelledError. Any number of calls share one ending, and the shortest grace
        counts. A cancelled call does not stop the ending.

        Args:
            grace_s: Seconds for what runs to finish; 0 does not ask.

        """
        drain = hasattr(self, "ready")
        return await self._ending.run(grace_s=grace_s if drain else 0)

    async def wait_exit(self) -> ExitReport:
        """How the process ended; waits until it has been reaped."""
        return await asyncio.shield(self._exit)

    def rss_bytes(self) -> int:
        """Resident memory of the process, mapped weights included; 0 once it is gone."""
        if self._exit.done():
            return 0
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    # --- birth and death ----------------------------------------------------------------

    async def _spawn(self, log: Callable[[str], None]) -> None:
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                ours.setblocking(False)
                await self._channel.attach(ours)
                self._process = await WorkerProcess.spawn(
                    self.spec, identity=self.identity, channel=theirs, log=log
                )
        except OSError as error:
            self._channel.abort()
            raise failures.unstarted(self.spec, error) from error
        except BaseException:
            self._channel.abort()
            raise
        self._ending = Ending(
            self._process, self._channel, self._exit, self.spec.ladder, stuck=self._on_stuck
        )
        self._supervisor = asyncio.create_task(self._supervise(), name=f"worker {self.identity}")

    async def _supervise(self) -> None:
        reaped = asyncio.create_task(self._process.wait())
        closed = self._channel.closed
        ends: set[asyncio.Future[Any]] = {reaped, closed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not reaped.done() and not self._ending.begun:
            # It has hung up. If it still lives after this, nobody can talk to it any more.
            await asyncio.wait({reaped}, timeout=self.spec.ladder.close_s)
            if not reaped.done() and not self._ending.begun:
                self._kill()
        await reaped
        self._watch.end()
        # Its last frames may still be in the socket.
        await asyncio.wait({closed}, timeout=_REMAINS_S)
        self._channel.abort()
        self._exit.set_result(
            await self._process.report(
                protocol_error=self._protocol_error,
                stalled_s=self._stalled_s,
                patience_s=_REMAINS_S,
            )
        )
        self._loading.receive(None)
        self._requests.fail(self._gone)

    def _gone(self, mid_stream: bool) -> GemdError:  # noqa: FBT001 - called back by position
        report = self._exit.result()
        if self._ending.forced and not report.protocol_error:
            return failures.cut_off(self.spec)
        return failures.crashed(self.spec, self.pid, report, mid_stream=mid_stream)

    def _on_stall(self) -> None:
        self._stalled_s = self.spec.answer_stall_timeout_s
        self._kill()

    def _kill(self) -> None:
        self._process.kill()
        asyncio.get_running_loop().call_later(self.spec.ladder.kill_s, self._look_stuck)

    def _look_stuck(self) -> None:
        if not self._exit.done():
            self._on_stuck()

    def _on_stuck(self) -> None:
        if not self._stuck:
            self._stuck = True
            self._watch.end()
            self._requests.fail(self._does_not_end)
            self._tell_stuck(self.wait_exit)

    def _does_not_end(self, mid_stream: bool) -> GemdError:  # noqa: FBT001 - as `_gone`
        return failures.stuck(self.spec.model, self.pid, mid_stream=mid_stream)

    # --- messages -----------------------------------------------------------------------

    def _receive(self, message: wire.FromWorker) -> None:
        self._watch.heard()
        match message:
            case wire.Hello() | wire.Progress() | wire.Ready() | wire.Failed():
                if hasattr(self, "ready"):
                    raise wire.WireError(f"{message.type} after ready")
                self._loading.receive(message)
            case wire.Drained():
                self._ending.drained.set()
            case wire.Resized():
                if not hasattr(self, "ready"):
                    raise wire.WireError("resized before ready")
                facts = message.model_dump(include={"context_tokens", "memory_bytes"})
                self.ready = self.ready.model_copy(update=facts)
                self._requests.deliver(message)
            case _:
                self._requests.deliver(message)

    def _broken(self, text: str) -> None:
        self._protocol_error = text
        self._kill()

    def _open(
        self, request: wire.Request, *, on_complete: Callable[[], None] = lambda: None
    ) -> Mailbox:
        self._refuse_if_over()
        mailbox = self._requests.open(request, on_complete=on_complete)
        self._watch.begin()
        return mailbox

    def _refuse_if_over(self) -> None:
        if self._stuck:
            raise self._does_not_end(False)
        if self._ending.begun:
            raise ShuttingDownError(
                f"{self.spec.model} takes no new requests",
                why="it is being unloaded",
                metadata={"model": self.spec.model},
            )
        if self._exit.done():
            raise self._gone(False)

    async def _ask(self, request: wire.Request, kind: type[_AnswerT]) -> _AnswerT:
        mailbox = self._open(request)
        try:
            message = await mailbox.get()
        finally:
            self._requests.settle(request.request_id, mailbox)
        if isinstance(message, kind):
            return message
        if isinstance(message, wire.RequestFailed):
            raise message.error.error()
        raise _out_of_place(message)


def _out_of_place(message: wire.Answer) -> UnexpectedError:
    return UnexpectedError(
        f"a worker answered the request {message.request_id!r} with {message.type}",
        metadata={"request_id": message.request_id, "type": message.type},
    )
