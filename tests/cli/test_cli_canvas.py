"""The canvas on a terminal: it settles in place, and nothing of it is left."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.canvas import Painter, last_row, positions, wrapped
from gemd.cli.output import Output
from gemd.client.events import Canvas, generation_event
from tests.support.daemon_says import abort, canvas, delta, finished, started
from tests.support.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gemd.v1 import generation_service_pb2
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Inside

    Events = Iterator[generation_service_pb2.GenerateResponse]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Drawing:
    """A painter, and the screen that it paints on."""

    def __init__(
        self, columns: int = 20, height: int = 24, *, shared_stderr: bool = False, **environ: str
    ) -> None:
        self.written = _Terminal()
        self.screen = Screen(columns, height)
        stderr = self.written if shared_stderr else io.StringIO()
        output = Output(self.written, stderr, {"TERM": "xterm", **environ})
        self.painter = Painter(output, size=lambda: (columns, height))

    def shown(self) -> str:
        """What stands on the screen now."""
        self.screen.feed(self.written.getvalue())
        self.written.seek(0)
        self.written.truncate()
        return self.screen.text


def picture(text: str, *, step: int = 1, number: int = 0, sure: Sequence[float] = ()) -> Canvas:
    """A denoising step, as a client gets it."""
    event = generation_event(canvas(text, step=step, number=number, confidence=sure))
    assert isinstance(event, Canvas)
    return event


def test_a_position_has_its_text_and_its_confidence() -> None:
    """By offsets in bytes; a character that positions share belongs to the first of them."""
    whole = picture("aé", sure=(0.25, 0.75))
    assert list(positions(whole)) == [("a", 0.25), ("é", 0.75)]
    event = canvas("aéb", confidence=(0.25, 0.5, 0.75))
    del event.canvas.text_offsets[:]
    event.canvas.text_offsets.extend((0, 1, 2))
    shared = generation_event(event)
    assert isinstance(shared, Canvas)
    assert list(positions(shared)) == [("a", 0.25), ("é", 0.5), ("b", 0.75)]
    assert list(positions(picture(""))) == []


def test_the_next_step_takes_the_place_of_the_last() -> None:
    """Behind the text that is final, wrapped at the edge, with the step below."""
    drawing = Drawing(columns=8)
    drawing.painter.write("final\ntext ")
    drawing.painter.draw(picture("#######", step=1))
    assert drawing.shown() == "final\ntext ###\n####\nstep "
    drawing.painter.draw(picture("w#rd", step=2))
    assert drawing.shown() == "final\ntext w#r\nd\nstep "
    drawing.painter.write("word.")
    assert drawing.shown() == "final\ntext wor\nd."


def test_unsure_positions_are_dimmed() -> None:
    """In three steps of sureness; not at all where no colours are wanted."""
    drawing = Drawing()
    drawing.painter.draw(picture("abc", sure=(0.95, 0.6, 0.1)))
    assert "a\x1b[2mb\x1b[0m\x1b[90mc\x1b[0m\n" in drawing.written.getvalue()
    plain = Drawing(NO_COLOR="1")
    plain.painter.draw(picture("abc", sure=(0.95, 0.6, 0.1)))
    assert "\x1b[2m" not in plain.written.getvalue()
    assert plain.shown() == "abc\nstep 1 of 48, can"


def test_hostile_noise_cannot_steer_the_terminal() -> None:
    """A canvas is text of a model like any other, and a tab has no width of its own."""
    drawing = Drawing(columns=40)
    drawing.painter.draw(picture("a\x1b[2Jb\rc\td"))
    assert drawing.shown().splitlines()[0] == "a␛[2Jb␍c d"


def test_a_canvas_higher_than_the_screen_is_cut() -> None:
    """What has left the screen could not be taken away: the end of it is not shown."""
    drawing = Drawing(columns=10, height=5)
    for step in range(1, 4):
        drawing.painter.draw(picture("\n".join("abcdefgh"), step=step))
        assert drawing.shown() == f"a\nb\nc\nstep {step} "
    drawing.painter.write("all of it")
    assert drawing.shown() == "all of it"


@pytest.mark.parametrize("columns", range(4, 40))
def test_an_echoed_interrupt_leaves_nothing_behind(columns: int) -> None:
    """However narrow the terminal: the «^C» does not wrap, and goes with the picture."""
    drawing = Drawing(columns)
    drawing.painter.write("a\nb")
    drawing.painter.draw(picture("noise"))
    drawing.shown()
    drawing.screen.feed("^C")
    drawing.painter.clear()
    assert drawing.shown() == "a\nb"


def test_a_picture_stands_behind_reasoning() -> None:
    """Which stays dimmed while the picture is redrawn, and is not there if stderr is elsewhere."""
    drawing = Drawing(columns=20, shared_stderr=True)
    drawing.painter.think("well, ")
    drawing.painter.draw(picture("####"))
    assert drawing.written.getvalue().endswith(
        "\x1b[2mwell, \x1b[0m####\n\x1b[2mstep 1 of 48, can\x1b[0m"
    )
    drawing.painter.think("now\n")
    drawing.painter.draw(picture("42"))
    drawing.painter.write("42")
    assert drawing.shown() == "well, now\n42"
    alone = Drawing(columns=20)
    alone.painter.think("well, ")
    alone.painter.draw(picture("####"))
    assert alone.shown() == "####\nstep 1 of 48, can"


WRITTEN = st.text(st.sampled_from("ab \n\t漢é\u0301"), max_size=30)


@given(
    st.lists(st.tuples(st.booleans(), WRITTEN), max_size=12),
    st.integers(4, 12),
    st.integers(4, 8),
)
def test_nothing_of_any_canvas_is_left(
    moves: list[tuple[bool, str]], columns: int, height: int
) -> None:
    """In the end the screen has the final text, as if there had never been a picture."""
    drawing, plain = Drawing(columns, height), Screen(columns, height)
    for is_final, content in moves:
        if is_final:
            drawing.painter.write(content)
            plain.feed(content)
        else:
            drawing.painter.draw(picture(content))
            assert len(drawing.shown().splitlines()) >= len(plain.text.splitlines())
    drawing.painter.clear()
    assert drawing.shown() == plain.text


@given(WRITTEN, st.integers(4, 12))
def test_rows_are_those_of_a_terminal(content: str, columns: int) -> None:
    """Wide characters, combining marks and tabs included."""
    screen = Screen(columns)
    screen.feed(content)
    assert last_row(content, columns) == screen.text.split("\n")[-1]
    flat = content.replace("\t", " ")
    rows = wrapped("", [(flat, "")], columns)
    screen = Screen(columns)
    screen.feed(flat)
    assert ["".join(one for one, _ in row) for row in rows] == screen.text.split("\n")


def settling(request: object, context: grpc.ServicerContext) -> Events:
    """Two canvases, the second with two steps."""
    yield started()
    yield canvas("#a#i#", confidence=(0.1, 0.95, 0.1, 0.95, 0.1))
    yield canvas("Paris", step=2, last=True)
    yield delta("Paris")
    yield canvas("?", number=1)
    yield delta(".")
    yield finished()


def test_run_shows_how_the_answer_settles(inside: Inside, daemon: FakeDaemon) -> None:
    """Noise first, then the text; what stays on the terminal is the answer alone."""
    daemon.script.generate = settling
    code, seen = inside.on_terminal("run", "--watch-canvas", "Hi")
    assert code == 0
    assert "#\x1b[0ma\x1b[90m#\x1b[0mi" in seen
    assert "step 2 of 48, canvas 1" in seen
    screen = Screen()
    screen.feed(seen)
    assert screen.text == "Paris.\n"
    assert daemon.asked("Generate")[0].watch_canvas
    code, seen = inside.on_terminal("run", "--watch-canvas", "Hi", NO_COLOR="1")
    assert code == 0
    assert "#a#i#" in seen


@pytest.mark.parametrize("extra", [{}, {"TERM": "dumb"}])
def test_without_a_terminal_there_is_only_the_answer(
    inside: Inside, daemon: FakeDaemon, extra: dict[str, str]
) -> None:
    """The answer is as ever, it is said why, and the steps are not even asked for."""
    daemon.script.generate = settling
    done = inside("run", "--watch-canvas", "Hi", **extra)
    assert (done.returncode, done.stdout) == (0, "Paris.\n")
    assert done.stderr == "the canvas is not shown: that needs a terminal\n"
    assert not daemon.asked("Generate")[0].watch_canvas


def test_a_document_has_the_steps(inside: Inside, daemon: FakeDaemon) -> None:
    """Under their proto names, without a terminal and without a word about one."""
    daemon.script.generate = settling
    done = inside("run", "--watch-canvas", "--json", "Hi")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["text"] == "Paris."
    assert [one["text"] for one in document["canvases"]] == ["#a#i#", "Paris", "?"]
    assert document["canvases"][0]["text_offsets"] == [0, 1, 2, 3, 4]
    assert document["canvases"][1]["last"] is True
    assert "candidates" not in document


def test_an_error_is_not_written_into_the_picture(inside: Inside, daemon: FakeDaemon) -> None:
    """The picture goes away; the text so far stays, and the error has lines of its own."""

    def crashes(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("Par")
        yield canvas("####")
        abort(context, grpc.StatusCode.ABORTED, "ENGINE_CRASHED", "the worker ended")

    daemon.script.generate = crashes
    _, seen = inside.on_terminal("run", "--watch-canvas", "Hi", NO_COLOR="1")
    screen = Screen()
    screen.feed(seen)
    assert screen.text == "Par\nerror: the worker ended\n"
