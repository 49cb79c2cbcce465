"""GenerationService: route, hold a warm worker, stream what it says."""

from __future__ import annotations

import contextlib
import secrets
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from gemd import wire
from gemd.errors import ContextTooLongError, NotImplementedYetError
from gemd.residency.states import Waiting
from gemd.routing.route import route
from gemd.rpc.calls import time_remaining
from gemd.rpc.convert import canvas
from gemd.rpc.convert import generation as convert
from gemd.rpc.convert import requests as incoming
from gemd.rpc.requests import RequestState
from gemd.v1 import generation_pb2
from gemd.v1 import generation_service_pb2 as service
from gemd.v1 import generation_service_pb2_grpc as stubs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from gemd.residency.hold import Hold
    from gemd.residency.manager import Manager
    from gemd.residency.states import LoadStep
    from gemd.routing.request import Request
    from gemd.routing.route import Default, Route
    from gemd.rpc.calls import Context
    from gemd.rpc.library import Library
    from gemd.rpc.requests import RequestLog, Tracked

SEED_BITS = 32


class GenerationService(stubs.GenerationServiceServicer):
    """Work that models do.

    Args:
        library: What models there are.
        manager: Who is warm.
        requests: Where requests are told of.
        default: Who answers a request without a wish.

    """

    def __init__(
        self,
        *,
        library: Library,
        manager: Manager,
        requests: RequestLog,
        default: Callable[[], Default],
    ) -> None:
        self._library = library
        self._manager = manager
        self._requests = requests
        self._default = default

    async def Generate(
        self,
        request: service.GenerateRequest,
        context: Context,
    ) -> AsyncGenerator[service.GenerateResponse]:
        """Answer a prompt as a stream of events."""
        arrived = time.perf_counter()
        asked = incoming.generate_request(request)
        way = self._route(asked)
        with (
            self._track("Generate", request, context, model=way.model) as tracked,
            self._naming_context(of=tracked),
        ):
            async with self._hold(way.model, context, priority=request.priority) as hold:
                # Told only now: the worker is granted while this message is written.
                if way.reason != "MODEL_NAMED":
                    yield convert.routed(way)
                async with aclosing(hold.updates()) as updates:
                    async for update in updates:
                        _note(tracked, update)
                        yield convert.progress(update)
                worker = await hold.worker()
                message = self._wire_request(asked, way, tracked, context)
                first_token_s: dict[int, float] = {}
                # A client that reads slowly, or never, keeps its text and not the sequence.
                answer = worker.generate(message, on_complete=hold.release)
                async with aclosing(answer) as events:
                    async for event in events:
                        if isinstance(event, wire.Delta):
                            if event.candidate not in first_token_s:
                                first_token_s[event.candidate] = time.perf_counter() - arrived
                            tracked.count(len(event.tokens))
                            yield convert.delta(event)
                        elif isinstance(event, wire.Canvas):
                            yield canvas.canvas(event)
                        elif isinstance(event, wire.Started):
                            tracked.start(
                                prompt_tokens=event.prompt_tokens,
                                cached_tokens=event.cached_tokens,
                            )
                            yield convert.started(
                                event,
                                request_id=tracked.record.request_id,
                                way=way,
                                context_length=worker.ready.context_tokens,
                                seed=message.sampling.seed or 0,
                            )
                        else:
                            yield convert.finished(
                                event,
                                way=way,
                                queued_s=hold.timings.queue_s,
                                load_s=hold.timings.load_s,
                                first_token_s=first_token_s.get(event.candidate),
                                total_s=time.perf_counter() - arrived,
                            )

    async def Embed(self, request: service.EmbedRequest, context: Context) -> service.EmbedResponse:
        """One vector for each text."""
        with (
            self._track("Embed", request, context) as tracked,
            self._naming_context(of=tracked),
        ):
            message = incoming.embed_request(request, work_id=tracked.record.work_id)
            model = self._named_or_default(incoming.optional_model(request.model))
            tracked.change(model=model)
            async with self._hold(model, context, priority=request.priority) as hold:
                worker = await hold.worker()
                tracked.start(prompt_tokens=0, cached_tokens=0)
                deadline = message.model_copy(update={"deadline_seconds": time_remaining(context)})
                answer = await worker.embed(deadline)
        return convert.embeddings(answer, model=model)

    async def CountTokens(
        self, request: service.CountTokensRequest, context: Context
    ) -> service.CountTokensResponse:
        """The length of a prompt in tokens."""
        message = incoming.count_request(request, work_id=secrets.token_hex(8))
        model = self._named_or_default(incoming.optional_model(request.model))
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
            model = self._named_or_default(incoming.optional_model(request.model))
            tracked.change(model=model)
            async with self._hold(model, context, priority=request.priority) as hold:
                worker = await hold.worker()
                tracked.start(prompt_tokens=0, cached_tokens=0)
                deadline = message.model_copy(update={"deadline_seconds": time_remaining(context)})
                answer = await worker.score(deadline)
        return convert.scores(answer, model=model)

    async def SendFeedback(
        self, request: service.SendFeedbackRequest, context: Context
    ) -> service.SendFeedbackResponse:
        """Not part of this version."""
        raise NotImplementedYetError(
            "SendFeedback is not part of this version",
            why="nothing learns from feedback before there are two tiers",
            metadata={"method": "SendFeedback"},
        )

    def _route(self, asked: Request) -> Route:
        return route(
            asked,
            resolve=self._library.resolve,
            default=self._default,
            fast=self._library.fast_on_disk,
        )

    def _named_or_default(self, model: str | None) -> str:
        return self._library.resolve(model).id if model else self._default().candidate.id

    def _track(
        self,
        method: str,
        request: service.GenerateRequest | service.ScoreRequest | service.EmbedRequest,
        context: Context,
        *,
        model: str = "",
    ) -> Any:
        return self._requests.track(
            method,
            model=model,
            request_id=incoming.request_id(request),
            client=incoming.client_name(request),
            background=incoming.in_background(request.priority),
            time_remaining_s=time_remaining(context),
        )

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

    def _wire_request(
        self,
        asked: Request,
        way: Route,
        tracked: Tracked,
        context: Context,
    ) -> wire.Generate:
        values = dict(self._library.sampling_defaults(way.model))
        values.update(asked.sampling)
        # Drawn here and not in the worker, so that Started can tell it.
        values.setdefault("seed", secrets.randbits(SEED_BITS))
        return wire.Generate(
            request_id=tracked.record.work_id,
            prompt=asked.prompt,
            sampling=wire.Sampling(**values),
            deadline_seconds=time_remaining(context),
            thinking=asked.thinking,
            candidates=asked.candidates,
            spans=asked.spans,
            watch_canvas=asked.watch_canvas,
        )


def _note(tracked: Tracked, update: Waiting | LoadStep) -> None:
    if isinstance(update, Waiting):
        tracked.change(state=RequestState.QUEUED, position=update.position)
    elif tracked.record.state is not RequestState.LOADING:
        tracked.change(state=RequestState.LOADING, position=0)
