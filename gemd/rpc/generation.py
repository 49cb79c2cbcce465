"""GenerationService: a request gets its way, and what happens on it goes out as a stream."""

from __future__ import annotations

import contextlib
import secrets
from contextlib import aclosing
from typing import TYPE_CHECKING

from gemd import wire
from gemd.errors import ContextTooLongError, InvalidRequestError
from gemd.residency.states import LoadStep, Waiting
from gemd.routing.cascade import Began, Checking, Drafted, Ended, Judged, Settled, way_of
from gemd.rpc.calls import time_remaining
from gemd.rpc.convert import canvas
from gemd.rpc.convert import generation as convert
from gemd.rpc.convert import requests as incoming
from gemd.rpc.requests import RequestState
from gemd.v1 import generation_pb2
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import generation_service_pb2_grpc as stubs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from gemd.residency.hold import Hold
    from gemd.residency.manager import Manager
    from gemd.routing.cascade.events import Event
    from gemd.rpc.calls import Context
    from gemd.rpc.library import Library
    from gemd.rpc.requests import RequestLog, Tracked
    from gemd.rpc.router import Router

SEED_BITS = 32


class GenerationService(stubs.GenerationServiceServicer):
    """Work that models do.

    Args:
        library: What models there are.
        manager: Who is warm.
        requests: Where requests are told of.
        router: Gives each request its way.
        energy: By the id between daemon and worker, the joules that a request has used, which is
            done; None if unknown.

    """

    def __init__(
        self,
        *,
        library: Library,
        manager: Manager,
        requests: RequestLog,
        router: Router,
        energy: Callable[[str], Awaitable[float | None]],
    ) -> None:
        self._energy = energy
        self._library = library
        self._manager = manager
        self._requests = requests
        self._router = router

    async def Generate(
        self,
        request: service.GenerateRequest,
        context: Context,
    ) -> AsyncGenerator[service.GenerateResponse]:
        """Answer a prompt as a stream of events."""
        with self._track("Generate", request, context) as tracked:
            asked = incoming.generate_request(request)
            job = self._router.job(
                asked,
                work_id=tracked.record.work_id,
                request_id=tracked.record.request_id,
                # Drawn here and not in a worker: all of them get the same, and Started tells it.
                seed=secrets.randbits(SEED_BITS),
                remaining_s=time_remaining(context),
                background=incoming.in_background(request.priority),
            )
            with self._naming_context(of=tracked):
                tracked.change(model=job.first_model)
                async with aclosing(self._router.run(job)) as events:
                    told = asked.model is not None
                    progress = _Progress(tracked)
                    async for event in events:
                        if not told:
                            # Only now: the worker is granted while this message is written.
                            told = True
                            yield convert.routed(way_of(job))
                        progress.note(event)
                        message = _message(event, tracked)
                        if message is not None and isinstance(event, Ended) and event.message.last:
                            joules = await self._energy(tracked.record.work_id)
                            if joules is not None:
                                message.finished.energy_joules = joules
                        if message is not None:
                            yield message

    async def Embed(self, request: service.EmbedRequest, context: Context) -> service.EmbedResponse:
        """One vector for each text."""
        with (
            self._track("Embed", request, context) as tracked,
            self._naming_context(of=tracked),
        ):
            message = incoming.embed_request(request, work_id=tracked.record.work_id)
            model = self._named_or(
                incoming.optional_model(request.model), self._router.embedding_model
            )
            tracked.change(model=model)
            async with self._hold(model, context, priority=request.priority) as hold:
                worker = await hold.worker()
                tracked.waited(queued=hold.timings.queue_s, load=hold.timings.load_s)
                tracked.start(prompt_tokens=0, cached_tokens=0)
                deadline = message.model_copy(update={"deadline_seconds": time_remaining(context)})
                answer = await worker.embed(deadline)
                tracked.read(prompt_tokens=sum(answer.tokens))
        return convert.embeddings(answer, model=model)

    async def CountTokens(
        self, request: service.CountTokensRequest, context: Context
    ) -> service.CountTokensResponse:
        """The length of a prompt in tokens."""
        message = incoming.count_request(request, work_id=secrets.token_hex(8))
        model = self._named_or(incoming.optional_model(request.model), self._router.default_model)
        async with self._hold(model, context, slots=0) as hold:
            worker = await hold.worker()
            answer = await worker.count(message)
            context_length = worker.ready.context_tokens
        return convert.counted(answer, model=model, context_length=context_length)

    async def Score(self, request: service.ScoreRequest, context: Context) -> service.ScoreResponse:
        """How likely given continuations are."""
        with (
            self._track("Score", request, context) as tracked,
            self._naming_context(of=tracked),
        ):
            message = incoming.score_request(request, work_id=tracked.record.work_id)
            model = self._named_or(
                incoming.optional_model(request.model), self._router.scoring_model
            )
            tracked.change(model=model)
            async with self._hold(model, context, priority=request.priority) as hold:
                worker = await hold.worker()
                tracked.waited(queued=hold.timings.queue_s, load=hold.timings.load_s)
                tracked.start(prompt_tokens=0, cached_tokens=0)
                deadline = message.model_copy(update={"deadline_seconds": time_remaining(context)})
                answer = await worker.score(deadline)
                tracked.read(prompt_tokens=answer.prompt_tokens, cached_tokens=answer.cached_tokens)
        return convert.scores(answer, model=model)

    async def SendFeedback(
        self, request: service.SendFeedbackRequest, context: Context
    ) -> service.SendFeedbackResponse:
        """What became of an answer."""
        feedback = incoming.feedback(request)
        return service.SendFeedbackResponse(recorded=self._router.feedback(*feedback))

    def _named_or(self, model: str | None, default: Callable[[], str]) -> str:
        return self._library.resolve(model).id if model else default()

    @contextlib.contextmanager
    def _track(
        self,
        method: str,
        request: service.GenerateRequest | service.ScoreRequest | service.EmbedRequest,
        context: Context,
    ) -> Iterator[Tracked]:
        """A request while the block runs; one whose names cannot be used fails without them."""
        request_id = client = ""
        unusable: InvalidRequestError | None = None
        try:
            request_id = incoming.request_id(request)
            client = incoming.client_name(request)
        except InvalidRequestError as error:
            unusable = error
        with self._requests.track(
            method,
            request_id=request_id,
            client=client,
            background=incoming.in_background(request.priority),
            time_remaining_s=time_remaining(context),
        ) as tracked:
            if unusable is not None:
                raise unusable
            yield tracked

    @contextlib.contextmanager
    def _naming_context(self, *, of: Tracked) -> Iterator[None]:
        """Where a prompt does not fit, say so if the context is smaller than the settings say."""
        try:
            yield
        except ContextTooLongError as error:
            whole = self._manager.residence(of.record.model).whole_context_tokens
            if whole:
                error.why = f"memory is taken, and it has a smaller context than its whole {whole}"
                error.advice = ("gemctl status", f"gemctl why {of.record.model}", *error.advice[:1])
                error.metadata["whole_context_tokens"] = str(whole)
            raise

    def _hold(
        self,
        model: str,
        context: Context,
        *,
        slots: int = 1,
        priority: generation_pb2.Priority.ValueType = generation_pb2.PRIORITY_UNSPECIFIED,
    ) -> Hold:
        remaining = time_remaining(context)
        return self._manager.hold(
            model,
            slots=slots,
            deadline=None if remaining is None else self._manager.time() + remaining,
            background=incoming.in_background(priority),
        )


