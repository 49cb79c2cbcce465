"""Drafts in `gemctl run`: provisional on a terminal, elsewhere unseen, dropped with a word."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from gemd.v1 import generation_pb2, generation_service_pb2, model_pb2
from tests.support.daemon_says import abort, canvas, delta, draft, ended, loading, resolved, started
from tests.support.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

    Response = generation_service_pb2.GenerateResponse
    Events = Iterator[Response]


def says(*events: Response) -> Callable[..., Events]:
    """A script of Generate that sends these events."""

    def script(request: object, context: grpc.ServicerContext) -> Events:
        yield started("diffuser")
        yield from events

    return script


KEPT = [
    draft("The answer "),
    draft("is 42.", last=True),
    resolved("KEPT", why="risk 0.12 of at most 0.35"),
    delta("The answer is 42."),
    ended("KEPT"),
]
REPLACED = [
    draft("The answer is\nfish."),
    resolved("REPLACED"),
    delta("It is "),
    delta("42."),
    ended("REPLACED"),
]
CONTINUED = [
    draft("Es ist größer, fish"),
    resolved("CONTINUED", kept="Es ist größer"),
    delta("Es ist größer"),
    delta(" als 41."),
    ended("CONTINUED"),
]


def screen_of(seen: str) -> str:
    """What stands on a terminal after this output."""
    screen = Screen()
    screen.feed(seen)
    return screen.text


@pytest.mark.parametrize(
    "events,text,notes",
    [
        (KEPT, "The answer is 42.\n", ""),
        (REPLACED, "It is 42.\n", "the draft of diffuser was replaced: it is unlikely\n"),
        (CONTINUED, "Es ist größer als 41.\n", ""),
    ],
)
def test_only_the_answer_goes_into_a_pipe(
    inside: Inside, daemon: FakeDaemon, events: list[Response], text: str, notes: str
) -> None:
    """Not a letter of a draft; one that another model replaced is told of on stderr."""
    daemon.script.generate = says(*events)
    done = inside("run", "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, text, notes)


def test_nor_does_a_draft_go_to_a_terminal_that_cannot_draw(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """It could not be taken away there."""
    daemon.script.generate = says(*REPLACED)
    _, seen = inside.on_terminal("run", "Hi", TERM="dumb", NO_COLOR="1")
    assert seen == "the draft of diffuser was replaced: it is unlikely\nIt is 42.\n"


def test_a_kept_draft_is_shown_at_once_and_then_as_the_answer(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """Dimmed while it is provisional, plain when it is not; only the answer stays."""
    daemon.script.generate = says(*KEPT)
    code, seen = inside.on_terminal("run", "Hi")
    assert code == 0
    assert "\x1b[2mThe answer is 42.\x1b[0m\n\x1b[2mdraft of diffuser, not checked yet" in seen
    assert screen_of(seen) == "The answer is 42.\n"


def test_a_continued_draft_keeps_its_beginning_on_show(inside: Inside, daemon: FakeDaemon) -> None:
    """From the verdict on, what stays is plain and the rest is gone, which is said."""
    daemon.script.generate = says(*CONTINUED)
    _, seen = inside.on_terminal("run", "Hi")
    _, _, after = seen.partition("the draft of diffuser was continued: it is unlikely")
    assert "fish" not in after
    assert "Es ist größer\n\x1b[2mchecked" in after
    assert screen_of(seen) == (
        "the draft of diffuser was continued: it is unlikely\nEs ist größer als 41.\n"
    )


def test_a_replaced_draft_goes_away(inside: Inside, daemon: FakeDaemon) -> None:
    """With a word about it, and without a trace of its text."""
    daemon.script.generate = says(*REPLACED)
    _, seen = inside.on_terminal("run", "Hi", NO_COLOR="1")
    assert "fish." in seen
    assert screen_of(seen) == "the draft of diffuser was replaced: it is unlikely\nIt is 42.\n"


def test_a_model_that_failed_on_the_way_is_named(inside: Inside, daemon: FakeDaemon) -> None:
    """In the words of its error."""
    event = resolved("REPLACED", why="the drafter failed")
    event.resolved.failure.message = "the worker of diffuser ended with signal 11"
    daemon.script.generate = says(event, delta("42"), ended("REPLACED"))
    done = inside("run", "Hi")
    assert done.stderr == (
        "the draft was replaced: the drafter failed (the worker of diffuser ended with signal 11)\n"
    )


def test_the_verdict_is_short_and_stats_have_its_numbers(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """Who only wants the answer reads one clause, and nothing twice."""
    event = resolved("REPLACED", why="fish failed (signal 11), at risk 0.5; most of it: prior 0.4")
    event.resolved.failure.message = "signal 11"
    daemon.script.generate = says(event, delta("42"), ended("REPLACED"))
    assert inside("run", "Hi").stderr == "the draft was replaced: fish failed (signal 11)\n"
    _, _, way, _ = inside("run", "--stats", "Hi").stderr.splitlines()
    assert way.endswith(": fish failed (signal 11), at risk 0.5; most of it: prior 0.4")


def test_progress_and_a_draft_do_not_overwrite_each_other(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """The checker is loaded while the draft is on show; nothing of either is left."""
    load = generation_service_pb2.GenerateResponse(loading=loading(5, 10))
    wait = generation_service_pb2.GenerateResponse(
        queued=model_pb2.Queued(model="models/smollm2-135m", position=2)
    )
    first, last, *rest = KEPT
    daemon.script.generate = says(first, load, last, wait, load, *rest)
    _, seen = inside.on_terminal("run", "Hi", NO_COLOR="1")
    assert "loading smollm2-135m" in seen
    assert screen_of(seen) == "The answer is 42.\n"


def test_the_canvas_of_a_draft_stands_behind_it(inside: Inside, daemon: FakeDaemon) -> None:
    """What earlier canvases brought stays on show while the next one settles."""
    events = [canvas("##"), draft("4"), canvas("##", number=1), draft("2", last=True)]
    daemon.script.generate = says(*events, resolved("KEPT"), delta("42"), ended("KEPT"))
    _, seen = inside.on_terminal("run", "--watch-canvas", "Hi", NO_COLOR="1")
    assert "4##" in seen
    assert screen_of(seen) == "42\n"


def test_each_candidate_has_its_draft(inside: Inside, daemon: FakeDaemon) -> None:
    """Under its heading, when it is its turn."""
    daemon.script.generate = says(
        draft("b", 1),
        draft("a"),
        resolved("REPLACED", candidate=1, why="one"),
        resolved("KEPT"),
        delta("a"),
        delta("B", 1),
        ended("REPLACED", 1),
        ended("KEPT"),
    )
    _, seen = inside.on_terminal("run", "--candidates", "2", "Hi", NO_COLOR="1")
    assert screen_of(seen) == (
        "answer 1 of 2\na\n\nanswer 2 of 2\nthe draft of diffuser was replaced: one\nB\n"
    )


@pytest.mark.parametrize("after", [0, 1])
def test_ctrl_c_leaves_nothing_provisional(gemctl: Gemctl, daemon: FakeDaemon, after: int) -> None:
    """Neither before the verdict nor after it: what is left is the echo of the key, if that."""
    shown = threading.Event()

    def stalls(request: object, context: grpc.ServicerContext) -> Events:
        yield started("diffuser")
        yield draft("fish")
        yield from [resolved("KEPT")][:after]
        context.add_callback(shown.set)
        shown.wait(30)

    daemon.script.generate = stalls
    typed: list[str] = []

    def interrupt(seen: str, type_: Callable[[str], None]) -> None:
        if not typed and ("checked yet", "checked\x1b")[after] in seen:
            typed.append("^C")
            type_("\x03")

    code, seen = replace(gemctl, interrupts=True).on_terminal("run", "Hi", react=interrupt)
    assert code == Exit.INTERRUPTED
    assert "fish" in seen
    assert "fish" not in screen_of(seen)
    assert screen_of(seen).strip("^C\n") == ""


def test_an_error_takes_the_draft_away(inside: Inside, daemon: FakeDaemon) -> None:
    """It never became an answer."""

    def crashes(request: object, context: grpc.ServicerContext) -> Events:
        yield draft("fish")
        abort(context, grpc_code(), "ENGINE_CRASHED", "the worker ended")

    daemon.script.generate = crashes
    _, seen = inside.on_terminal("run", "Hi", NO_COLOR="1")
    assert screen_of(seen) == "error: the worker ended\n"


def grpc_code() -> grpc.StatusCode:
    """ABORTED: trying again would not go unnoticed."""
    import grpc as grpc_  # noqa: PLC0415 - only this test needs more than its types

    return grpc_.StatusCode.ABORTED


# --- what is told about it ----------------------------------------------------------------


@pytest.mark.parametrize(
    "events,said",
    [
        (
            KEPT,
            "8 of 8 tokens kept, kept: risk 0.12 of at most 0.35",
        ),
        (
            CONTINUED,
            "2 of 8 tokens kept, continued by smollm2-135m: it is unlikely",
        ),
    ],
)
def test_stats_tell_the_way(
    inside: Inside, daemon: FakeDaemon, events: list[Response], said: str
) -> None:
    """Who drafted in which time, who checked with which result, and the request's id."""
    daemon.script.generate = says(*events)
    _, way, request = inside("run", "--stats", "Hi").stderr.splitlines()
    assert way.startswith("drafted by diffuser")
    assert way.endswith(f", checked by smollm2-135m (risk 0.12), {said}")
    assert ("drafted by diffuser in " in way) is events[1].draft.last
    assert request == "request r-1"


