"""Several answers, reasoning and gaps: what `gemctl run` does with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.failures import CommandError, Exit
from gemd.cli.gaps import read_gaps
from gemd.client import Gap
from gemd.v1 import generation_pb2, generation_service_pb2
from tests.support.daemon_process import home, serving
from tests.support.daemon_says import canvas, delta, finished, started
from tests.support.gemctl import Inside
from tests.support.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import grpc

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl

    Events = Iterator[generation_service_pb2.GenerateResponse]


def says(*events: generation_service_pb2.GenerateResponse) -> Callable[..., Events]:
    """A script of Generate that sends these events."""

    def script(request: object, context: grpc.ServicerContext) -> Events:
        yield started()
        yield from events

    return script


def thought(text: str, candidate: int = 0) -> generation_service_pb2.GenerateResponse:
    """A piece of reasoning."""
    made = generation_pb2.Delta(candidate=candidate, reasoning_text=text)
    return generation_service_pb2.GenerateResponse(delta=made)


def end(candidate: int = 0) -> generation_service_pb2.GenerateResponse:
    """The end of one candidate."""
    event = finished()
    event.finished.candidate = candidate
    return event


# --- gaps -------------------------------------------------------------------------------


def test_a_text_is_cut_at_its_gaps() -> None:
    """With and without a length; everything else stays as it is, line ends included."""
    text = "def [[gap:8]](x):\r\n    return [[gap]]\n"
    assert read_gaps(text) == ["def ", Gap(8), "(x):\r\n    return ", Gap(0), "\n"]
    assert read_gaps("[[gap]][[gap:256]]") == [Gap(0), Gap(256)]
    assert read_gaps("[[ gap ]] [[x]] [gap] [[gap]]") == ["[[ gap ]] [[x]] [gap] ", Gap()]


@given(st.lists(st.one_of(st.text("a[]:\n", max_size=6), st.integers(0, 300)), max_size=8))
def test_gaps_are_where_they_were_written(parts: list[str | int]) -> None:
    """Whatever stands around them; put together again it is the same text."""
    written = "".join(
        part if isinstance(part, str) else f"[[gap:{part}]]" if part else "[[gap]]"
        for part in parts
    )
    gaps = [Gap(part) for part in parts if isinstance(part, int)]
    if not gaps:
        with pytest.raises(CommandError, match="no gap"):
            read_gaps(written)
        return
    read = read_gaps(written)
    assert [one for one in read if isinstance(one, Gap)] == gaps
    again = [
        one
        if isinstance(one, str)
        else f"[[gap:{one.max_tokens}]]"
        if one.max_tokens
        else "[[gap]]"
        for one in read
    ]
    assert "".join(again) == written


@pytest.mark.parametrize(
    "wrong", ["[[gap:0]]", "[[gap:x]]", "[[gap: 4]]", "[[gaps]]", "[[gap:-1]]"]
)
def test_a_gap_that_is_written_wrongly_is_shown(wrong: str) -> None:
    """It would stand in the answer as it is, which nobody means."""
    with pytest.raises(CommandError) as caught:
        read_gaps(f"one\ntwo [[gap]] {wrong}")
    assert caught.value.message == f"line 2 of the text has {wrong}"
    assert "[[gap:40]]" in caught.value.why


def spans_of(daemon: FakeDaemon) -> list[tuple[str, str | int]]:
    """The spans of the last request."""
    spans = daemon.asked("Generate")[-1].spans
    return [
        (kind, span.fixed_text if kind == "fixed_text" else span.free.max_tokens)
        for span in spans
        if (kind := span.WhichOneof("span"))
    ]


def test_a_file_is_filled_and_comes_out_whole(
    inside: Inside, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """What is piped on is that text to its last byte; without a PROMPT there is a plain one."""
    file = tmp_path / "main.py"
    file.write_text("def [[gap:8]](x):\n    pass", encoding="utf-8")
    daemon.script.generate = says(delta("def f(x):\n"), delta("    pass"), end())
    done = inside("run", "--fill", str(file), "Name it.")
    assert (done.returncode, done.stdout, done.stderr) == (0, "def f(x):\n    pass", "")
    assert spans_of(daemon) == [
        ("fixed_text", "def "),
        ("free", 8),
        ("fixed_text", "(x):\n    pass"),
    ]
    chat = daemon.asked("Generate")[-1].chat
    assert chat.messages[-1].parts[0].text == "Name it."
    inside("run", "--fill", str(file))
    chat = daemon.asked("Generate")[-1].chat
    assert chat.messages[-1].parts[0].text == "Fill in the gaps of the text."


def test_what_is_piped_in_beside_a_file_is_part_of_the_prompt(
    gemctl: Gemctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """As without a text to fill, with a PROMPT and without one."""
    daemon.script.generate = says(delta("a b"), end())
    file = tmp_path / "text"
    file.write_text("a [[gap]]")
    for prompt, asked in (
        (["Please."], "Please.\n\nin French"),
        ([], "Fill in the gaps of the text.\n\nin French"),
    ):
        gemctl("run", "--fill", str(file), *prompt, stdin="in French")
        assert daemon.asked("Generate")[-1].chat.messages[-1].parts[0].text == asked


def test_a_text_is_filled_from_standard_input(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """It is the text then, and never a part of the prompt."""
    daemon.script.generate = says(delta("a b"), end())
    done = gemctl("run", "--fill", "-", "Please.", stdin="a [[gap]]")
    assert (done.returncode, done.stdout) == (0, "a b")
    assert spans_of(daemon) == [("fixed_text", "a "), ("free", 0)]
    assert daemon.asked("Generate")[-1].chat.messages[-1].parts[0].text == "Please."


@pytest.mark.parametrize(
    "content,says_",
    [("no gap at all", "has no gap"), ("[[gap:0]]", "line 1"), (b"\xff[[gap]]", "not UTF-8")],
)
def test_a_text_that_cannot_be_filled_is_refused(
    inside: Inside, daemon: FakeDaemon, tmp_path: Path, content: str | bytes, says_: str
) -> None:
    """Before anything is asked."""
    file = tmp_path / "text"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = inside("run", "--fill", str(file), "Hi")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert says_ in done.stderr
    assert daemon.requests == []


@pytest.mark.parametrize(
    "options,says_",
    [
        (["--max-tokens", "9", "Hi"], "[[gap:40]]"),
        (["--stop", "x", "Hi"], "no --stop"),
        (["--raw"], "needs a PROMPT"),
    ],
)
def test_what_does_not_go_with_a_text_is_refused(
    inside: Inside, daemon: FakeDaemon, tmp_path: Path, options: list[str], says_: str
) -> None:
    """In the words of the command line, and before anything is asked."""
    file = tmp_path / "text"
    file.write_text("a [[gap]]")
    done = inside("run", "--fill", str(file), *options)
    assert done.returncode == Exit.USAGE
    assert says_ in done.stderr
    assert daemon.requests == []


def test_a_file_that_is_not_there_is_named(inside: Inside, tmp_path: Path) -> None:
    """As is a second use of standard input."""
    done = inside("run", "--fill", str(tmp_path / "nothing"), "Hi")
    assert done.returncode == Exit.USAGE
    assert f"{tmp_path / 'nothing'} cannot be read" in done.stderr
    done = inside("run", "--fill", "-", "-")
    assert done.returncode == Exit.USAGE
    assert "cannot be both" in done.stderr


# --- reasoning --------------------------------------------------------------------------


def test_reasoning_goes_to_stderr(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Marked, dimmed on a terminal, and before the answer, which is all of stdout."""
    daemon.script.generate = says(thought("well, "), thought("well"), delta("42"), end())
    done = gemctl("run", "--thinking", "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "thinking: well, well\n")
    assert daemon.asked("Generate")[-1].thinking
    code, seen = gemctl.on_terminal("run", "--no-thinking", "Hi")
    assert code == 0
    assert "\x1b[2mthinking: \x1b[0m\x1b[2mwell, \x1b[0m" in seen
    assert seen.endswith("42\n")
    request = daemon.asked("Generate")[-1]
    assert request.HasField("thinking")
    assert not request.thinking
    gemctl("run", "Hi")
    assert not daemon.asked("Generate")[-1].HasField("thinking")


def test_reasoning_and_canvas_do_not_overwrite_each_other(
    gemctl: Gemctl, daemon: FakeDaemon
) -> None:
    """A picture goes before more is thought or said; a thought of two canvases is one thought."""
    events = [canvas("####"), thought("hm"), canvas("##", number=1), thought(" so"), delta("42")]
    daemon.script.generate = says(*events, end())
    _, seen = gemctl.on_terminal("run", "--watch-canvas", "Hi", NO_COLOR="1")
    screen = Screen()
    screen.feed(seen)
    assert screen.text == "thinking: hm so\n42\n"


# --- candidates -------------------------------------------------------------------------

INTERLEAVED = [
    delta("one"),
    delta("TWO", 1),
    thought("hm", 2),
    delta("THREE\n", 2),
    end(2),
    delta(" more"),
    end(0),
    delta(" MORE", 1),
    end(1),
]


def test_answers_are_apart_and_in_order(inside: Inside, daemon: FakeDaemon) -> None:
    """Each under its heading, however their pieces come."""
    daemon.script.generate = says(*INTERLEAVED)
    done = inside("run", "--candidates", "3", "Hi")
    assert done.returncode == 0
    assert done.stdout == (
        "answer 1 of 3\none more\n\nanswer 2 of 3\nTWO MORE\n\nanswer 3 of 3\nTHREE\n"
    )
    assert done.stderr == "thinking: hm\n"
    assert daemon.asked("Generate")[-1].candidates == 3


def test_the_first_answer_appears_while_it_is_written(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """The others as soon as those before them are complete; a picture is of the one on show."""
    events = [canvas("##", candidate=1), canvas("##"), delta("a"), delta("b", 1), end(1), end(0)]
    daemon.script.generate = says(*events)
    _, seen = gemctl.on_terminal("run", "--candidates", "2", "--watch-canvas", "Hi", NO_COLOR="1")
    assert seen.count("##") == 1
    screen = Screen()
    screen.feed(seen)
    assert screen.text == "answer 1 of 2\na\n\nanswer 2 of 2\nb\n"


def test_an_answer_without_text_has_its_heading(inside: Inside, daemon: FakeDaemon) -> None:
    """So that nobody takes the next one for it."""
    daemon.script.generate = says(end(0), delta("b", 1), end(1))
    done = inside("run", "--candidates", "2", "Hi")
    assert done.stdout == "answer 1 of 2\n\nanswer 2 of 2\nb\n"


def test_a_document_lists_all_answers(inside: Inside, daemon: FakeDaemon) -> None:
    """In their order with their figures; the first one stands where a single one does."""
    daemon.script.generate = says(*INTERLEAVED)
    document = json.loads(inside("run", "--candidates", "3", "--json", "Hi").stdout)
    assert document["text"] == "one more"
    assert [one["text"] for one in document["candidates"]] == ["one more", "TWO MORE", "THREE\n"]
    assert document["candidates"][2]["reasoning_text"] == "hm"
    assert [one["finished"]["candidate"] for one in document["candidates"]] == [0, 1, 2]


def test_stats_are_of_every_answer(inside: Inside, daemon: FakeDaemon) -> None:
    """A line each, with the denoising steps where there were some; the request's id is one."""
    last = end(1)
    last.finished.usage.denoising_steps = 12
    daemon.script.generate = says(delta("a"), end(0), delta("b", 1), last)
    lines = inside("run", "--candidates", "2", "--stats", "Hi").stderr.splitlines()
    assert ["12 denoising steps" in line for line in lines] == [False, True, False]


# --- a real daemon ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Iterator[Inside]:
    """A daemon whose scripted worker plays a block-diffusion model."""
    with home() as made, serving(made):
        yield Inside(made.environ(GEMD_SOCKET=str(made.socket)))


def test_all_of_it_comes_through_a_real_daemon(real: Inside, tmp_path: Path) -> None:
    """From the worker's messages to the terminal: gaps, answers, reasoning and the canvas."""
    file = tmp_path / "text"
    file.write_text("The capital of [[gap]] is [[gap:3]].\n", encoding="utf-8")
    fill: dict[str, Any] = {"fill": ["France", "Paris"], "reasoning": ["I know"]}
    done = real("run", "--raw", "--fill", str(file), json.dumps(fill))
    assert (done.returncode, done.stdout) == (0, "The capital of France is Paris.\n"), done.stderr
    assert done.stderr.endswith("thinking: I know\n")

    several = json.dumps({"candidates": [["a", "b"], ["c"]], "tokens": ["d"]})
    done = real("run", "--raw", "--candidates", "3", several)
    assert done.stdout == "answer 1 of 3\nab\n\nanswer 2 of 3\nc\n\nanswer 3 of 3\nd\n"

    steps = json.dumps({"tokens": ["Par", "is"], "canvas_steps": 3})
    code, seen = real.on_terminal("run", "--raw", "--watch-canvas", steps, NO_COLOR="1")
    assert code == 0
    assert "step 3 of 3, canvas 2" in seen
    screen = Screen()
    screen.feed(seen)
    assert screen.text == "Paris\n"

    document = json.loads(real("run", "--raw", "--json", "--watch-canvas", steps).stdout)
    assert document["canvases"][-1]["text"] == "is"
    assert document["text"] == "Paris"
