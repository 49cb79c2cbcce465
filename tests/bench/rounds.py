"""Interleaved rounds, and what is read off them.

Noise of a shared machine comes in spells of seconds. So every contender has a turn in every
round, in another order each time, and medians over the rounds are compared.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from tests.bench import others

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

PAUSE_SECONDS = 0.25
"""Between turns: the spinning threads of the one before go to sleep."""

RETRIES = 200
"""Turns that a measurement takes again because other programs used the machine."""

_FEWEST_MESSAGES = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Stamp:
    """Tokens that arrived together."""

    at: float
    """Seconds on the machine's monotonic clock, the same in every process."""
    tokens: int


@dataclass(frozen=True)
class Turn:
    """One contender's part of one round: answers to several prompts given at once."""

    submitted: float
    streams: tuple[tuple[Stamp, ...], ...]


class Contender(Protocol):
    """Something that answers prompts."""

    name: str

    async def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> Turn:
        """Continue all prompts at once, each by `tokens` greedy tokens."""
        ...


@dataclass(frozen=True)
class Samples:
    """Figures of one quantity, one per round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)


def ratio(numerator: Samples, denominator: Samples) -> Samples:
    """One ratio per round, of two contenders that both had a turn in it."""
    pairs = zip(numerator.values, denominator.values, strict=True)
    return Samples(tuple(one / other for one, other in pairs))


@dataclass
class Interleaved(Generic[T]):
    """What came of all turns.

    Attributes:
        results: Per action, one result for each round that counts.
        repeated: Turns that were taken again because other programs used the machine.
        disturbed: Turns that count although they did, because there were no more retries.

    """

    results: dict[str, list[T]]
    repeated: int = 0
    disturbed: int = 0

    def remark(self) -> str:
        """The last two figures as a sentence for the table's head."""
        return (
            f"{self.repeated} disturbed turns were taken again, "
            f"{self.disturbed} count although they were disturbed."
        )


class UnusableTurnError(Exception):
    """A contender did not do what it was asked to, so that its time means nothing."""


def decode_rate(turn: Turn) -> float:
    """Tokens per second of all streams together, while all of them were being decoded.

    That time begins when the last stream has its first token, so no prompt is read in it, and
    ends when the first one has its last. Each stream is measured from its first to its last
    message within it: tokens that leave together arrive one stream after the other, and several
    may come with one message, so cutting all streams at one moment would take from some of them
    a step's tokens and leave its time.

    Raises:
        UnusableTurnError: There was no such time.

    """
    begun = max(stream[0].at for stream in turn.streams)
    ended = min(stream[-1].at for stream in turn.streams)
    return sum(_rate_between(stream, begun, ended) for stream in turn.streams)


def _rate_between(stream: Sequence[Stamp], begun: float, ended: float) -> float:
    inside = [stamp for stamp in stream if begun <= stamp.at <= ended]
    if len(inside) < _FEWEST_MESSAGES:
        raise UnusableTurnError("the streams were not decoded together")
    # The first message holds what was decoded before it.
    return sum(stamp.tokens for stamp in inside[1:]) / (inside[-1].at - inside[0].at)


def whole_rate(turn: Turn) -> float:
    """Tokens per second from handing in the prompts to the last token, reading included."""
    tokens = sum(stamp.tokens for stream in turn.streams for stamp in stream)
    return tokens / (max(stream[-1].at for stream in turn.streams) - turn.submitted)


def check(turn: Turn, *, streams: int, tokens: int) -> None:
    """Refuse a turn in which somebody did less, or more.

    Raises:
        UnusableTurnError: The counts differ.

    """
    counts = [sum(stamp.tokens for stamp in stream) for stream in turn.streams]
    if counts != [tokens] * streams:
        raise UnusableTurnError(f"{streams} streams of {tokens} tokens wanted, not {counts}")


def order(names: Sequence[T], round_number: int) -> list[T]:
    """The turns of a round: shuffled, so that nobody always follows the same one; repeatable."""
    return random.Random(round_number).sample(names, len(names))


async def interleave(
    actions: Mapping[str, Callable[[int], Awaitable[T]]], *, rounds: int, pause: float
) -> Interleaved[T]:
    """Give every action a turn in every round; an additional first round is thrown away.

    A turn in which other programs used the machine says nothing about the contender. It is
    taken again, up to `RETRIES` times in all; after that it counts as it is.

    Args:
        actions: By name; called with a number that is the round's, from 0 (the one that is
            thrown away), or beyond all rounds for a turn that is taken again.
        rounds: How many count.
        pause: Seconds before each turn.

    """
    done: Interleaved[T] = Interleaved({name: [] for name in actions})
    for number in range(rounds + 1):
        # A run takes minutes, and more on a machine that is not quiet.
        sys.stderr.write(f"\r  round {number} of {rounds} " + "\n" * (number == rounds))
        sys.stderr.flush()
        for name in order(list(actions), number):
            result = await _undisturbed(actions[name], number, rounds, pause, done)
            if number:
                done.results[name].append(result)
    return done


async def _undisturbed(
    action: Callable[[int], Awaitable[T]],
    number: int,
    rounds: int,
    pause: float,
    done: Interleaved[T],
) -> T:
    cores = os.cpu_count() or 1
    while True:
        before = others.look()
        # After the look, whose walk through /proc leaves cold caches behind.
        await asyncio.sleep(pause)
        result = await action(number)
        if not others.disturbed(before, others.look(), cores=cores):
            return result
        if done.repeated >= RETRIES:
            done.disturbed += 1
            return result
        done.repeated += 1
        # Another prompt: a cache knows the one that was just read.
        number = rounds + done.repeated