def test_stats_of_a_draft_that_nobody_else_checked(inside: Inside, daemon: FakeDaemon) -> None:
    """Its own signals have judged it."""
    end = ended("KEPT")
    end.finished.route.checker = ""
    daemon.script.generate = says(*KEPT[:-1], end)
    assert ", judged by its own signals (risk 0.12), 8 of" in inside("run", "-v", "Hi").stderr


def test_stats_of_a_draft_that_failed_name_no_checker(inside: Inside, daemon: FakeDaemon) -> None:
    """There was nothing to check."""
    end = ended("REPLACED")
    end.finished.route.ClearField("draft_risk")
    end.finished.route.drafted_tokens = 0
    daemon.script.generate = says(resolved("REPLACED"), delta("a"), end)
    way = inside("run", "-v", "Hi").stderr.splitlines()[2]
    assert way == "drafted by diffuser, replaced by smollm2-135m: it is unlikely"


def test_stats_of_other_ways(inside: Inside, daemon: FakeDaemon) -> None:
    """Without a draft there is only the reason; what was speculated is counted."""
    end = ended("KEPT")
    end.finished.route.ClearField("resolution")
    end.finished.route.strategy = generation_pb2.Route.STRATEGY_DIRECT
    end.finished.route.explanation = "it is long"
    daemon.script.generate = says(delta("a"), end)
    assert inside("run", "-v", "Hi").stderr.splitlines()[1] == "answered directly: it is long"
    end.finished.route.strategy = generation_pb2.Route.STRATEGY_SPECULATE
    end.finished.route.model = "models/strong"
    end.finished.route.accepted_tokens = 6
    assert inside("run", "-v", "Hi").stderr.splitlines()[1] == (
        "drafted by diffuser ahead of strong, which took 6 of 8 tokens: it is long"
    )
    end.finished.route.drafted_tokens = 0
    assert "ahead of strong, which took nothing of it: it" in inside("run", "-v", "Hi").stderr


