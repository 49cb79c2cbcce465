"""How fast tokens come: one stream, and eight at once, side by side with everybody else."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.client import AsyncClient
from tests.bench import rounds
from tests.bench.contenders import (
    DaemonContender,
    Peer,
    PeerContender,
    PeerMissingError,
    WorkerContender,
    peer_of,
    worker_of,
)
from tests.bench.daemon import daemon_of
from tests.bench.report import Check, Section, missing, spread
from tests.bench.setting import Setting, counting, numbers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PROMPT_TOKENS = 32
ONE_STREAM_TOKENS = 128
EIGHT_STREAM_TOKENS = 48

HEAD = ("contender", "tokens/s decoding", "min – max", "tokens/s with the prompts", "worker is")

BARE = "bare loop"
HIGH_LEVEL = "llama-cpp-python's Llama"
XLLAMACPP = "xllamacpp's server"
LLAMA_SERVER = "llama-server, built here"
WORKER = "gemd worker"


@dataclass(frozen=True)
class _Field:
    """Who takes part, and who cannot."""

    contenders: list[rounds.Contender]
    missing: dict[str, str]
    bare: Peer
    versions: list[str]


async def one_stream(setting: Setting) -> Section:
    """The worker against a bare loop and against the high-level class."""
    section = Section(
        title="One stream",
        how=f"{ONE_STREAM_TOKENS} greedy tokens after a prompt of {PROMPT_TOKENS}; the rate "
        "counts from the first token to the last, the next column from the request.",
        head=HEAD,
    )
    variants = {BARE: ("argmax", "sampler"), HIGH_LEVEL: ("",), XLLAMACPP: ("split",)}
    figures = await _measure(setting, section, variants, streams=1, tokens=ONE_STREAM_TOKENS)
    _compare(section, figures, BARE, 0.97)
    _compare(section, figures, HIGH_LEVEL, 0.97)
    return section


async def eight_streams(setting: Setting) -> Section:
    """The worker against a bare batched loop and against native servers."""
    streams = setting.parallel
    section = Section(
        title=f"{streams} streams at once",
        how=f"{EIGHT_STREAM_TOKENS} greedy tokens in each of {streams} streams after prompts of "
        f"{PROMPT_TOKENS} that share no beginning; the rate is of all streams together, each "
        "between its first and its last message while all of them are decoded. A split cache gives "
        f"each of {streams} sequences that part of the cells and no request more; a unified one, "
        "which gemd has, gives them to whoever needs them.",
        head=HEAD,
    )
    variants = {
        BARE: ("argmax unified", "argmax split", "sampler unified"),
        XLLAMACPP: ("split", "unified"),
    }
    figures = await _measure(
        setting, section, variants, streams=streams, tokens=EIGHT_STREAM_TOKENS
    )
    _compare(section, figures, BARE, 0.95)
    _compare(section, figures, XLLAMACPP, 1.0)
    return section


async def _measure(
    setting: Setting,
    section: Section,
    variants: dict[str, tuple[str, ...]],
    *,
    streams: int,
    tokens: int,
) -> dict[str, rounds.Samples]:
    """Fill the section's rows; the decode rates by contender."""
    async with contextlib.AsyncExitStack() as stack:
        field = await _field(setting, stack, variants)
        prompts = await _prompts(field.bare, streams * (setting.rounds + 1 + rounds.RETRIES))

        def turn_of(
            contender: rounds.Contender,
        ) -> Callable[[int], Awaitable[rounds.Turn]]:
            async def turn(number: int) -> rounds.Turn:
                mine = prompts[number * streams : (number + 1) * streams]
                done = await contender.run(mine, tokens)
                rounds.check(done, streams=streams, tokens=tokens)
                return done

            return turn

        turns = await rounds.interleave(
            {contender.name: turn_of(contender) for contender in field.contenders},
            rounds=setting.rounds,
            pause=rounds.PAUSE_SECONDS,
        )
    rates = {name: _samples(rounds.decode_rate, done) for name, done in turns.results.items()}
    wholes = {name: _samples(rounds.whole_rate, done) for name, done in turns.results.items()}
    for name, rate in rates.items():
        ratio = "" if name == WORKER else f"{rounds.ratio(rates[WORKER], rate).median:.3f}"
        section.rows.append((name, *spread(rate), spread(wholes[name])[0], ratio))
    section.rows += [missing(name, why, len(HEAD)) for name, why in field.missing.items()]
    section.how += f" {setting.rounds} rounds; {turns.remark()} Peers: {', '.join(field.versions)}."
    return rates


def _samples(figure: Callable[[rounds.Turn], float], turns: list[rounds.Turn]) -> rounds.Samples:
    return rounds.Samples(tuple(figure(turn) for turn in turns))


async def _field(
    setting: Setting, stack: contextlib.AsyncExitStack, variants: dict[str, tuple[str, ...]]
) -> _Field:
    bare = await stack.enter_async_context(peer_of(setting, "bare"))
    worker = await stack.enter_async_context(worker_of(setting))
    daemon = await stack.enter_async_context(daemon_of(setting))
    client = await stack.enter_async_context(AsyncClient(daemon.socket))
    field = _Field([], {}, bare, [bare.version])
    field.contenders.extend(_variants(BARE, bare, variants[BARE]))
    field.contenders.append(WorkerContender(worker))
    field.contenders.append(DaemonContender(client, str(setting.model)))
    others = {HIGH_LEVEL: "high_level", XLLAMACPP: "xllamacpp_server"}
    for name, script in others.items():
        if name in variants:
            await _join(setting, stack, field, (name, script), variants[name])
    await _join(setting, stack, field, (LLAMA_SERVER, "llama_server"), ("",))
    return field


async def _join(
    setting: Setting,
    stack: contextlib.AsyncExitStack,
    field: _Field,
    peer: tuple[str, str],
    variants: tuple[str, ...],
) -> None:
    name, script = peer
    try:
        process = await stack.enter_async_context(peer_of(setting, script))
    except PeerMissingError as error:
        field.missing[name] = str(error)
        return
    field.contenders.extend(_variants(name, process, variants))
    if process.version not in field.versions:
        field.versions.append(process.version)


def _variants(name: str, peer: Peer, variants: tuple[str, ...]) -> list[PeerContender]:
    return [PeerContender(f"{name}, {v}" if v else name, peer, v) for v in variants]


async def _prompts(bare: Peer, count: int) -> list[list[int]]:
    prompts = []
    for number in itertools.islice(numbers(), count):
        tokens = (await bare.ask(text=counting(number)))["tokens"]
        prompts.append(tokens[:PROMPT_TOKENS])
    return prompts


def _compare(section: Section, figures: dict[str, rounds.Samples], name: str, bound: float) -> None:
    """The worker against each variant of a contender, round by round.

    The machine's clock changes between rounds by more than what is looked for, and both had
    their turn in each.
    """
    for rival, rates in figures.items():
        if rival.startswith(name):
            ratio = rounds.ratio(figures[WORKER], rates).median
            section.checks.append(Check(f"worker / {rival}", ratio, bound, at_least=True))
