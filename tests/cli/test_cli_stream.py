"""`gemctl run --json --stream`: every event as it comes, one JSON document a line."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.cli.failures import Exit
from gemd.v1.generation_service_pb2 import GenerateResponse as Response
from tests.support.daemon_says import (
    abort,
    canvas,
    delta,
    draft,
    ended,
    finished,
    loading,
    resolved,
    started,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

STREAM = ("run", "--json", "--stream")


def lines(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Kind and content of each line."""
    documents = [json.loads(line) for line in text.splitlines()]
    assert all(len(each) == 1 for each in documents)
    return [next(iter(each.items())) for each in documents]


def test_each_event_is_a_line_under_its_name_in_the_api(inside: Inside, daemon: FakeDaemon) -> None:
    """Loading, drafts and their verdict too; the last line is `finished`."""
    events = [
        Response(loading=loading(1, 4)),
        started("diffuser"),
        draft("Fish.", last=True),
        resolved("REPLACED"),
        delta("It is "),
        delta("größer\n."),
        ended("REPLACED"),
    ]
    daemon.script.generate = lambda _request, _context: iter(events)
    done = inside(*STREAM, "Hi")
    seen = lines(done.stdout)

    kinds = ["loading", "started", "draft", "resolved", "delta", "delta", "finished"]
    assert (done.returncode, [kind for kind, _ in seen]) == (0, kinds)
    assert seen[0][1]["current"] == 1
    assert seen[2][1] == {"candidate": 0, "model": "models/diffuser", "text": "Fish.", "last": True}
    assert seen[3][1]["resolution"] == "RESOLUTION_REPLACED"
    assert "".join(content["text"] for _, content in seen[4:6]) == "It is größer\n."
    assert seen[-1][1]["finish_reason"] == "FINISH_REASON_STOP"


def test_a_line_comes_with_its_event(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """While the daemon still writes, the reader has what it wrote."""
    read = threading.Event()

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        yield delta("first")
        assert read.wait(30)
        yield finished()

    daemon.script.generate = script
    with gemctl.start(*STREAM, "Hi") as process:
        assert process.stdout is not None
        assert '"started"' in process.stdout.readline()
        assert '"first"' in process.stdout.readline()
        read.set()
        assert '"finished"' in process.stdout.readline()
        assert process.wait() == 0


def test_the_end_of_the_program_is_the_end_of_the_answer(
    gemctl: Gemctl, daemon: FakeDaemon
) -> None:
    """An editor that ends the process cancels the call."""

    def script(_request: object, _context: object) -> Iterator[Any]:
        yield started()
        daemon.stream_ended.wait(30)

    daemon.script.generate = script
    with gemctl.start(*STREAM, "Hi") as process:
        assert process.stdout is not None
        assert '"started"' in process.stdout.readline()
        process.terminate()
        assert daemon.stream_ended.wait(30)


def test_denoising_steps_are_lines_too(inside: Inside, daemon: FakeDaemon) -> None:
    """Each once, and none is kept for a document at the end."""
    events = [started(), canvas("ab"), canvas("ac", step=2, last=True), delta("ac"), finished()]
    daemon.script.generate = lambda _request, _context: iter(events)
    done = inside(*STREAM, "--watch-canvas", "Hi")
    assert [kind for kind, _ in lines(done.stdout)].count("canvas") == 2


def test_an_error_is_the_last_line(inside: Inside, daemon: FakeDaemon) -> None:
    """With all that stderr and the exit code say; text that came before it stays."""

    def script(_request: object, context: grpc.ServicerContext) -> Iterator[Any]:
        yield delta("half")
        abort(
            context,
            grpc.StatusCode.NOT_FOUND,
            "MODEL_NOT_FOUND",
            "no model is called x",
            why="the catalogue has y",
            advice=["gemctl list"],
            metadata={"nearest": "y"},
        )

    daemon.script.generate = script
    done = inside(*STREAM, "Hi")
    kinds, last = [kind for kind, _ in lines(done.stdout)], lines(done.stdout)[-1][1]

    assert (done.returncode, kinds) == (Exit.NOT_FOUND, ["delta", "error"])
    assert last == {
        "reason": "MODEL_NOT_FOUND",
        "message": "no model is called x",
        "why": "the catalogue has y",
        "advice": ["gemctl list"],
        "metadata": {"nearest": "y"},
        "exit_code": Exit.NOT_FOUND,
    }
    assert "no model is called x" in done.stderr


@pytest.mark.parametrize(
    "broken,code",
    [({"GEMD_SOCKET": "/nowhere/gemd.sock"}, 3), ({"GEMD_SOCKET": "relative"}, 6)],
)
def test_so_is_what_gemctl_itself_could_not_do(
    inside: Inside, broken: dict[str, str], code: int
) -> None:
    """No daemon that may be started, or a setting that is wrong: a line, and not silence."""
    done = inside(*STREAM, "Hi", **broken)
    ((kind, content),) = lines(done.stdout)
    assert (kind, content["exit_code"], done.returncode) == ("error", code, code)
    assert content["message"] in done.stderr


def test_it_is_the_form_of_json(inside: Inside, daemon: FakeDaemon) -> None:
    """Without it there is one document; alone it is refused, because text streams anyway."""
    assert json.loads(inside("run", "--json", "Hi").stdout)["text"]
    refused = inside("run", "--stream", "Hi")
    assert (refused.returncode, refused.stdout) == (Exit.USAGE, "")
    assert "--json" in refused.stderr
