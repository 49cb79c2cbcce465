"""How fast a model answers: prompts that no cache knows, runs at once, medians."""

from __future__ import annotations

import random
import statistics
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gemd.client import Client, Finished

_WORDS = (  # noqa: SIM905 - a list of words is read more easily so
    "river stone market window garden letter winter bridge music paper morning harbour island "
    "kitchen forest engine pocket silver yellow mountain story village corner summer journey "
    "butter lantern candle ocean feather"
).split()
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Run:
    """One answer.

    Attributes:
        prompt_tokens: That were read, none of them from a cache.
        tokens: That were written.
        prefill_s: Reading them; None if the engine does not say.
        decode_s: Writing them.
        first_token_s: From the request to the first token.
        joules: What it took; None if the machine does not say.

    """

    prompt_tokens: int
    tokens: int
    prefill_s: float | None
    decode_s: float | None
    first_token_s: float | None
    joules: float | None


@dataclass(frozen=True, slots=True)
class Round:
    """Answers that were asked for at the same time, and how long all of them took together."""

    runs: tuple[Run, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over rounds with so many streams; None for what no round has.

    Attributes:
        streams: Answers at the same time.
        prompt_tokens: Of one of them.
        tokens: Written by one of them.
        prompt_speed: Tokens a second while a prompt was read.
        speed: Tokens a second of one stream while it was written.
        total_speed: Tokens a second of all streams, from the first request to the last token.
        first_token_s: From a request to its first token.
        tokens_per_joule: Written tokens.

    """

    streams: int
    prompt_tokens: int
    tokens: int
    prompt_speed: float | None
    speed: float | None
    total_speed: float
    first_token_s: float | None
    tokens_per_joule: float | None


def prompt_of(tokens: int, seed: int, count: Callable[[str], int]) -> str:
    """A prompt of about so many tokens whose very beginning no other seed has.

    Args:
        tokens: How long; a template may take more than that by itself.
        seed: Which one.
        count: Tells how many tokens a prompt has.

    """
    # The slope between two lengths: a template takes tokens too, which no number of words explains.
    words, per_word, before = tokens, 1.0, (0, 0)
    text = ""
    for _ in range(_TRIES):
        text = _words(words, seed)
        counted = count(text)
        if abs(counted - tokens) <= max(1, tokens // 50):
            break
        per_word = (counted - before[1]) / (words - before[0]) or per_word
        before = (words, counted)
        words = max(1, words - round((counted - tokens) / per_word))
        if words == before[0]:
            break
    return text


def _words(count: int, seed: int) -> str:
    draw = random.Random(seed)  # noqa: S311 - no secret, and the same every time
    return " ".join([f"{seed}:", *draw.choices(_WORDS, k=count)])


def run_of(finished: Finished) -> Run:
    """What one answer took."""
    timings, usage = finished.timings, finished.usage
    return Run(
        prompt_tokens=usage.prompt_tokens - usage.cached_tokens,
        tokens=usage.completion_tokens,
        prefill_s=timings.prefill,
        decode_s=timings.decode,
        first_token_s=timings.first_token,
        joules=finished.energy_joules,
    )


def at_once(
    client: Client,
    model: str,
    prompts: Sequence[str],
    *,
    tokens: int,
    chats: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Round:
    """Ask all of them at the same time, each for so many tokens, and wait for all.

    Args:
        client: Of the daemon.
        model: Who answers.
        prompts: One for each answer.
        tokens: Of each answer.
        chats: Whether the model takes conversations; a base model continues a text.
        clock: Seconds.

    Raises:
        GemdClientError: What the first of those that failed has failed with.

    """
    from gemd.client import GenerationOptions, Sampling

    sampling = Sampling(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    options = GenerationOptions(model=model, sampling=sampling)
    ends: list[Finished | Exception] = []

    def ask(prompt: str) -> None:
        try:
            asked = client.chat(prompt, options) if chats else client.generate(prompt, options)
            ends.append(asked.answer().finished)
        except Exception as error:  # noqa: BLE001 - it is raised again by whom it was asked for
            ends.append(error)

    threads = [threading.Thread(target=ask, args=(each,), daemon=True) for each in prompts]
    began = clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = clock() - began
    for end in ends:
        if isinstance(end, Exception):
            raise end
    return Round(tuple(run_of(end) for end in ends if not isinstance(end, Exception)), seconds)


def figures(rounds: Sequence[Round]) -> Figures:
    """The medians of rounds with the same number of streams; there is at least one."""
    runs = [run for each in rounds for run in each.runs]
    return Figures(
        streams=len(rounds[0].runs),
        prompt_tokens=round(statistics.median(run.prompt_tokens for run in runs)),
        tokens=round(statistics.median(run.tokens for run in runs)),
        prompt_speed=_median(_rate(run.prompt_tokens, run.prefill_s) for run in runs),
        speed=_median(_rate(run.tokens, run.decode_s) for run in runs),
        total_speed=statistics.median(
            sum(run.tokens for run in each.runs) / each.seconds for each in rounds
        ),
        first_token_s=_median(run.first_token_s for run in runs),
        tokens_per_joule=_median(_rate(run.tokens, run.joules) for run in runs),
    )


def _rate(amount: int, per: float | None) -> float | None:
    return amount / per if per else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
