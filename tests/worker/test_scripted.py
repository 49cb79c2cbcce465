"""The scripted engine does what other tests rely on."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from gemd import wire
from gemd.errors import ContextTooLongError, EngineStartFailedError, InvalidRequestError
from gemd.worker.host import WorkerHost
from gemd.worker.scripted import create
from tests.support.tiers import FAST, STRONG, play
from tests.support.workers import generate, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.worker.scripted.engine import ScriptedEngine


NAME = "local/large"


class _Recorder(WorkerHost):
    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel, identity=f"{NAME}#1")
        self.emitted: list[wire.FromWorker] = []

    def emit(self, message: wire.FromWorker) -> None:
        self.emitted.append(message)


@pytest.fixture
def host() -> Iterator[_Recorder]:
    """A host that keeps what is emitted."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield _Recorder(theirs)


@pytest.fixture
def engine(host: _Recorder) -> ScriptedEngine:
    """Loaded, for two requests at a time."""
    built = create(host)
    ready = built.load(load(max_sequences=2), lambda *_: None)
    assert ready.max_sequences == 2
    return built


def _run(engine: ScriptedEngine) -> None:
    while engine.step():
        pass


def _text(host: _Recorder, request_id: str) -> str:
    return "".join(
        message.text
        for message in host.emitted
        if isinstance(message, wire.Delta) and message.request_id == request_id
    )


@pytest.mark.parametrize(
    "prompt,text",
    [
        (wire.Prompt(text=" a  b\n"), " a  b\n"),
        (wire.Prompt(tokens=(1, 2)), " t1 t2"),
        (
            wire.Prompt(
                chat=(
                    wire.ChatMessage(role="system", text="be brief"),
                    wire.ChatMessage(role="user", text="hello you"),
                )
            ),
            "hello you",
        ),
    ],
)
def test_a_prompt_that_is_no_script_is_repeated(
    engine: ScriptedEngine, host: _Recorder, prompt: wire.Prompt, text: str
) -> None:
    """Its text, or that of the last message of a chat."""
    engine.accept(wire.Generate(request_id="r", prompt=prompt))
    _run(engine)
    assert _text(host, "r") == text
    assert engine.idle()


def test_more_requests_than_sequences_wait(engine: ScriptedEngine, host: _Recorder) -> None:
    """Two run, the third waits, and a cancelled one makes room."""
    for name in "abc":
        engine.accept(generate(name, count=100, token_seconds=10.0))
    engine.step()
    assert engine.status(1) == wire.Pong(nonce=1, active=2, waiting=1, cached_tokens=0)
    engine.cancel("a")
    engine.cancel("nobody")
    engine.step()
    assert engine.status(2) == wire.Pong(nonce=2, active=2, waiting=0, cached_tokens=0)
    (finished,) = [message for message in host.emitted if isinstance(message, wire.Finished)]
    assert (finished.request_id, finished.reason) == ("a", "cancelled")


def test_a_deadline_counts_while_waiting_too(engine: ScriptedEngine, host: _Recorder) -> None:
    """As in a real engine: who waits longer than he can is told so."""
    for name in "abc":
        engine.accept(generate(name, count=100, token_seconds=10.0))
    engine.accept(generate("late", count=1, deadline_seconds=0.0))
    engine.step()
    (failed,) = [message for message in host.emitted if isinstance(message, wire.RequestFailed)]
    assert (failed.request_id, failed.error.reason) == ("late", "DEADLINE_EXPIRED")


def test_a_script_with_an_unknown_word_is_refused(engine: ScriptedEngine) -> None:
    """A typing error in a test must not pass as a prompt."""
    with pytest.raises(InvalidRequestError):
        engine.accept(generate("r", crash_att=3))


def _resize(context_tokens: int) -> wire.Resize:
    return wire.Resize(request_id="z", context_tokens=context_tokens, prompt_cache_bytes=0)


def test_the_cells_follow_the_context(host: _Recorder) -> None:
    """Memory and the longest prompt are those of the newest size."""
    engine = create(host)
    ready = engine.load(load(cell_bytes=1000, allocate_mib=1), lambda *_: None)
    assert ready.memory_bytes == {"CPU": 1024 * 1024 + 4096 * 1000}
    for size in (100, 300):
        resized = engine.resize(_resize(size))
        assert resized.context_tokens == size
        assert resized.memory_bytes == {"CPU": 1024 * 1024 + size * 1000}
        fits, long = (wire.Prompt(text=" ".join(["a"] * words)) for words in (size, size + 1))
        engine.accept(wire.Generate(request_id="fits", prompt=fits))
        with pytest.raises(ContextTooLongError, match=f"the context {size}"):
            engine.accept(wire.Generate(request_id="long", prompt=long))


