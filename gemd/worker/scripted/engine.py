"""The engine that follows scripts."""

from __future__ import annotations

import collections
import contextlib
import signal
import time

from gemd import wire
from gemd.errors import CancelledError, ContextTooLongError, DeadlineExpiredError, GemdError
from gemd.worker.host import Host, Progress, WorkerHost
from gemd.worker.memory import give_back
from gemd.worker.scripted import faults, tokens
from gemd.worker.scripted.answer import Running, Scoring
from gemd.worker.scripted.script import LoadScript, Scored, script_of

_MIB = 1024 * 1024
_POLL_SECONDS = 0.005


def create(host: Host) -> ScriptedEngine:
    """The factory that `gemd.worker.host.ENGINES` names."""
    if not isinstance(host, WorkerHost):
        raise TypeError("the scripted engine writes garbage to the channel of a WorkerHost")
    return ScriptedEngine(host)


class ScriptedEngine:
    """See the module; an `gemd.worker.host.Engine`."""

    def __init__(self, host: WorkerHost) -> None:
        self._host = host
        self._options = LoadScript()
        self._load: wire.Load | None = None
        self._ballast: bytearray | None = None
        self._cells: bytearray | None = None
        self._context_tokens = 0
        self._running: dict[tuple[str, int], Running] = {}
        self._waiting: collections.deque[Running] = collections.deque()
        self._scoring: dict[str, Scoring] = {}

    def load(self, load: wire.Load, progress: Progress) -> wire.Ready:
        """Follow the `LoadScript`."""
        began = time.monotonic()
        self._load = load
        script = self._options = LoadScript.model_validate(load.options)
        if script.ignore_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        faults.make_noise(script)
        if script.report_environment:
            faults.report_environment()
        # Filled, because the kernel gives no memory for pages of nothing.
        self._ballast = bytearray(b"\x01") * (script.allocate_mib * _MIB)
        self._allocate_cells(load.context_tokens)
        for step in range(script.steps):
            faults.misbehave(script, step)
            progress("weights", step, script.steps)
            faults.wait(script.step_seconds)
        return wire.Ready(
            engine="scripted",
            engine_version="1",
            architecture="scripted",
            context_tokens=load.context_tokens,
            train_context_tokens=load.context_tokens,
            max_sequences=load.max_sequences,
            vocabulary=tokens.VOCABULARY,
            parameters=0,
            has_chat_template=True,
            supports_gpu_offload=False,
            devices=("CPU",),
            memory_bytes=self._memory_bytes(),
            load_seconds=time.monotonic() - began,
            compute=script.compute,
            compute_reason="the script says so" if script.compute else "",
        )

    def accept(self, message: wire.Work) -> None:
        """Queue a Generate, and a Score with a script; answer the others at once."""
        match message:
            case wire.Generate():
                self._waiting.extend(self._prepare(message))
            case wire.Score():
                self._score(message)
            case wire.Embed():
                self._host.emit(tokens.embeddings(message, made_for=self._options.pooling))
            case wire.Count():
                self._host.emit(tokens.counted(message))

    def cancel(self, request_id: str) -> None:
        """Finish the request as cancelled."""
        for running in self._candidates(request_id):
            self._finish(running, "cancelled")
        if self._scoring.pop(request_id, None) is not None:
            error = CancelledError("the request was cancelled")
            self._host.emit(wire.RequestFailed.of(request_id, error))

    def step(self) -> bool:
        """One token, or one denoising step, of every running candidate that is due; all scores."""
        now = time.monotonic()
        for scoring in list(self._scoring.values()):
            self._advance_score(scoring, now)
        for waiting in list(self._waiting):
            if waiting in self._waiting:
                self._expire(waiting, now)
        while self._waiting and len(self._running) < self._sequences:
            self._start(self._waiting.popleft())
        due = [running.due for running in self._running.values()]
        due += [scoring.due for scoring in self._scoring.values()]
        if not due:
            return False
        wait = min(due) - now
        if wait > 0:
            faults.wait(min(wait, _POLL_SECONDS))
            now = time.monotonic()
        for running in list(self._running.values()):
            self._advance(running, now)
        return True

    def idle(self) -> bool:
        """Whether nothing runs; never with `LoadScript.ignore_drain`."""
        busy = self._running or self._waiting or self._scoring
        return not (busy or self._options.ignore_drain)

    def resize(self, resize: wire.Resize) -> wire.Resized:
        """Allocate anew what belongs to the context, or refuse as `LoadScript` says."""
        faults.wait(self._options.resize_seconds)
        if self._options.resize_error:
            raise self._options.resize_error.error()
        self._cells = None
        give_back()
        self._allocate_cells(resize.context_tokens)
        return wire.Resized(
            request_id=resize.request_id,
            context_tokens=self._context_tokens,
            memory_bytes=self._memory_bytes(),
        )

    def status(self, nonce: int) -> wire.Pong:
        """The numbers of running and waiting candidates."""
        return wire.Pong(
            nonce=nonce,
            active=len(self._running) + len(self._scoring),
            waiting=len(self._waiting),
            cached_tokens=0,
        )

    def close(self) -> None:
        """Let go of the allocated memory."""
        self._ballast = self._cells = None

    def _allocate_cells(self, context_tokens: int) -> None:
        self._context_tokens = context_tokens
        self._cells = bytearray(b"\x01") * (self._options.cell_bytes * context_tokens)

    def _memory_bytes(self) -> dict[str, int]:
        return {"CPU": len(self._ballast or ()) + len(self._cells or ())}

    @property
    def _sequences(self) -> int:
        return self._load.max_sequences if self._load else 0

    def _prepare(self, request: wire.Generate) -> list[Running]:
        prompt_tokens = len(tokens.token_ids(request.prompt))
        context = self._context_tokens
        if prompt_tokens > context:
            raise ContextTooLongError(
                f"the prompt has {prompt_tokens} tokens, the context {context}",
                metadata={"prompt_tokens": prompt_tokens, "context_tokens": context},
            )
        script, now = script_of(request.prompt, self._host.model), time.monotonic()
        return [
            Running(request, script, now, prompt_tokens, candidate)
            for candidate in range(request.candidates)
        ]

    def _score(self, request: wire.Score) -> None:
        script = script_of(request.prompt, self._host.model).score
        if script is None:
            self._host.emit(tokens.scores(request, None))
            return
        now = time.monotonic()
        self._scoring[request.request_id] = Scoring(request, script, now, now + script.seconds)

    def _advance_score(self, scoring: Scoring, now: float) -> None:
        request, script = scoring.request, scoring.script
        deadline = request.deadline_seconds
        if deadline is not None and now - scoring.accepted > deadline:
            del self._scoring[request.request_id]
            error = _deadline_expired(deadline)
            self._host.emit(wire.RequestFailed(request_id=request.request_id, error=error))
        elif now >= scoring.due:
            del self._scoring[request.request_id]
            self._host.emit(_scored(request, script))

    def _candidates(self, request_id: str) -> list[Running]:
        """Those of a request that have not ended."""
        every = [*self._running.values(), *self._waiting]
        return [running for running in every if running.request.request_id == request_id]

    def _start(self, running: Running) -> None:
        faults.make_noise(running.script)
        running.started = time.monotonic()
        running.due = running.started + running.script.prefill_seconds
        self._running[running.key] = running
        if not running.candidate:
            self._host.emit(
                wire.Started(
                    request_id=running.request.request_id,
                    prompt_tokens=running.prompt_tokens,
                    cached_tokens=0,
                )
            )

    def _advance(self, running: Running, now: float) -> None:
        if running.key not in self._running or self._expire(running, now) or running.due > now:
            return
        script = running.script
        if running.done == script.fail_at and script.error:
            self._fail(running, script.error)
            return
        faults.misbehave(script, running.done)
        self._write_garbage(running)
        if running.done < running.limit and not self._denoises(running, now):
            self._say(running)
            running.due = now + running.seconds
        if running.done >= running.limit:
            complete = running.limit == len(running.tokens)
            self._finish(running, "stop" if complete else "max_tokens")

    def _denoises(self, running: Running, now: float) -> bool:
        """Show the next step of its canvas, if there is one; whether there are more."""
        picture = running.picture()
        if picture is None:
            return False
        self._host.emit(picture)
        running.due = now + running.script.canvas_seconds
        return not picture.last

    def _say(self, running: Running) -> None:
        text, reasoning = running.tokens[running.done], running.done < running.thoughts
        running.done += 1
        running.step = 0
        self._host.emit(
            wire.Delta(
                request_id=running.request.request_id,
                candidate=running.candidate,
                text="" if reasoning else text,
                reasoning_text=text if reasoning else "",
                tokens=(tokens.token_id(text),),
            )
        )

    def _expire(self, running: Running, now: float) -> bool:
        """Fail it if its deadline has passed; whether it had."""
        deadline = running.request.deadline_seconds
        if deadline is None or now - running.accepted <= deadline:
            return False
        self._fail(running, _deadline_expired(deadline))
        return True

    def _write_garbage(self, running: Running) -> None:
        if running.done == running.script.garbage_at:
            self._host.send(b"\x00\x00\x00\x05nonsense")
        if running.done == running.script.wrong_identity_at:
            message = wire.Delta(request_id=running.request.request_id, text="from elsewhere")
            self._host.send(wire.encode("somebody-else#0", message))

    def _finish(self, running: Running, reason: wire.FinishReason) -> None:
        self._forget(running)
        now = time.monotonic()
        started = running.started or now
        first_token = min(now, started + running.script.prefill_seconds)
        self._host.emit(
            wire.Finished(
                request_id=running.request.request_id,
                candidate=running.candidate,
                last=not self._candidates(running.request.request_id),
                reason=reason,
                prompt_tokens=running.prompt_tokens,
                cached_tokens=0,
                completion_tokens=running.done,
                queue_seconds=started - running.accepted,
                prefill_seconds=first_token - started,
                decode_seconds=now - first_token,
                reasoning_tokens=running.reasoned,
                filled_spans=running.filled,
                trace=running.script.trace,
                drafted_tokens=running.drafted,
                accepted_tokens=running.equal,
            )
        )

    def _fail(self, running: Running, error: wire.ErrorBody) -> None:
        for candidate in self._candidates(running.request.request_id):
            self._forget(candidate)
        self._host.emit(wire.RequestFailed(request_id=running.request.request_id, error=error))

    def _forget(self, running: Running) -> None:
        self._running.pop(running.key, None)
        with contextlib.suppress(ValueError):
            self._waiting.remove(running)


def _scored(request: wire.Score, script: Scored) -> wire.Scores | wire.RequestFailed:
    for index in range(len(request.continuations)):
        try:
            faults.misbehave(script, index)
        except GemdError as error:
            return wire.RequestFailed.of(request.request_id, error)
    return tokens.scores(request, script)


def _deadline_expired(seconds: float) -> wire.ErrorBody:
    return wire.ErrorBody.of(
        DeadlineExpiredError(
            f"the answer was not complete after {seconds:g} s", metadata={"seconds": seconds}
        )
    )
