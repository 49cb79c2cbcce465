"""The engine itself loads the variant and answers: no more and no less than a user would see."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gemd import wire
from gemd.errors import EngineStartFailedError, GemdError
from gemd.worker.verify import reading
from gemd.worker.verify.job import SMOKE, failed, failing, passed
from gemd.worker.verify.probe_text import QUESTIONS
from gemd.worker.verify.sound import unsound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gemd.wire.verify import CheckMade
    from gemd.worker.host import Engine
    from gemd.worker.verify.job import Job

CONTEXT_TOKENS: Final = 1024
ANSWER_TOKENS: Final = 128
_PATIENCE_S: Final = 120.0
"""For the preparation of one prompt."""


@dataclass(slots=True)
class Said:
    """An answer.

    Attributes:
        text: All of it.
        tokens: That it is made of.
        finished: How it ended; None if it failed.
        error: Why it failed.

    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finished: wire.Finished | None = None
    error: str = ""


class Bench:
    """Stands in for the process around an engine: one question after the other.

    Args:
        create: Makes the engine.

    """

    def __init__(self, create: Callable[[Bench], Engine]) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._said: list[wire.FromWorker] = []
        self._engine = create(self)

    def emit(self, message: wire.FromWorker) -> None:
        """See `Host`."""
        self._said.append(message)
        if isinstance(message, wire.RequestFailed):
            # It may come from the thread that prepares, which then posts nothing.
            self._jobs.put(lambda: None)

    def post(self, job: Callable[[], None]) -> None:
        """See `Host`."""
        self._jobs.put(job)

    def load(self, load: wire.Load) -> wire.Ready:
        """Load the model.

        Raises:
            GemdError: As `Engine.load`.

        """
        return self._engine.load(load, lambda _phase, _current, _total: None)

    def ask(self, request: wire.Generate) -> Said:
        """One answer, greedy or as the request has it."""
        self._said.clear()
        self._engine.accept(request)
        self._jobs.get(timeout=_PATIENCE_S)()
        while self._engine.step():
            pass
        return _collected(self._said)

    def close(self) -> None:
        """Free the model."""
        self._engine.close()


def _collected(messages: list[wire.FromWorker]) -> Said:
    said = Said()
    for message in messages:
        match message:
            case wire.Delta():
                said.text += message.text
                said.tokens += message.tokens
            case wire.Finished():
                said.finished = message
            case wire.RequestFailed():
                said.error = str(message.error.error())
            case _:
                pass
    return said


def check_llama_smoke(job: Job) -> Iterator[CheckMade]:
    """A real load, and sound answers to a few questions."""
    free = job.order.memory_bytes
    return check_smoke(
        job,
        unloadable=lambda path: reading.unloadable(path, CONTEXT_TOKENS, free),
        tried=lambda path: _tried(job, path),
    )


def check_smoke(
    job: Job, *, unloadable: Callable[[Path], str], tried: Callable[[Path], CheckMade]
) -> Iterator[CheckMade]:
    """Loads the variant and asks it something.

    Where the answers are not sound the source is asked too: a model that was never better is not
    made worse by a quantization.

    Args:
        job: What is to be checked.
        unloadable: Why there is no memory for a model; empty if there is.
        tried: What the answers of a model amount to.

    """
    if why := unloadable(job.path):
        job.leave_out(SMOKE, why)
        return
    with failing(SMOKE):
        try:
            found = tried(job.path)
        except EngineStartFailedError as error:
            job.leave_out(SMOKE, str(error))
            return
    if not found.passed and job.source is not None and _is_as_bad(job.source, unloadable, tried):
        found = passed(SMOKE, f"as its source, which is no better: {found.detail}")
    yield found


def _is_as_bad(
    source: Path, unloadable: Callable[[Path], str], tried: Callable[[Path], CheckMade]
) -> bool:
    try:
        return not unloadable(source) and not tried(source).passed
    except GemdError:
        return False


def _tried(job: Job, path: Path) -> CheckMade:
    """What a model's answers amount to.

    Raises:
        GemdError: It cannot be loaded.

    """
    from gemd.worker.llama.engine import LlamaEngine  # noqa: PLC0415 - imports llama.cpp

    bench = Bench(LlamaEngine)
    load = wire.Load(
        path=str(path),
        context_tokens=CONTEXT_TOKENS,
        max_sequences=1,
        threads=job.order.threads,
        chat_template=job.order.chat_template,
        use_mmap=True,
    )
    began = time.monotonic()
    ready = bench.load(load)
    load_s = time.monotonic() - began
    try:
        answers = [bench.ask(_request(question, ready)) for question in QUESTIONS]
    finally:
        bench.close()
    return verdict(answers, load_s=load_s, chat=ready.has_chat_template)


def _request(question: str, ready: wire.Ready) -> wire.Generate:
    prompt = wire.Prompt(text=question)
    if ready.has_chat_template:
        prompt = wire.Prompt(chat=(wire.ChatMessage(role="user", text=question),))
    return wire.Generate(
        request_id=question,
        prompt=prompt,
        sampling=wire.Sampling(temperature=0.0, max_tokens=ANSWER_TOKENS),
        thinking=False,
    )


def verdict(answers: list[Said], *, load_s: float, chat: bool) -> CheckMade:
    """What the answers amount to.

    A model that was made to chat has to end at least one of them by itself, and two that go round
    in circles are too many: a small one does so now and then, in full precision too. A base model
    that only goes on with a text may do so as it likes.

    Args:
        answers: To `QUESTIONS`.
        load_s: Seconds that the load took.
        chat: Whether the model has a chat template.

    """
    for said in answers:
        if said.error or said.finished is None:
            return failed(SMOKE, said.error or "an answer did not come to an end")
    problems = [
        f"to «{question}»: {problem}"
        for question, said in zip(QUESTIONS, answers, strict=True)
        if (problem := unsound(said.text, said.tokens, may_loop=not chat))
    ]
    counts = f"{len(answers) - len(problems)} of {len(answers)} answers are sound"
    if len(problems) > 1:
        return failed(SMOKE, f"{counts}; {problems[0]}", value=len(problems), limit=1)
    ended = sum(said.finished is not None and said.finished.reason == "stop" for said in answers)
    if chat and not ended:
        return failed(SMOKE, f"none of {len(answers)} answers ends within {ANSWER_TOKENS} tokens")
    first = " ".join(answers[0].text.split())[:80]
    return passed(
        SMOKE,
        f"loaded in {load_s:.1f} s, {counts}, {ended} end by themselves; the first: {first}",
        value=len(problems),
        limit=1,
    )
