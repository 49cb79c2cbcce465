"""What one request wants evaluated, and what it does with the result.

A task owns a list of tokens that is to stand in its sequence of the KV cache. The
engine evaluates what is missing there, chunk by chunk, and hands the task the logits it
wanted. Answering grows the list by a token each time; scoring and embedding replace it.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gemd import wire
from gemd.errors import CancelledError, ContextTooLongError, DeadlineExpiredError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from gemd.errors import GemdError
    from gemd.worker.llama.binding import Context

    Emit = Callable[
        [
            wire.Started
            | wire.Delta
            | wire.Finished
            | wire.RequestFailed
            | wire.Scores
            | wire.Embeddings
        ],
        None,
    ]


class Output(NamedTuple):
    """What the model said at one wanted position.

    Attributes:
        position: In the sequence.
        batch_index: Of the token in the batch.
        logits: Shape (vocabulary,), a view that the next decode overwrites.

    """

    position: int
    batch_index: int
    logits: NDArray[np.float32]


class Moment(NamedTuple):
    """What a task sees of the engine at a step boundary.

    Attributes:
        context: Holds the sequences; samplers read its logits.
        emit: Sends a message to the daemon.
        now: Clock reading in seconds.
        send: Whether it is time to send what running answers have collected.

    """

    context: Context
    emit: Emit
    now: float
    send: bool = True


@dataclass
class Times:
    """Clock readings of one request, in seconds."""

    arrived: float
    started: float | None = None
    first: float | None = None


class Task(abc.ABC):
    """One request that runs, or waits for a sequence."""

    def __init__(self, request_id: str, *, deadline: float | None, arrived: float) -> None:
        self.request_id = request_id
        self.deadline = deadline
        self.times = Times(arrived)
        self.tokens: list[int] = []
        self.prompt_tokens = 0
        self.prefix_tokens = 0
        self.cached_tokens = 0

    streaming = False
    """Whether the next decode only takes one token of a running answer."""

    guess: Sequence[int] = ()
    """What may follow `tokens`. Some of it is evaluated behind the last of them where there is
    room, each with its output; `take` says how much was right."""

    needs_embeddings = False

    @property
    def given_tokens(self) -> int:
        """How many of `tokens` came with the request: its prompt, and the answer's beginning."""
        return self.prompt_tokens + self.prefix_tokens

    @property
    def prefix(self) -> list[int]:
        """Tokens that a cached sequence may stand in for, but for the last of them."""
        return self.tokens

    @property
    def goal(self) -> int:
        """How many of `tokens` have to be evaluated now."""
        return len(self.tokens)

    @abc.abstractmethod
    def wanted(self, start: int, stop: int) -> range:
        """Positions within start..stop-1 whose output it needs."""

    @abc.abstractmethod
    def take(self, outputs: Sequence[Output], moment: Moment) -> bool:
        """Use the outputs of one decode, in order of position.

        Returns:
            Whether the request has ended.

        """

    def begin(self, cached: int, moment: Moment) -> None:
        """It has a sequence whose first `cached` tokens are in place."""
        if self.times.started is None:
            self.times.started = moment.now
            self.cached_tokens = cached

    def rewind(self) -> int | None:
        """Where to cut its sequence before going on; None to leave it."""
        return None

    def set_aside(self, moment: Moment) -> None:  # noqa: B027 - most tasks say nothing before the end
        """It has to give up its sequence, and goes on when it gets another one."""

    def fail(self, error: GemdError, moment: Moment) -> None:
        """End with an error."""
        moment.emit(wire.RequestFailed.of(self.request_id, error))

    def cancel(self, moment: Moment) -> None:
        """End because the client wants no more."""
        self.fail(CancelledError("the request was cancelled"), moment)

    def expire(self, moment: Moment) -> None:
        """End because its deadline has passed."""
        waited = moment.now - self.times.arrived
        self.fail(
            DeadlineExpiredError(
                f"the deadline passed after {waited:.1f} s",
                why=f"{len(self.tokens) - self.given_tokens} tokens of the answer were decoded",
                metadata={"seconds": f"{waited:.3f}", "prompt_tokens": self.prompt_tokens},
            ),
            moment,
        )

    def context_full(self, moment: Moment) -> None:
        """End because the cache has no cell left for it, although it runs alone."""
        self.fail(
            ContextTooLongError(
                f"{len(self.tokens)} tokens do not fit in the model's cache",
                why="it refused them although nothing else was in it",
                advice=("GEMD_CONTEXT_TOKENS=8192 gemd",),
                metadata={"tokens": len(self.tokens)},
            ),
            moment,
        )

    def close(self) -> None:  # noqa: B027 - most tasks hold nothing
        """Free what it holds outside Python."""