def test_a_resize_can_be_told_to_fail(host: _Recorder) -> None:
    """The context is then as large as it was."""
    engine = create(host)
    error = wire.ErrorBody.of(EngineStartFailedError("no room"))
    engine.load(load(resize_error=error.model_dump()), lambda *_: None)
    with pytest.raises(EngineStartFailedError, match="no room"):
        engine.resize(_resize(1))
    engine.accept(wire.Generate(request_id="fits", prompt=wire.Prompt(text="a b c")))


def test_answers_are_deterministic(engine: ScriptedEngine, host: _Recorder) -> None:
    """The same question, the same numbers."""
    for request_id in "ab":
        engine.accept(
            wire.Score(request_id=request_id, prompt=wire.Prompt(text="x y"), continuations=(" z",))
        )
        engine.accept(wire.Embed(request_id=request_id, texts=("x y", "z"), normalize=False))
        engine.accept(wire.Count(request_id=request_id, prompt=wire.Prompt(text="x y")))
    first, second = (
        [message.model_copy(update={"request_id": ""}) for message in host.emitted[start::1]][:3]
        for start in (0, 3)
    )
    assert first == second
    assert len(first) == 3


def test_a_canvas_settles_step_by_step(engine: ScriptedEngine, host: _Recorder) -> None:
    """Position by position from the left, until its text is said; each token has its own."""
    script = generate("r", tokens=["abc", "d"], canvas_steps=3)
    engine.accept(script.model_copy(update={"watch_canvas": True}))
    _run(engine)
    kinds = [message.type for message in host.emitted]
    assert kinds == ["started", *["canvas"] * 3, "delta", *["canvas"] * 3, "delta", "finished"]
    pictures = [message for message in host.emitted if isinstance(message, wire.Canvas)]
    assert [(one.canvas, one.step, one.last) for one in pictures] == [
        (canvas, step, step == 3) for canvas in (0, 1) for step in (1, 2, 3)
    ]
    assert [one.text for one in pictures[:3]] == ["a··", "ab·", "abc"]
    assert pictures[0].text_offsets == (0, 1, 3)
    assert pictures[0].confidence == pytest.approx((1.0, 1 / 6, 1 / 6))
    assert [one.accepted for one in pictures[:3]] == [1, 1, 1]


def test_candidates_share_one_start_and_one_error(engine: ScriptedEngine, host: _Recorder) -> None:
    """Those that wait for a sequence are ended by the deadline of those that run, once."""
    request = generate("r", count=5, token_seconds=10.0, deadline_seconds=0.01)
    engine.accept(request.model_copy(update={"candidates": 5}))
    _run(engine)
    kinds = [message.type for message in host.emitted if not isinstance(message, wire.Delta)]
    assert kinds == ["started", "request_failed"]
    assert engine.idle()


def _chat(*turns: str) -> wire.Prompt:
    roles = ("user", "assistant") * len(turns)
    messages = [
        wire.ChatMessage.model_validate({"role": role, "text": text})
        for role, text in zip(roles, turns, strict=False)
    ]
    return wire.Prompt(chat=tuple(messages))


def test_a_play_has_a_part_for_each_model(engine: ScriptedEngine, host: _Recorder) -> None:
    """This one acts its own, another one when the conversation has gone on, and no other's."""
    assert NAME == STRONG
    prompt = play({"tokens": ["no"]}, {"tokens": ["yes"]}, strong_again={"tokens": ["better"]})
    engine.accept(wire.Generate(request_id="a", prompt=wire.Prompt(text=prompt)))
    engine.accept(wire.Generate(request_id="b", prompt=_chat(prompt, "no", "mend it")))
    _run(engine)
    assert (_text(host, "a"), _text(host, "b")) == ("yes", "better")
    nobody = json.dumps({"models": {FAST: {"tokens": ["no"]}}})
    engine.accept(wire.Generate(request_id="c", prompt=wire.Prompt(text=nobody)))
    engine.accept(wire.Generate(request_id="d", prompt=_chat(play(strong={"count": 2}), "{", "x")))
    _run(engine)
    assert (_text(host, "c"), _text(host, "d")) == (nobody, "0 1")