def _message(  # noqa: PLR0911 - one for each kind, and mypy sees that none is missing
    event: Event, tracked: Tracked
) -> service.GenerateResponse | None:
    """What the client is told of an event; None if nothing."""
    match event:
        case wire.Delta():
            return convert.delta(event)
        case wire.Canvas():
            return canvas.canvas(event)
        case Waiting() | LoadStep():
            return convert.progress(event)
        case Began():
            return convert.started(event, request_id=tracked.record.request_id)
        case Drafted():
            return convert.drafted(event) if event.text or event.last else None
        case Settled():
            return convert.settled(event)
        case Ended():
            return convert.finished(event)
        case Checking() | Judged():
            return None


class _Progress:
    """How far a request is, for whoever asks for the daemon's status."""

    def __init__(self, tracked: Tracked) -> None:
        self._tracked = tracked
        self._counted = 0
        self._written = 0

    def note(self, event: Event) -> None:
        """Something happened to it."""
        tracked = self._tracked
        match event:
            case wire.Delta():
                self._count(len(event.tokens))
            case Drafted():
                self._count(event.tokens)
            case Waiting():
                state, position = RequestState.QUEUED, event.position
                tracked.change(model=event.model, state=state, position=position)
            case LoadStep():
                if tracked.record.state is not RequestState.LOADING:
                    tracked.change(model=event.model, state=RequestState.LOADING, position=0)
            case Began():
                tracked.start(
                    model=event.model,
                    prompt_tokens=event.message.prompt_tokens,
                    cached_tokens=event.message.cached_tokens,
                )
            case Checking():
                tracked.change(model=event.model, state=RequestState.RUNNING, position=0)
            case Ended():
                self._end(event)

    def _count(self, tokens: int) -> None:
        self._counted += tokens
        self._tracked.count(tokens)

    def _end(self, event: Ended) -> None:
        times = event.times
        self._tracked.waited(queued=times.queued, load=times.load, first_text=times.first_text)
        self._written += event.message.completion_tokens
        if event.message.last:
            # A draft that is kept was counted twice, and one that is gone on from is no Delta.
            self._count(self._written - self._counted)
