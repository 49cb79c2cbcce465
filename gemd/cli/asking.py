"""Asking the daemon and showing its answer as it comes, for `gemctl run` and its conversations."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemd.cli.answers import Answers, Collected
from gemd.cli.follow import NOT_PULLED, pull_unasked, show_loading
from gemd.cli.progress import Progress
from gemd.cli.stats import DraftTimes, figures, way
from gemd.cli.streamed import event_document

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from gemd.cli.output import Output
    from gemd.cli.session import Session
    from gemd.client import Answer, Canvas, Client, Generation, Message, ModelNotFoundError


@dataclass(frozen=True, slots=True)
class Shown:
    """A finished generation whose text has been shown."""

    generation: Generation
    canvases: list[Canvas]
    """The denoising steps, if they were asked for and not drawn."""
    times: DraftTimes


def ask(
    client: Client,
    session: Session,
    begin: Callable[[], Generation],
    options: dict[str, Any],
    *,
    told: set[str] | None = None,
    while_shown: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Shown:
    """Show the answer; a missing model is fetched first.

    Args:
        client: The daemon.
        session: For output, and for a daemon in place of one that dies.
        begin: Begins the generation, once or twice; see `starter`.
        options: Those of `gemctl run`.
        told: Hints that were given before, and are not given again.
        while_shown: What is around the answer, and not around a download and its question.

    """
    from gemd.client import ModelNotFoundError

    told = set() if told is None else told
    try:
        with while_shown():
            return _show(begin(), session.output, told, options)
    except ModelNotFoundError as error:
        _fetch_missing(client, session, error, consent=options["yes"])
    with while_shown():
        return _show(begin(), session.output, told, options)


def starter(
    client: Client, prompt: str | Sequence[Message], options: dict[str, Any]
) -> Callable[[], Generation]:
    """What begins the generation: of the text as it is with `raw`, else of a conversation."""
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
        assert isinstance(prompt, str)
        return lambda: client.generate(prompt, settings, deadline=deadline)
    turns = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    system = [Message("system", options["system"])] if options["system"] else []
    return lambda: client.chat([*system, *turns], settings, deadline=deadline)


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


def _show(generation: Generation, output: Output, told: set[str], options: dict[str, Any]) -> Shown:
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
                if options["stream"]:
                    output.record(event_document(event))
                if isinstance(event, Delta | Draft | Resolved):
                    answers.add(event)
                elif isinstance(event, Canvas) and not options["stream"]:
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
    return Shown(generation, collected.canvases, times)


def _answers(output: Output, progress: Progress, options: dict[str, Any]) -> Answers:
    return Answers(
        output,
        progress,
        candidates=options["candidates"] or 1,
        # What is filled and piped into a file is to be that file, down to its end.
        whole_lines=not options["spans"] or output.can_draw(),
    )


def say_if_cut(
    output: Output, answer: Answer, *, asked: bool, advice: str = "--max-tokens sets the limit"
) -> None:
    """Tell an answer that was cut off from one that ended, unless the user set the limit."""
    reason, started = answer.finished.finish_reason, answer.started
    if reason == "CONTEXT_FULL":
        size = f" of {started.context_length} tokens" if started else ""
        output.hint(f"the answer is cut off: the model's context{size} is full")
    elif reason == "MAX_TOKENS" and not asked:
        count = answer.finished.usage.completion_tokens
        output.hint(f"the answer is cut off after {count} tokens; {advice}")


def show_stats(output: Output, shown: Shown) -> None:
    """Tokens, times and the way of each answer, and the request's id."""
    answers = shown.generation.answers()
    written = sum(answer.finished.usage.completion_tokens for answer in answers)
    for answer in answers:
        output.note(figures(answer.finished, written=written))
        taken = way(answer, shown.times.of(answer.finished.candidate))
        if taken:
            output.note(taken)
    if answers[0].started is not None:
        output.note(f"request {answers[0].started.request_id}")