def test_a_ranked_answer_has_its_rank(inside: Inside, daemon: FakeDaemon) -> None:
    """And the score that it was ranked by."""
    end = ended("KEPT")
    end.finished.rank, end.finished.score = 1, -0.25
    daemon.script.generate = says(delta("a"), end)
    done = inside("run", "--best-of", "8", "--tier", "fast", "--mode", "exact", "-v", "Hi")
    assert "rank 1 (score -0.25)" in done.stderr
    (request,) = daemon.asked("Generate")
    assert (request.best_of, request.tier) == (8, model_pb2.TIER_FAST)
    assert request.mode == generation_pb2.MODE_EXACT


def test_a_model_and_a_tier_are_one_too_many(inside: Inside, daemon: FakeDaemon) -> None:
    """It is said before anything is asked."""
    done = inside("run", "--model", "m", "--tier", "fast", "Hi")
    assert done.returncode == Exit.USAGE
    assert "--tier cannot name another one" in done.stderr
    assert daemon.requests == []


def test_the_best_of_fewer_than_are_wanted_cannot_be_chosen(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """Nor is it asked for; as many are ranked."""
    done = inside("run", "--best-of", "2", "--candidates", "3", "Hi")
    assert done.returncode == Exit.USAGE
    assert "--best-of has to be at least --candidates" in done.stderr
    assert daemon.requests == []
    assert inside("run", "--best-of", "3", "--candidates", "3", "Hi").returncode == 0


def test_a_document_has_the_draft_beside_the_answer(inside: Inside, daemon: FakeDaemon) -> None:
    """With the verdict on it; the way is where Finished has it."""
    daemon.script.generate = says(*REPLACED)
    document = json.loads(inside("run", "--json", "Hi").stdout)
    assert document["text"] == "It is 42."
    assert document["draft"]["text"] == "The answer is\nfish."
    assert document["draft"]["resolved"]["resolution"] == "RESOLUTION_REPLACED"
    assert document["finished"]["route"]["checker"] == "models/smollm2-135m"
    assert document["finished"]["route"]["draft_risk"] == 0.125
