"""One model's part in a request: the claim on its worker, the call, and the time it takes."""

from __future__ import annotations

from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gemd import wire
from gemd.routing.cascade.events import Began, Checking, Times

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from gemd.residency.hold import Hold
    from gemd.residency.states import LoadStep, Waiting
    from gemd.routing.cascade.job import Job, Tools
    from gemd.routing.request import Tier


@dataclass(slots=True)
class Spent:
    """What a request has cost so far, over all models that worked on it.

    Attributes:
        arrived: When it came, in seconds of the manager's clock.
        queued: Seconds of waiting.
        load: Seconds of loading.
        prefill: Seconds of reading prompts.
        decode: Seconds of writing.
        completion_tokens: Written by all models together.
        reasoning_tokens: Of them.
        first_text: Seconds from the arrival to a candidate's first text.

    """

    arrived: float
    queued: float = 0.0
    load: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    first_text: dict[int, float] = field(default_factory=dict)

    def saw_text(self, candidate: int, clock: Callable[[], float]) -> None:
        """Text of a candidate goes to the client."""
        if candidate not in self.first_text:
            self.first_text[candidate] = clock() - self.arrived

    def add(self, message: wire.Finished) -> None:
        """A model has written."""
        self.queued += message.queue_seconds
        self.prefill += message.prefill_seconds
        self.decode += message.decode_seconds
        self.completion_tokens += message.completion_tokens
        self.reasoning_tokens += message.reasoning_tokens

    def times(self, candidate: int, now: float) -> Times:
        """The times of a candidate that ends now."""
        return Times(
            queued=self.queued,
            load=self.load,
            first_text=self.first_text.get(candidate),
            prefill=self.prefill,
            decode=self.decode,
            total=now - self.arrived,
        )


class Part:
    """One model at work on a request.

    Args:
        job: The request.
        tools: Where its worker comes from.
        model: Whose part it is.
        spent: The request's account.
        work_id: Its own id among the requests of the worker.

    """

    def __init__(
        self, job: Job, tools: Tools, model: str, spent: Spent, *, work_id: str = ""
    ) -> None:
        self._job = job
        self._tools = tools
        self.model = model
        self._spent = spent
        self._work_id = work_id or job.work_id

    @property
    def tier(self) -> Tier:
        """Of its model; that of the chosen one is what the route says."""
        choice = self._job.choice
        return choice.tier if self.model == choice.model else self._tools.tier(self.model)

    async def write(
        self, prompt: wire.Prompt, **fields: Any
    ) -> AsyncGenerator[Waiting | LoadStep | Began | wire.Delta | wire.Canvas | wire.Finished]:
        """Have it answer; close the stream to cancel.

        Args:
            prompt: What to answer.
            fields: Further ones of `wire.Generate`; `sampling` takes the place of the request's.

        Raises:
            GemdError: As `Manager.hold` and `Worker.generate`.

        """
        tools, job = self._tools, self._job
        async with job.hold(tools.manager, self.model) as hold:
            if not hold.granted:
                async with aclosing(hold.updates()) as updates:
                    async for update in updates:
                        yield update
            worker = await hold.worker()
            self._account(hold)
            values: dict[str, Any] = {
                "sampling": job.sampling(tools.sampling_defaults(self.model)),
                **fields,
            }
            request = wire.Generate(
                request_id=self._work_id,
                prompt=prompt,
                deadline_seconds=job.remaining(tools.manager.time()),
                **values,
            )
            writing = tools.streams.begin(self.model, request.candidates)

            def complete() -> None:
                # A client that reads slowly, or never, keeps its text and not the sequence.
                writing.close()
                hold.release()

            answer = worker.generate(request, on_complete=complete)
            with closing(writing):
                async with aclosing(answer) as messages:
                    async for message in messages:
                        if isinstance(message, wire.Started):
                            yield Began(
                                message,
                                model=self.model,
                                tier=self.tier,
                                context_tokens=worker.ready.context_tokens,
                                seed=request.sampling.seed or 0,
                            )
                            continue
                        if isinstance(message, wire.Finished):
                            tools.speeds.observe(self.model, message, streams=writing.most)
                        yield message

    async def score(
        self, prompt: wire.Prompt, continuations: Sequence[str]
    ) -> AsyncGenerator[Waiting | LoadStep | Checking | wire.Scores]:
        """Have it tell how likely texts are; the scores come last.

        Raises:
            GemdError: As `Manager.hold` and `Worker.score`.

        """
        tools, job = self._tools, self._job
        async with job.hold(tools.manager, self.model) as hold:
            async with aclosing(hold.updates()) as updates:
                async for update in updates:
                    yield update
            worker = await hold.worker()
            self._account(hold)
            yield Checking(self.model)
            before = tools.manager.time()
            scores = await worker.score(
                wire.Score(
                    request_id=self._work_id,
                    prompt=prompt,
                    continuations=tuple(continuations),
                    deadline_seconds=job.remaining(before),
                )
            )
            took = tools.manager.time() - before
            self._spent.prefill += took
            read = scores.prompt_tokens - scores.cached_tokens
            written = sum(len(each.tokens) for each in scores.continuations)
            tools.speeds.observe_reading(self.model, tokens=read + written, seconds=took)
            yield scores

    def _account(self, hold: Hold) -> None:
        timings = hold.timings
        self._spent.queued += timings.queue_s
        self._spent.load += timings.load_s
        if not timings.load_s:
            return
        # This request may have come when the load was half done.
        whole = self._tools.manager.residence(self.model).last_load_s
        if whole is not None:
            self._tools.speeds.observe_load(self.model, whole)
