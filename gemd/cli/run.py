"""`gemctl run`: one prompt, one answer."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gemd.cli.answers import Answers, Collected
from gemd.cli.documents import document
from gemd.cli.failures import CommandError, Exit
from gemd.cli.follow import NOT_PULLED, pull_unasked, show_loading
from gemd.cli.gaps import read_gaps
from gemd.cli.progress import Progress
from gemd.cli.prompt import read_prompt, read_text
from gemd.cli.session import Session, model_name, pass_session
from gemd.cli.stats import DraftTimes, figures, way
from gemd.cli.values import seconds, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.cli.output import Output
    from gemd.client import (
        Answer,
        Canvas,
        Client,
        Gap,
        Generation,
        ModelNotFoundError,
    )

# What the fields of the API can hold; what makes sense is the daemon's to say.
_UINT32 = whole_number(2**32 - 1)
_UINT64 = whole_number(2**64 - 1)
MODES = ("fast", "balanced", "best", "exact")
TIERS = ("fast", "strong")
_FILL = "Fill in the gaps of the text."
"""What is asked for with --fill and without a PROMPT."""


@click.command()
@click.argument("prompt", nargs=-1, metavar="[PROMPT]")
@click.option(
    "--model",
    "-m",
    metavar="MODEL",
    help="Model id, or path of a GGUF file or of a checkpoint's folder.",
)
@click.option("--system", metavar="TEXT", help="Instructions to the model.")
@click.option("--mode", type=click.Choice(MODES), help="Speed against quality.")
@click.option("--tier", type=click.Choice(TIERS), help="Which of the two tiers answers.")
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
@click.option(
    "--thinking/--no-thinking", default=None, help="Reason first, on stderr, if the model can."
)
@click.option("--candidates", type=_UINT32, metavar="N", help="Give this many answers.")
@click.option(
    "--best-of", type=_UINT32, metavar="N", help="Write this many answers and give the best."
)
@click.option("--fill", metavar="FILE", help="Fill the gaps of this text, or of stdin for -.")
@click.option(
    "--watch-canvas", is_flag=True, help="Show how the answer settles: drawn, or in --json."
)
@click.option("--deadline", type=seconds, metavar="SECONDS", help="Give up after this time.")
@click.option("--background", is_flag=True, help="Let others go first: nobody waits for this.")
@click.option("--yes", "-y", is_flag=True, help="Fetch a missing model without asking.")
@click.option("--stats", "--verbose", "-v", is_flag=True, help="Tokens, times and way on stderr.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@pass_session
def run(session: Session, /, prompt: tuple[str, ...], **options: Any) -> None:
    """Answer PROMPT, or what is piped in.

    Piped text is appended to PROMPT; `-` reads the prompt from standard input alone.
    A daemon is started and the model is fetched if need be.

    A gap of a text for --fill is written `[[gap]]`, or `[[gap:40]]` where it may take at most 40
    tokens; the answer is the whole text. PROMPT says what is wanted there, and may be left out.

    --candidates, --fill and --watch-canvas need a block-diffusion model.

    A draft that is still to be checked is dimmed on a terminal, and nowhere else to be seen.
    """
    _check(prompt, options)
    if options["model"] is not None:
        options["model"] = model_name(options["model"])
    if len(prompt) > 1:
        raise CommandError(
            f"the prompt came as {len(prompt)} arguments",
            Exit.USAGE,
            why="it has to be one, in quotes",
            advice=(f"gemctl run {shlex.quote(' '.join(prompt))}",),
        )
    text, options["spans"] = _inputs(prompt[0] if prompt else None, options["fill"], session.output)
    # A template would wrap an answerable conversation around nothing but blanks.
    if not (text if options["raw"] else text.strip()):
        raise click.UsageError("the prompt is empty: gemctl run 'Why is the sky blue?'")
    if options["watch_canvas"] and not (options["as_json"] or session.output.can_draw()):
        session.output.hint("the canvas is not shown: that needs a terminal")
        options["watch_canvas"] = False
    with session.client(start=True) as client:
        shown = _answer(client, session, text, options)
    if options["as_json"]:
        session.output.document(_document(shown, options))
    if options["stats"]:
        _stats(session.output, shown)
    elif not options["as_json"]:
        for answer in shown.generation.answers():
            _say_if_cut(session.output, answer, asked=options["max_tokens"] is not None)


def _check(prompt: tuple[str, ...], options: dict[str, Any]) -> None:
    """Refuse options that cannot go together."""
    if options["raw"] and options["system"]:
        raise click.UsageError("--system needs the chat template that --raw leaves out")
    if options["model"] is not None and options["tier"] is not None:
        raise click.UsageError("--model names who answers; --tier cannot name another one")
    if 0 < (options["best_of"] or 0) < (options["candidates"] or 0):
        raise click.UsageError("--best-of has to be at least --candidates: they are chosen from it")
    if options["fill"] is None:
        return
    if options["max_tokens"] is not None:
        raise click.UsageError("--fill takes no --max-tokens: [[gap:40]] says how long a gap is")
    if options["stop"]:
        raise click.UsageError("--fill takes no --stop: the text ends where it ends")
    if options["raw"] and not prompt:
        raise click.UsageError("--fill with --raw needs a PROMPT: what stands before the text")


def _inputs(prompt: str | None, fill: str | None, output: Output) -> tuple[str, list[str | Gap]]:
    """The prompt, and the text with gaps if there is one."""
    if fill is None:
        return read_prompt(prompt, output), []
    if fill == "-" == prompt:
        raise click.UsageError("standard input cannot be both the prompt and the text to fill")
    spans = read_gaps(read_text(fill, output))
    wanted = _FILL if prompt is None else prompt
    return wanted if fill == "-" else read_prompt(wanted, output), spans


@dataclass(frozen=True, slots=True)
class _Shown:
    """A finished generation whose text has been shown."""

    generation: Generation
    canvases: list[Canvas]
    """The denoising steps, if they were asked for and not drawn."""
    times: DraftTimes


def _answer(client: Client, session: Session, text: str, options: dict[str, Any]) -> _Shown:
    """Show the answer; a missing model is fetched first."""
    from gemd.client import ModelNotFoundError

    begin = _starter(client, text, options)
    told: set[str] = set()
    try:
        return _show(begin(), session.output, told, options)
    except ModelNotFoundError as error:
        _fetch_missing(client, session, error, consent=options["yes"])
    return _show(begin(), session.output, told, options)


def _starter(client: Client, text: str, options: dict[str, Any]) -> Callable[[], Generation]:
    from gemd.client import GenerationOptions, Message, Sampling

    names = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "stop")
    settings = GenerationOptions(
        model=options["model"],
        tier=options["tier"],
        mode=options["mode"],
        background=options["background"],
        candidates=options["candidates"] or 0,
        best_of=options["best_of"] or 0,
        spans=options["spans"],
        thinking=options["thinking"],
        watch_canvas=options["watch_canvas"],
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
    from gemd.client import ModelNotFoundError

    name = error.metadata.get("model")
    if name is None:
        raise error
    try:
        model = client.model(name)
    except ModelNotFoundError:
        # There is none to fetch, and the first error knows where the name stands.
        raise error from None
    if model.on_disk or model.source in NOT_PULLED:
        raise error
    pull_unasked(client, model, session.output, consent=consent, revive=session.revive)


def _show(
    generation: Generation, output: Output, told: set[str], options: dict[str, Any]
) -> _Shown:
    """Read a generation to its end and write its text as it comes.

    Args:
        generation: What is read.
        output: Where to.
        told: Hints that were given before, by an attempt that found no model.
        options: Those of the command; with `as_json` no text is written.

    """
    from gemd.client import Canvas, Delta, Draft, Finished, Loading, Queued, Resolved, Routed

    times = DraftTimes()
    with Progress(output) as progress, generation:
        collected = Collected(progress)
        answers = collected if options["as_json"] else _answers(output, progress, options)
        try:
            for event in generation:
                times.add(event)
                if isinstance(event, Delta | Draft | Resolved):
                    answers.add(event)
                elif isinstance(event, Canvas):
                    answers.draw(event)
                elif isinstance(event, Finished):
                    answers.end(event)
                elif isinstance(event, Routed) and event.reason == "EMBEDDED_MODEL":
                    if event.explanation not in told:
                        output.hint(event.explanation)
                    told.add(event.explanation)
                elif isinstance(event, Queued | Loading):
                    show_loading(progress, event)
        finally:
            answers.close()
    return _Shown(generation, collected.canvases, times)


def _answers(output: Output, progress: Progress, options: dict[str, Any]) -> Answers:
    return Answers(
        output,
        progress,
        candidates=options["candidates"] or 1,
        # What is filled and piped into a file is to be that file, down to its end.
        whole_lines=not options["spans"] or output.can_draw(),
    )


def _say_if_cut(output: Output, answer: Answer, *, asked: bool) -> None:
    """Tell an answer that was cut off from one that ended, unless the user set the limit."""
    reason, started = answer.finished.finish_reason, answer.started
    if reason == "CONTEXT_FULL":
        size = f" of {started.context_length} tokens" if started else ""
        output.hint(f"the answer is cut off: the model's context{size} is full")
    elif reason == "MAX_TOKENS" and not asked:
        count = answer.finished.usage.completion_tokens
        output.hint(f"the answer is cut off after {count} tokens; --max-tokens sets the limit")


def _document(shown: _Shown, options: dict[str, Any]) -> dict[str, Any]:
    """The answer; several as a list beside the first one, and the steps if they were asked for."""
    answer = shown.generation.answer()
    content: dict[str, Any] = {
        "text": answer.text,
        "reasoning_text": answer.reasoning_text,
        "started": document(answer.started.raw) if answer.started else None,
        "finished": document(answer.finished.raw),
    }
    if answer.resolved is not None:
        content["draft"] = {"text": answer.draft, "resolved": document(answer.resolved.raw)}
    if options["candidates"]:
        content["candidates"] = [
            {
                "text": each.text,
                "reasoning_text": each.reasoning_text,
                "finished": document(each.finished.raw),
            }
            for each in shown.generation.answers()
        ]
    if options["watch_canvas"]:
        content["canvases"] = [document(each.raw) for each in shown.canvases]
    return content


def _stats(output: Output, shown: _Shown) -> None:
    answers = shown.generation.answers()
    for answer in answers:
        output.note(figures(answer.finished))
        taken = way(answer, shown.times.of(answer.finished.candidate))
        if taken:
            output.note(taken)
    if answers[0].started is not None:
        output.note(f"request {answers[0].started.request_id}")
