"""`gemctl run`: one prompt and one answer, or a conversation on a terminal."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from gemd.cli import offers
from gemd.cli.asking import ask, say_if_cut, show_stats, starter
from gemd.cli.documents import document
from gemd.cli.failures import CommandError, Exit
from gemd.cli.gaps import read_gaps
from gemd.cli.prompt import read_prompt, read_text
from gemd.cli.session import Session, model_name, pass_session
from gemd.cli.values import seconds, whole_number

if TYPE_CHECKING:
    from gemd.cli.asking import Shown
    from gemd.cli.output import Output
    from gemd.client import Gap

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
    shell_complete=offers.models,
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
@click.option(
    "--fill",
    metavar="FILE",
    shell_complete=offers.files,
    help="Fill the gaps of this text, or of stdin for -.",
)
@click.option(
    "--watch-canvas", is_flag=True, help="Show how the answer settles: drawn, or in --json."
)
@click.option("--deadline", type=seconds, metavar="SECONDS", help="Give up after this time.")
@click.option("--background", is_flag=True, help="Let others go first: nobody waits for this.")
@click.option("--yes", "-y", is_flag=True, help="Fetch a missing model without asking.")
@click.option("--no-history", is_flag=True, help="Keep nothing of what is typed for another time.")
@click.option("--stats", "--verbose", "-v", is_flag=True, help="Tokens, times and way on stderr.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@click.option(
    "--stream", is_flag=True, help="With --json: each event as it comes, a document a line."
)
@pass_session
def run(session: Session, /, prompt: tuple[str, ...], **options: Any) -> None:
    """Answer PROMPT, or what is piped in.

    On a terminal without PROMPT it is a conversation: each question is sent with all that was said
    before. /help says what can be done there; Ctrl-C stops an answer, Ctrl-D ends it.

    Piped text is appended to PROMPT; `-` reads the prompt from standard input alone.
    A daemon is started and the model is fetched if need be.

    A gap of a text for --fill is written `[[gap]]`, or `[[gap:40]]` where it may take at most 40
    tokens; the answer is the whole text. PROMPT says what is wanted there, and may be left out.

    --candidates, --fill and --watch-canvas need a block-diffusion model.

    A draft that is still to be checked is dimmed on a terminal. With --json --stream it is an
    event among the others, as in the API; the last line is then `finished` or `error`.
    """
    _check(prompt, options)
    if _wants_conversation(prompt, options, session.output):
        from gemd.cli.chat import converse

        converse(session, options)
        return
    _run(session, prompt, options)


def _run(session: Session, prompt: tuple[str, ...], options: dict[str, Any]) -> None:
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
        shown = ask(client, session, starter(client, text, options), options)
    if options["as_json"] and not options["stream"]:
        session.output.document(_document(shown, options))
    if options["stats"]:
        show_stats(session.output, shown)
    elif not options["as_json"]:
        for answer in shown.generation.answers():
            say_if_cut(session.output, answer, asked=options["max_tokens"] is not None)


def _wants_conversation(prompt: tuple[str, ...], options: dict[str, Any], output: Output) -> bool:
    """Whether nothing is asked yet, and a person is there to ask it and to read the answer."""
    if prompt or options["fill"] is not None or options["as_json"]:
        return False
    if sys.stdin is None or not (sys.stdin.isatty() and output.stdout.isatty()):
        return False
    for option in ("raw", "candidates"):
        if options[option]:
            raise click.UsageError(f"--{option} needs a PROMPT: a conversation has none of it")
    return True


def _check(prompt: tuple[str, ...], options: dict[str, Any]) -> None:
    """Refuse options that cannot go together."""
    if options["raw"] and options["system"]:
        raise click.UsageError("--system needs the chat template that --raw leaves out")
    if options["model"] is not None and options["tier"] is not None:
        raise click.UsageError("--model names who answers; --tier cannot name another one")
    if 0 < (options["best_of"] or 0) < (options["candidates"] or 0):
        raise click.UsageError("--best-of has to be at least --candidates: they are chosen from it")
    if options["stream"] and not options["as_json"]:
        raise click.UsageError("--stream is for programs, with --json: text streams anyway")
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


def _document(shown: Shown, options: dict[str, Any]) -> dict[str, Any]:
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
