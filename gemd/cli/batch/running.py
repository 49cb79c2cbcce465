"""Asking the daemon for the answers of jobs, some at a time, and again where that may help."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemd.cli.documents import document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from gemd.cli.batch.jobs import Job
    from gemd.client import Answer, AsyncClient, GemdClientError

_TRIES = 3
"""How often a job runs whose worker crashes, and likewise one that somebody ends."""
SILENCE_SECONDS = 60.0
"""How long the daemon may be away before the batch ends."""
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 10.0
_AWAY = frozenset({"DAEMON_UNREACHABLE", "SHUTTING_DOWN"})
_AGAIN = frozenset({"ENGINE_CRASHED", "CANCELLED"})
_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One that has failed.

    Attributes:
        number: From 1, of those of this job that failed for the same reason.
        away_s: Seconds since the daemon first did not answer, and has not since.

    """

    number: int
    away_s: float


class BatchStoppedError(Exception):
    """All further jobs would fail as this one did.

    Args:
        error: What it failed with.

    """

    def __init__(self, error: GemdClientError) -> None:
        super().__init__(str(error))
        self.error = error


def delay_after(error: GemdClientError, attempt: Attempt) -> float | None:
    """Seconds after which a job is tried again; None if its error is its result.

    A daemon that is full says itself when to come back, however often; one that is away is
    waited for, and a crash or a cancel is tried again a few times.

    Raises:
        BatchStoppedError: The daemon stays away, or there is nothing that could answer.

    """
    backoff = min(_FIRST_DELAY_SECONDS * 2.0 ** (attempt.number - 1), _LONGEST_DELAY_SECONDS)
    if error.reason in _AWAY:
        if attempt.away_s >= SILENCE_SECONDS:
            raise BatchStoppedError(error)
        return backoff
    if error.reason == "MODEL_NOT_FOUND":
        raise BatchStoppedError(error)
    if error.retry_after is not None or error.reason == "QUEUE_FULL":
        return max(error.retry_after or 0.0, backoff)
    return backoff if error.reason in _AGAIN and attempt.number < _TRIES else None


class Runner:
    """Runs jobs and hands over their results as they come.

    Args:
        jobs: All of the batch.
        add: Takes the index of a job and its result.
        away: Called whenever the daemon has just stopped answering.
        clock: Monotonic seconds.

    """

    def __init__(
        self,
        jobs: Sequence[Job],
        add: Callable[[int, dict[str, Any]], None],
        *,
        away: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs = jobs
        self._add = add
        self._tell_away = away
        self._clock = clock
        self._away_since: float | None = None

    async def run(
        self, address: Path, groups: Sequence[Sequence[int]], *, parallel: int, name: str
    ) -> None:
        """Run groups of jobs one after another, and so many jobs of a group at once.

        Args:
            address: Socket of the daemon.
            groups: Indices of jobs.
            parallel: The most that run at once.
            name: What to call ourselves.

        Raises:
            BatchStoppedError: See `delay_after`.

        """
        from gemd.client import AsyncClient, RetryPolicy

        # One policy is enough: that of `delay_after`.
        async with AsyncClient(address, name=name, retry=RetryPolicy(attempts=1)) as client:
            for group in groups:
                waiting = iter(group)
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(min(parallel, len(group))):
                        tasks.create_task(self._work(client, waiting))

    async def _work(self, client: AsyncClient, waiting: Iterator[int]) -> None:
        for index in waiting:
            self._add(index, await self._result(client, self._jobs[index]))

    async def _result(self, client: AsyncClient, job: Job) -> dict[str, Any]:
        from gemd.client import GemdClientError

        failures: Counter[str] = Counter()
        while True:
            try:
                async with client.chat(*request(job)) as generation:
                    async for _ in generation:
                        self._away_since = None
                return success(job, await generation.answers())
            except GemdClientError as error:
                failures[error.reason] += 1
                attempt = Attempt(failures[error.reason], self._away(error))
                delay = delay_after(error, attempt)
                if delay is None:
                    return failure(job, error)
                await asyncio.sleep(delay)

    def _away(self, error: GemdClientError) -> float:
        """Seconds that the daemon has been away, now that this error has come."""
        if error.reason not in _AWAY:
            self._away_since = None
            return 0.0
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
            self._tell_away()
        return now - self._away_since


def request(job: Job) -> tuple[Any, Any]:
    """The conversation of a job, and the options of its answer."""
    from gemd.cli.session import model_name
    from gemd.client import GenerationOptions, Message, Sampling

    content = job.content
    if "messages" in content:
        conversation = [Message(one["role"], one["content"]) for one in content["messages"]]
    else:
        system = [Message("system", content["system"])] if "system" in content else []
        conversation = [*system, Message("user", content["prompt"])]
    sampling = {name: content[name] for name in _SAMPLING if name in content}
    options = GenerationOptions(
        model=model_name(content["model"]) if "model" in content else None,
        tier=content.get("tier"),
        mode=content.get("mode"),
        thinking=content.get("thinking"),
        candidates=content.get("candidates", 0),
        best_of=content.get("best_of", 0),
        sampling=Sampling(**sampling),
        background=True,
    )
    return conversation, options


def success(job: Job, answers: Sequence[Answer]) -> dict[str, Any]:
    """The line of a job that was answered."""
    first = answers[0]
    result: dict[str, Any] = {"id": job.id, "job": job.key, **_told(first)}
    if first.started is not None:
        result["request_id"] = first.started.request_id
    if job.content.get("candidates"):
        result["candidates"] = [_told(one) for one in answers]
    return result


def _told(answer: Answer) -> dict[str, Any]:
    finished = document(answer.finished.raw)
    told: dict[str, Any] = {"text": answer.text}
    if answer.reasoning_text:
        told["reasoning_text"] = answer.reasoning_text
    shown = ("finish_reason", "usage", "timings", "route")
    told |= {name: finished[name] for name in shown if name in finished}
    if answer.finished.rank:
        told |= {name: finished[name] for name in ("rank", "score") if name in finished}
    return told


def failure(job: Job, error: GemdClientError) -> dict[str, Any]:
    """The line of a job that ended in an error, which is told as in `gemd.v1.ErrorDetail`."""
    told = {
        "reason": error.reason,
        "message": error.message,
        "why": error.why,
        "advice": list(error.advice),
        "metadata": error.metadata,
    }
    return {"id": job.id, "job": job.key, "error": told}
