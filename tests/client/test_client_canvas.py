"""Gaps, candidates and denoising steps, as a program hands them in and gets them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gemd.client import AsyncClient, Canvas, Client, Delta, Finished, Gap, GenerationOptions
from gemd.v1 import generation_pb2, generation_service_pb2
from tests.support.daemon_says import answer, canvas, delta, finished, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import grpc

    from tests.support.fake_daemon import FakeDaemon

    Events = Iterator[generation_service_pb2.GenerateResponse]


@pytest.fixture
def client(daemon: FakeDaemon, socket: Path) -> Iterator[Client]:
    """A connected client."""
    with Client(socket) as connected:
        yield connected


def says(*events: generation_service_pb2.GenerateResponse) -> Callable[..., Events]:
    """A script of Generate that sends these events."""

    def script(request: object, context: grpc.ServicerContext) -> Events:
        yield started()
        yield from events

    return script


def test_all_wishes_reach_the_daemon(client: Client, daemon: FakeDaemon) -> None:
    """Spans in order, candidates, thinking and the canvas; unset stays unset."""
    daemon.script.generate = answer("x")
    options = GenerationOptions(
        spans=["a", Gap(), "b", Gap(7, "old")],
        candidates=3,
        thinking=False,
        watch_canvas=True,
    )
    client.chat("Hi", options).text()
    client.chat("Hi").text()
    full, plain = daemon.asked("Generate")
    free = generation_pb2.CanvasSpan.Free
    assert list(full.spans) == [
        generation_pb2.CanvasSpan(fixed_text="a"),
        generation_pb2.CanvasSpan(free=free()),
        generation_pb2.CanvasSpan(fixed_text="b"),
        generation_pb2.CanvasSpan(free=free(max_tokens=7, initial_text="old")),
    ]
    assert full.spans[1].WhichOneof("span") == "free"
    assert (full.candidates, full.thinking, full.watch_canvas) == (3, False, True)
    assert full.HasField("thinking")
    assert not plain.HasField("thinking")
    assert (len(plain.spans), plain.candidates, plain.watch_canvas) == (0, 0, False)


@pytest.mark.parametrize(
    "spans,kind,says_",
    [
        ("a text", TypeError, "not one text"),
        (["a", 3], TypeError, r"spans\[1\] is 3"),
        (["a", Gap(-1)], ValueError, r"spans\[1\] cannot be Gap\(max_tokens=-1"),
    ],
)
def test_spans_that_cannot_be_sent_are_refused_at_once(
    client: Client, daemon: FakeDaemon, spans: Any, kind: type[Exception], says_: str
) -> None:
    """One string is not a list of its letters, and no gap has less than no tokens."""
    with pytest.raises(kind, match=says_):
        client.chat("Hi", GenerationOptions(spans=spans))
    assert daemon.asked("Generate") == []


def test_a_step_has_all_its_figures(client: Client, daemon: FakeDaemon) -> None:
    """Offsets and confidences included."""
    daemon.script.generate = says(canvas("é!", step=3, confidence=(0.5, 1.0)), finished())
    picture = next(event for event in client.chat("Hi") if isinstance(event, Canvas))
    assert (picture.text, picture.step, picture.max_steps, picture.canvas) == ("é!", 3, 48, 0)
    assert (picture.text_offsets, picture.confidence) == ((0, 2), (0.5, 1.0))
    assert (picture.accepted, picture.last) == (2, False)


def end(candidate: int, *, filled: tuple[str, ...] = (), steps: int = 0) -> Any:
    """The end of one candidate."""
    event = finished()
    event.finished.candidate = candidate
    event.finished.filled_spans.extend(filled)
    event.finished.usage.denoising_steps = steps
    return event


def test_every_candidate_is_an_answer(client: Client, daemon: FakeDaemon) -> None:
    """In their order, whatever the order of their events; `answer` is the first of them."""
    events = [delta("b", 1), delta("a"), delta("B", 1), end(1, steps=7), delta("A"), end(0)]
    daemon.script.generate = says(*events)
    generation = client.chat("Hi", GenerationOptions(candidates=2))
    first, second = generation.answers()
    assert (first.text, second.text) == ("aA", "bB")
    assert (first.finished.candidate, second.finished.candidate) == (0, 1)
    assert second.finished.usage.denoising_steps == 7
    assert first.started == second.started
    assert generation.answer() == first
    assert generation.text_so_far == "aA"


def test_the_texts_of_gaps_come_with_the_end(client: Client, daemon: FakeDaemon) -> None:
    """Beside the whole text."""
    daemon.script.generate = says(delta("a b c"), end(0, filled=("b", "")))
    done = client.chat("Hi", GenerationOptions(spans=["a ", Gap(), " c", Gap()])).answer()
    assert (done.text, done.finished.filled_spans) == ("a b c", ("b", ""))


async def test_the_async_client_has_them_too(socket: Path, daemon: FakeDaemon) -> None:
    """Both answers, and every event on the way."""
    daemon.script.generate = says(canvas("x"), delta("a"), delta("b", 1), end(0), end(1))
    async with AsyncClient(socket) as client:
        options = GenerationOptions(candidates=2, watch_canvas=True)
        generation = client.chat("Hi", options)
        assert [one.text for one in await generation.answers()] == ["a", "b"]
        kinds = [type(event) async for event in client.chat("Hi", options)]
    assert kinds[1:] == [Canvas, Delta, Delta, Finished, Finished]
