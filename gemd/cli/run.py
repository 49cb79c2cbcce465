"""`gemctl run`: one prompt, one answer."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from gemd.cli.documents import document
from gemd.cli.failures import CommandError, Exit
from gemd.cli.follow import pull_unasked, show_loading
from gemd.cli.progress import Progress
from gemd.cli.prompt import read_prompt
from gemd.cli.session import Session, model_name, pass_session
from gemd.cli.text import format_seconds
from gemd.cli.values import seconds, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.cli.output import Output
    from gemd.client import Client, Finished, Generation, ModelNotFoundError

# What the fields of the API can hold; what makes sense is the daemon's to say.
_UINT32 = whole_number(2**32 - 1)
_UINT64 = whole_number(2**64 - 1)
_MODES = ("fast", "balanced", "best", "exact")


@click.command()
@click.argument("prompt", nargs=-1, metavar="[PROMPT]")
@click.option("--model", "-m", metavar="MODEL", help="Model id, or path of a GGUF file.")
@click.option("--system", metavar="TEXT", help="Instructions to the model.")
@click.option("--mode", type=click.Choice(_MODES), help="Speed against quality.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without a chat template.")
@click.option(
    "--temperature", type=float, metavar="X", help="Randomness; 0 takes the likeliest token."
)
@click.option("--top-p", type=float, metavar="P", help="Choose within this probability.")
@click.option("--top-k", type=_UINT32, metavar="N", help="Choose among this many tokens.")
@click.option(
    "--min-p", type=float, metavar="P", help="Leave out what is less likely than this share."
)
@click.option("--seed", type=_UINT64, metavar="N", help="Start of the random numbers.")
@click.option("--max-tokens", type=_UINT32, metavar="N", help="Longest answer in tokens.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text.")
@click.option("--deadline", type=seconds, metavar="SECONDS", help="Give up after this time.")
@click.option("--background", is_flag=True, help="Let others go first: nobody waits for this.")
@click.option("--yes", "-y", is_flag=True, help="Fetch a missing model without asking.")
@click.option("--stats", "--verbose", "-v", is_flag=True, help="Tokens and times on stderr.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@pass_session
def run(session: Session, /, prompt: tuple[str, ...], **options: Any) -> None:
    """Answer PROMPT, or what is piped in.

    Piped text is appended to PROMPT; `-` reads the prompt from standard input alone.
    A daemon is started and the model is fetched if need be.
    """
    if options["raw"] and options["system"]:
        raise click.UsageError("--system needs the chat template that --raw leaves out")
    if options["model"] is not None:
        options["model"] = model_name(options["model"])
    if len(prompt) > 1:
        raise CommandError(
            f"the prompt came as {len(prompt)} arguments",
            Exit.USAGE,
            why="it has to be one, in quotes",
            advice=(f"gemctl run {shlex.quote(' '.join(prompt))}",),
        )
    text = read_prompt(prompt[0] if prompt else None, session.output)
    # A template would wrap an answerable conversation around nothing but blanks.
    if not (text if options["raw"] else text.strip()):
        raise click.UsageError("the prompt is empty: gemctl run 'Why is the sky blue?'")
    with session.client(start=True) as client:
        generation = _answer(client, session, text, options)
    finished = generation.answer().finished
    if options["as_json"]:
        session.output.document(_document(generation))
    if options["stats"]:
        _stats(session.output, finished)
    elif not options["as_json"]:
        _say_if_cut(session.output, generation, asked=options["max_tokens"] is not None)


def _answer(client: Client, session: Session, text: str, options: dict[str, Any]) -> Generation:
    """The finished generation, whose text has been shown; a missing model is fetched first."""
    from gemd.client import ModelNotFoundError

    begin = _starter(client, text, options)
    told: set[str] = set()
    try:
        return _show(begin(), session.output, told, quiet=options["as_json"])
    except ModelNotFoundError as error:
        _fetch_missing(client, session, error, consent=options["yes"])
    return _show(begin(), session.output, told, quiet=options["as_json"])


def _starter(client: Client, text: str, options: dict[str, Any]) -> Callable[[], Generation]:
    from gemd.client import GenerationOptions, Message, Sampling

    names = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "stop")
    settings = GenerationOptions(
        model=options["model"],
        mode=options["mode"],
        background=options["background"],
        sampling=Sampling(**{name: options[name] for name in names}),
    )
    deadline = options["deadline"]
    if options["raw"]:
        return lambda: client.generate(text, settings, deadline=deadline)
    system = [Message("system", options["system"])] if options["system"] else []
    conversation = [*system, Message("user", text)]
    return lambda: client.chat(conversation, settings, deadline=deadline)


def _fetch_missing(
    client: Client, session: Session, error: ModelNotFoundError, *, consent: bool
) -> None:
    """Fetch the model that the error is about; the error again if that cannot help."""
    name = error.metadata.get("model")
    if name is None:
        raise error
    model = client.model(name)
    if model.on_disk:
        raise error
    pull_unasked(client, model, session.output, consent=consent)


def _show(generation: Generation, output: Output, told: set[str], *, quiet: bool) -> Generation:
    """Read a generation to its end and write its text as it comes.

    Args:
        generation: What is read.
        output: Where to.
        told: Hints that were given before, by an attempt that found no model.
        quiet: Write no text.

    """
    from gemd.client import Delta, Loading, Queued, Routed

    last = ""
    with Progress(output) as progress, generation:
        try:
            for event in generation:
                if isinstance(event, Routed) and event.reason == "EMBEDDED_MODEL":
                    if event.explanation not in told:
                        output.hint(event.explanation)
                    told.add(event.explanation)
                elif isinstance(event, Queued | Loading):
                    show_loading(progress, event)
                elif isinstance(event, Delta) and event.text and not event.candidate:
                    progress.clear()
                    last = event.text
                    if not quiet:
                        output.data(event.text)
        finally:
            if last and not quiet and not last.endswith("\n"):
                output.line()
    return generation


def _say_if_cut(output: Output, generation: Generation, *, asked: bool) -> None:
    """Tell an answer that was cut off from one that ended, unless the user set the limit."""
    answer = generation.answer()
    reason, started = answer.finished.finish_reason, answer.started
    if reason == "CONTEXT_FULL":
        size = f" of {started.context_length} tokens" if started else ""
        output.hint(f"the answer is cut off: the model's context{size} is full")
    elif reason == "MAX_TOKENS" and not asked:
        count = answer.finished.usage.completion_tokens
        output.hint(f"the answer is cut off after {count} tokens; --max-tokens sets the limit")


def _document(generation: Generation) -> dict[str, Any]:
    answer = generation.answer()
    return {
        "text": answer.text,
        "reasoning_text": answer.reasoning_text,
        "started": document(answer.started.raw) if answer.started else None,
        "finished": document(answer.finished.raw),
    }


def _stats(output: Output, finished: Finished) -> None:
    usage, timings = finished.usage, finished.timings
    parts = [
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached)",
        f"{usage.completion_tokens} generated",
        f"finish {finished.finish_reason.lower()}",
    ]
    for label, value in (
        ("queued", timings.queued),
        ("load", timings.load),
        ("first token", timings.first_token),
        ("prefill", timings.prefill),
        ("decode", timings.decode),
        ("total", timings.total),
    ):
        if value is not None:
            parts.append(f"{label} {format_seconds(value)}")
    if timings.decode and usage.completion_tokens:
        parts.append(f"{usage.completion_tokens / timings.decode:.1f} tokens/s")
    output.note(f"{finished.model}: {', '.join(parts)}")
