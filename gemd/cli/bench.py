"""`gemctl bench`: how fast a model answers on this machine."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any, Final

import click

from gemd.cli import offers
from gemd.cli.follow import show_loading
from gemd.cli.progress import Progress
from gemd.cli.session import Session, model_name, pass_session
from gemd.cli.text import format_seconds
from gemd.cli.values import whole_number
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.cli.measuring import Figures
    from gemd.cli.output import Output
    from gemd.client import Client, Model

_MOST_STREAMS: Final = 64
_MOST_TOKENS: Final = 1_000_000
_HEADERS: Final = (
    "streams",
    "prompt",
    "written",
    "prompt/s",
    "tokens/s",
    "together/s",
    "first token",
    "tokens/J",
)


@click.command()
@click.argument("model", metavar="MODEL", shell_complete=offers.models)
@click.option(
    "--prompt-tokens",
    type=whole_number(_MOST_TOKENS),
    default="512",
    metavar="N",
    help="Length of each prompt; 512.",
)
@click.option(
    "--tokens",
    type=whole_number(_MOST_TOKENS),
    default="128",
    metavar="N",
    help="Length of each answer; 128.",
)
@click.option(
    "--streams",
    default="1,4",
    metavar="N,…",
    help="How many answers at the same time, one row for each number; 1,4.",
)
@click.option("--repeat", type=whole_number(100), default="3", metavar="N", help="Rounds; 3.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def bench(
    session: Session,
    model: str,
    *,
    prompt_tokens: int,
    tokens: int,
    streams: str,
    repeat: int,
    as_json: bool,
) -> None:
    """Measure how fast MODEL answers on this machine.

    The figures are medians of what a program sees that talks to the daemon. Prompts are random
    words that no cache knows. Other programs, and other requests, make them worse. prompt/s is
    reading, tokens/s writing of one answer, together/s that of all, with the reading; tokens/J is
    there where the machine says how much energy it takes.
    """
    name, numbers = model_name(model), _streams(streams)
    for option, value in (("--prompt-tokens", prompt_tokens), ("--tokens", tokens)):
        if not value:
            raise click.UsageError(f"{option} has to be 1 or more")
    if not repeat:
        raise click.UsageError("--repeat has to be 1 or more")
    with session.client(start=True) as client, Progress(session.output) as progress:
        loaded = _load(client, name, progress)
        _note_company(client, session.output)
        found = [
            _measure(
                client,
                loaded.id,
                streams=number,
                prompt_tokens=prompt_tokens,
                tokens=tokens,
                repeat=repeat,
                progress=progress,
            )
            for number in numbers
        ]
    if as_json:
        session.output.document(_document(loaded, found, repeat=repeat))
        return
    compute = f", computed by {loaded.compute}" if loaded.compute else ""
    session.output.line(f"{loaded.id}, {human_bytes(loaded.memory_bytes)} of memory{compute}")
    _print(found, session.output)


def _streams(given: str) -> list[int]:
    numbers = [part.strip() for part in given.split(",")]
    if not all(part.isascii() and part.isdigit() for part in numbers):
        raise click.UsageError(f"--streams takes numbers with commas between them, not {given!r}")
    if not all(0 < int(part) <= _MOST_STREAMS for part in numbers):
        raise click.UsageError(f"--streams takes numbers from 1 to {_MOST_STREAMS}")
    return [int(part) for part in numbers]


def _load(client: Client, name: str, progress: Progress) -> Model:
    from gemd.client import Model

    with client.load(name) as events:
        for event in events:
            if isinstance(event, Model):
                return event
            show_loading(progress, event)
    raise AssertionError("a load ends with its model")


def _note_company(client: Client, output: Output) -> None:
    others = client.status().running_requests
    if others:
        verb = "request runs" if others == 1 else "requests run"
        output.note(f"{others} other {verb} at the same time: the figures are worse for it")


def _measure(
    client: Client,
    model: str,
    *,
    streams: int,
    prompt_tokens: int,
    tokens: int,
    repeat: int,
    progress: Progress,
) -> Figures:
    from gemd.cli import measuring
    from gemd.client import Message

    chats = _chats(client, model)
    seeds = itertools.count(streams * 1_000_000 + 1)

    def count(text: str) -> int:
        return client.count_tokens([Message("user", text)] if chats else text, model=model).count

    def ask(tokens: int) -> measuring.Round:
        prompts = [measuring.prompt_of(prompt_tokens, next(seeds), count) for _ in range(streams)]
        return measuring.at_once(client, model, prompts, tokens=tokens, chats=chats)

    # The first answers at each number of streams warm up what grows with it.
    ask(min(tokens, 8))
    rounds = []
    for done in range(repeat):
        progress.update(
            f"measuring {streams} at once", current=done, total=repeat, bytes_counted=False
        )
        rounds.append(ask(tokens))
    return measuring.figures(rounds)


def _chats(client: Client, model: str) -> bool:
    """Whether the model takes conversations; a base model only continues texts."""
    from gemd.client import InvalidRequestError, Message

    try:
        client.count_tokens([Message("user", "Hello")], model=model)
    except InvalidRequestError as error:
        if error.reason != "UNSUPPORTED_INPUT":
            raise
        return False
    return True


def _document(model: Model, found: Sequence[Figures], *, repeat: int) -> dict[str, Any]:
    return {
        "model": model.id,
        "memory_bytes": model.memory_bytes,
        "repeat": repeat,
        "figures": [dataclasses.asdict(each) for each in found],
    }


def _print(found: Sequence[Figures], output: Output) -> None:
    rows = [
        (
            str(each.streams),
            str(each.prompt_tokens),
            str(each.tokens),
            _number(each.prompt_speed),
            _number(each.speed),
            _number(each.total_speed),
            "-" if each.first_token_s is None else format_seconds(each.first_token_s),
            _number(each.tokens_per_joule, digits=2),
        )
        for each in found
    ]
    output.table(_HEADERS, rows, right=_HEADERS)


def _number(value: float | None, *, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