@pytest.mark.parametrize(
    "prefix,rest",
    [("a b", " c d"), (" x", "a b c d"), ((), "a b c d"), ("a b c d", ""), ("a b c", " d")],
)
def test_an_answer_goes_on_behind_its_beginning(
    engine: ScriptedEngine, host: _Recorder, prefix: str, rest: str
) -> None:
    """Behind as much of it as the script begins with; `max_tokens` counts both."""
    script = generate("r", tokens=["a", " b", " c", " d"], reasoning=["hm"])
    engine.accept(script.model_copy(update={"answer_prefix": prefix, "thinking": False}))
    _run(engine)
    assert _text(host, "r") == rest
    short = generate("s", max_tokens=3, tokens=["a", " b", " c", " d"])
    engine.accept(short.model_copy(update={"answer_prefix": "a b"}))
    _run(engine)
    (finished,) = [m for m in host.emitted if isinstance(m, wire.Finished) and m.request_id == "s"]
    assert (_text(host, "s"), finished.reason) == (" c", "max_tokens")
    assert finished.completion_tokens == 1


def test_the_ids_of_a_score_are_those_of_a_prefix(engine: ScriptedEngine, host: _Recorder) -> None:
    """What was scored as text can be handed back token by token."""
    engine.accept(wire.Score(request_id="s", prompt=wire.Prompt(text="x"), continuations=("a b",)))
    (scores,) = [message for message in host.emitted if isinstance(message, wire.Scores)]
    tokens = scores.continuations[0].tokens
    assert [token.piece for token in tokens] == [b"a", b" b"]
    script = generate("r", tokens=["a", " b", " c"])
    ids = tuple(token.token for token in tokens)
    engine.accept(script.model_copy(update={"answer_prefix": ids}))
    _run(engine)
    assert _text(host, "r") == " c"


def test_a_draft_is_compared_or_as_equal_as_the_script_says(
    engine: ScriptedEngine, host: _Recorder
) -> None:
    """And takes no time; the answer is the script's either way."""
    for name, accepted in (("a", None), ("b", 3)):
        script = generate(name, tokens=["a", " b", " c", " d"], accepted=accepted)
        engine.accept(script.model_copy(update={"draft": "a b x y z"}))
    _run(engine)
    ends = [message for message in host.emitted if isinstance(message, wire.Finished)]
    assert {end.request_id: (end.drafted_tokens, end.accepted_tokens) for end in ends} == {
        "a": (4, 2),
        "b": (4, 3),
    }
    assert _text(host, "a") == _text(host, "b") == "a b c d"


def _score(
    request_id: str, *, deadline_seconds: float | None = None, **scored: object
) -> wire.Score:
    return wire.Score(
        request_id=request_id,
        prompt=wire.Prompt(text=json.dumps({"score": scored})),
        continuations=("a b c", "d"),
        deadline_seconds=deadline_seconds,
    )


def test_a_score_says_what_the_script_says(engine: ScriptedEngine, host: _Recorder) -> None:
    """The last figure stands for all that follow, the last list too."""
    engine.accept(_score("r", logprobs=[[-0.1, -2.0], [-3.0]], entropy=1.5))
    assert not engine.idle()
    _run(engine)
    (scores,) = [message for message in host.emitted if isinstance(message, wire.Scores)]
    assert [[token.logprob for token in each.tokens] for each in scores.continuations] == [
        [-0.1, -2.0, -2.0],
        [-3.0],
    ]
    first = scores.continuations[0].tokens
    assert [token.rank for token in first] == [0, 1, 1]
    assert {token.entropy for token in first} == {1.5}
    assert engine.idle()


def test_a_score_takes_its_time_and_can_fail_in_every_way(
    engine: ScriptedEngine, host: _Recorder
) -> None:
    """It is cancelled or too late while it lasts, and has faults at a continuation."""
    engine.accept(_score("cancelled", seconds=60.0))
    engine.accept(_score("late", seconds=60.0, deadline_seconds=0.0))
    error = wire.ErrorBody.of(EngineStartFailedError("no"))
    engine.accept(_score("failed", fail_at=1, error=error.model_dump()))
    engine.step()
    assert engine.status(1).active == 1
    engine.cancel("cancelled")
    reasons = {
        message.request_id: message.error.reason
        for message in host.emitted
        if isinstance(message, wire.RequestFailed)
    }
    assert reasons == {
        "late": "DEADLINE_EXPIRED",
        "failed": "ENGINE_START_FAILED",
        "cancelled": "CANCELLED",
    }
    engine.accept(_score("broken", raise_at=0))
    with pytest.raises(RuntimeError, match="scripted failure at 0"):
        engine.step()
