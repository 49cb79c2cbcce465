"""`gemctl batch` as a user meets it: files, errors, interruptions, and a real daemon."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.cli.failures import Exit
from gemd.v1 import generation_pb2, generation_service_pb2, model_pb2
from tests.support.daemon_says import abort, delta, finished, model, started
from tests.support.desktop import wait_until
from tests.support.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.gemctl import Gemctl, Inside

    Events = Iterator[generation_service_pb2.GenerateResponse]

pytestmark = pytest.mark.usefixtures("hasty")


def prompt_of(request: Any) -> str:
    """The last message of a request."""
    return str(request.chat.messages[-1].parts[0].text)


def echo(request: Any, context: grpc.ServicerContext) -> Events:
    """A script of Generate that says the prompt, or fails as the prompt says."""
    prompt = prompt_of(request)
    if prompt == "bad":
        abort(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "no", why="bad")
    yield started()
    yield delta(f"<{prompt}>")
    yield finished()


@pytest.fixture
def file(home: Path, daemon: FakeDaemon) -> Path:
    """Five jobs, the third of which fails."""
    daemon.script.generate = echo
    path = home / "jobs.jsonl"
    prompts = ("a", "b", "bad", "d", "é")
    path.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in prompts))
    return path


def records(text: str) -> list[dict[str, Any]]:
    """Results."""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_results_come_in_the_order_of_the_jobs(
    inside: Inside, daemon: FakeDaemon, file: Path
) -> None:
    """On standard output without -o; one that failed has its error, and the exit code says so."""
    done = inside("batch", str(file), "--jobs", "3")
    assert done.returncode == Exit.FAILURE
    found = records(done.stdout)
    assert [one["id"] for one in found] == [1, 2, 3, 4, 5]
    assert [one.get("text") for one in found] == ["<a>", "<b>", None, "<d>", "<é>"]
    assert found[0]["request_id"] == "r-1"
    assert found[0]["usage"]["completion_tokens"] == 8
    assert found[0]["route"]["model"] == "models/smollm2-135m"
    assert found[2]["error"] == {
        "reason": "INVALID_REQUEST",
        "message": "no",
        "why": "bad",
        "advice": [],
        "metadata": {},
    }
    assert done.stderr.endswith("\n1 job of 5 failed\n")
    assert all(
        each.priority == generation_pb2.PRIORITY_BACKGROUND for each in daemon.asked("Generate")
    )


def test_a_file_of_results_is_gone_on_with(
    inside: Inside, daemon: FakeDaemon, file: Path, home: Path
) -> None:
    """The second time nothing is asked; with --retry-failed, what failed is."""
    out = home / "out.jsonl"
    done = inside("batch", str(file), "-o", str(out))
    assert (done.returncode, done.stdout) == (Exit.FAILURE, "")
    assert f"to run what failed again: gemctl batch {file} -o {out} --retry-failed" in done.stderr
    before = out.read_text()
    asked = len(daemon.asked("Generate"))
    done = inside("batch", str(file), "-o", str(out))
    assert done.returncode == Exit.FAILURE
    assert "all 5 jobs were done before" in done.stderr
    assert (out.read_text(), len(daemon.asked("Generate"))) == (before, asked)

    daemon.script.generate = lambda *_: iter([delta("now"), finished()])
    done = inside("batch", str(file), "-o", str(out), "--retry-failed")
    assert done.returncode == Exit.OK
    assert "1 job in " in done.stderr
    texts = [one["text"] for one in records(out.read_text())]
    assert texts == ["<a>", "<b>", "now", "<d>", "<é>"]
    assert len(daemon.asked("Generate")) == asked + 1
    assert not (home / "out.jsonl.journal").exists()


def test_a_changed_file_is_refused(inside: Inside, file: Path, home: Path) -> None:
    """Its results would stand beside jobs that they are not of."""
    out = home / "out.jsonl"
    inside("batch", str(file), "-o", str(out))
    file.write_text(file.read_text().replace('"b"', '"c"'))
    done = inside("batch", str(file), "-o", str(out))
    assert done.returncode == Exit.PRECONDITION
    assert "the job of line 2 is not the one that result 2 is of" in done.stderr
    assert f"rm {out}" in done.stderr


def test_every_field_reaches_the_daemon(inside: Inside, daemon: FakeDaemon, home: Path) -> None:
    """And what a job leaves open is the command line's, or the daemon's."""
    daemon.script.generate = echo
    file = home / "jobs"
    full = {
        "prompt": "p",
        "system": "s",
        "tier": "strong",
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.25,
        "seed": 2**64 - 1,
        "stop": ["x", "y"],
        "thinking": False,
        "candidates": 1,
        "best_of": 2,
    }
    file.write_text(json.dumps(full) + '\n{"prompt": "q"}\n')
    options = ("--model", "smollm2-135m", "--mode", "best", "--jobs", "1")
    done = inside("batch", str(file), *options)
    assert done.returncode == 0, done.stderr
    asked, plain = daemon.asked("Generate")
    assert [message.parts[0].text for message in asked.chat.messages] == ["s", "p"]
    assert (asked.WhichOneof("target"), asked.tier) == ("tier", model_pb2.TIER_STRONG)
    assert (asked.sampling.max_tokens, asked.sampling.seed) == (5, 2**64 - 1)
    assert (asked.sampling.temperature, asked.sampling.top_p) == (0, 0.5)
    assert (asked.sampling.top_k, asked.sampling.min_p) == (3, 0.25)
    assert list(asked.sampling.stop) == ["x", "y"]
    assert (asked.thinking, asked.candidates, asked.best_of) == (False, 1, 2)
    assert (plain.model, plain.mode) == ("smollm2-135m", generation_pb2.MODE_BEST)
    assert not plain.HasField("thinking")
    assert not plain.sampling.HasField("temperature")


def test_no_more_jobs_run_at_once_than_are_wanted(
    inside: Inside, daemon: FakeDaemon, home: Path
) -> None:
    """But as many, where there are as many: they wait for each other here."""
    together = threading.Barrier(3, timeout=30)
    running = Counter[str]()

    def script(request: Any, context: grpc.ServicerContext) -> Events:
        running["now"] += 1
        running["most"] = max(running["most"], running["now"])
        together.wait()
        running["now"] -= 1
        yield from echo(request, context)

    daemon.script.generate = script
    file = home / "jobs"
    file.write_text('{"prompt": "p"}\n' * 9)
    assert inside("batch", str(file), "--jobs", "3").returncode == 0
    assert running["most"] == 3


def test_jobs_of_one_model_run_one_after_the_other(
    inside: Inside, daemon: FakeDaemon, home: Path
) -> None:
    """Whatever the order of the file, which is that of the results."""
    daemon.script.generate = echo
    daemon.script.models = {name: model(name) for name in "mn"}
    file = home / "jobs"
    file.write_text("".join(json.dumps({"prompt": "p", "model": name}) + "\n" for name in "mnmnmn"))
    done = inside("batch", str(file), "--jobs", "2")
    assert [one["id"] for one in records(done.stdout)] == [1, 2, 3, 4, 5, 6]
    assert [request.model for request in daemon.asked("Generate")] == list("mmmnnn")


def test_a_daemon_that_is_full_is_asked_again(
    inside: Inside, daemon: FakeDaemon, file: Path
) -> None:
    """When it says so; nothing of that is a result."""
    refused = itertools.count()

    def script(request: Any, context: grpc.ServicerContext) -> Events:
        if next(refused) < 2:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            abort(context, code, "QUEUE_FULL", "256 wait", retry_after=0.05)
        yield from echo(request, context)

    daemon.script.generate = script
    found = records(inside("batch", str(file), "--jobs", "1").stdout)
    assert [one.get("text") for one in found] == ["<a>", "<b>", None, "<d>", "<é>"]
    assert len(daemon.asked("Generate")) == 7


def test_a_crash_is_tried_again_and_then_told(
    inside: Inside, daemon: FakeDaemon, home: Path
) -> None:
    """Also after the first text, of which nothing is kept."""

    def crashes(request: Any, context: grpc.ServicerContext) -> Events:
        yield delta("half")
        abort(context, grpc.StatusCode.ABORTED, "ENGINE_CRASHED", "the worker ended")

    daemon.script.generate = crashes
    file = home / "jobs"
    file.write_text('{"prompt": "p"}\n')
    done = inside("batch", str(file))
    (found,) = records(done.stdout)
    assert found["error"]["reason"] == "ENGINE_CRASHED"
    assert "text" not in found
    assert len(daemon.asked("Generate")) == 3


def test_waiting_for_a_full_daemon_is_no_crash(
    inside: Inside, daemon: FakeDaemon, home: Path
) -> None:
    """A job that was refused for a while has all its tries when its worker crashes."""
    refusals = iter(("QUEUE_FULL", "QUEUE_FULL", "ENGINE_CRASHED"))

    def script(request: Any, context: grpc.ServicerContext) -> Events:
        reason = next(refusals, "")
        if reason:
            abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, reason, "not now")
        yield from echo(request, context)

    daemon.script.generate = script
    file = home / "jobs"
    file.write_text('{"prompt": "p"}\n')
    (found,) = records(inside("batch", str(file)).stdout)
    assert found["text"] == "<p>"


def test_a_daemon_that_comes_back_is_waited_for(
    gemctl: Gemctl, daemon: FakeDaemon, file: Path, socket: Path
) -> None:
    """The job that it was at is asked again of the next one; no result is an error of that."""
    never = threading.Event()

    def stalls(request: Any, context: grpc.ServicerContext) -> Events:
        if prompt_of(request) == "d":
            context.add_callback(never.set)
            never.wait(30)
        yield from echo(request, context)

    daemon.script.generate = stalls
    process = gemctl.start("batch", str(file), "--jobs", "1")
    wait_until(lambda: len(daemon.asked("Generate")) == 4, what="the fourth job")
    daemon.stop()
    with FakeDaemon(socket) as after:
        after.script.generate = echo
        written, _ = process.communicate(timeout=60)
        assert [prompt_of(request) for request in after.asked("Generate")] == ["d", "é"]
    texts = [one.get("text") for one in records(written)]
    assert texts == ["<a>", "<b>", None, "<d>", "<é>"]


def test_a_model_that_is_not_there_fails_no_jobs(
    inside: Inside, daemon: FakeDaemon, home: Path
) -> None:
    """A slip would fail them all: it is said once, and nothing is written."""
    daemon.script.models = {"m": model("m", state="ABSENT")}
    file, out = home / "jobs", home / "out"
    file.write_text('{"prompt": "p"}\n{"prompt": "p", "model": "n"}\n')
    done = inside("batch", str(file), "-o", str(out))
    assert done.returncode == Exit.NOT_FOUND
    assert "no model is called n" in done.stderr
    file.write_text('{"prompt": "p", "model": "m"}\n')
    done = inside("batch", str(file), "-o", str(out))
    assert (done.returncode, out.read_text()) == (Exit.NOT_FOUND, "")
    assert "try: gemctl pull m" in done.stderr
    assert daemon.asked("Generate") == []

    def missing(request: Any, context: grpc.ServicerContext) -> Events:
        abort(context, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "nothing is on disk")
        yield

    daemon.script.generate = missing
    file.write_text('{"prompt": "p"}\n' * 9)
    done = inside("batch", str(file), "-o", str(out), "--jobs", "1")
    assert (done.returncode, out.read_text()) == (Exit.NOT_FOUND, "")
    assert "error: nothing is on disk" in done.stderr
    assert "stopped after 0 of 9 jobs" in done.stderr
    assert len(daemon.asked("Generate")) == 1


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["--jobs", "0"], "--jobs has to be 1 or more"),
        (["--retry-failed"], "--retry-failed needs -o"),
        (["-o", "FILE"], "OUT is FILE itself"),
        (["--mode", "quick"], "'quick' is not one of"),
    ],
)
def test_a_wrong_command_line_runs_nothing(
    inside: Inside, daemon: FakeDaemon, file: Path, arguments: list[str], says: str
) -> None:
    """And leaves all files as they are."""
    before = file.read_text()
    done = inside("batch", str(file), *(str(file) if one == "FILE" else one for one in arguments))
    assert done.returncode == Exit.USAGE
    assert says in done.stderr
    assert (file.read_text(), daemon.requests) == (before, [])


def test_a_mistake_in_the_file_runs_nothing(
    inside: Inside, daemon: FakeDaemon, file: Path, home: Path
) -> None:
    """Not even the daemon is needed for it, and no file of results is made."""
    file.write_text(file.read_text() + '{"promt": "x"}\n')
    done = inside("batch", str(file), "-o", str(home / "out"))
    assert done.returncode == Exit.USAGE
    assert "line 6: a job has no field 'promt'; did you mean 'prompt'?" in done.stderr
    assert not (home / "out").exists()
    assert daemon.requests == []


def test_jobs_may_be_piped_in(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """And a reader that leaves ends the batch."""
    daemon.script.generate = echo
    done = gemctl("batch", "-", stdin='{"prompt": "p"}\n')
    assert [one["text"] for one in records(done.stdout)] == ["<p>"]
    lines = json.dumps({"prompt": "p" * 50_000}) + "\n"
    gone = subprocess.run(
        ["sh", "-c", f"{' '.join(map(str, done.args[:3]))} batch - --jobs 1 | head -c 9"],
        env=dict(gemctl.environ),
        input=lines * 40,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert gone.stdout == '{"id": 1,'
    assert "error" not in gone.stderr
    assert len(daemon.asked("Generate")) < 41


def test_ctrl_c_says_how_to_go_on(gemctl: Gemctl, daemon: FakeDaemon, home: Path) -> None:
    """What is done is kept, running jobs are cancelled, and the same command goes on."""
    ended = threading.Event()

    def script(request: Any, context: grpc.ServicerContext) -> Events:
        if prompt_of(request) == "wait":
            context.add_callback(ended.set)
            ended.wait(30)
        yield from echo(request, context)

    daemon.script.generate = script
    file, out = home / "jobs", home / "out"
    file.write_text('{"prompt": "a"}\n{"prompt": "wait"}\n{"prompt": "c"}\n{"prompt": "wait"}\n')
    process = gemctl.start("batch", str(file), "-o", str(out), "--jobs", "2")
    journal = home / "out.journal"
    wait_until(lambda: len(daemon.asked("Generate")) == 4, what="the fourth job")
    assert b"<c>" in journal.read_bytes()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED
    assert f"stopped after 2 of 4 jobs\nto go on: gemctl batch {file} -o {out} --jobs 2\n" in errors
    assert "Traceback" not in errors
    assert ended.wait(5)
    daemon.script.generate = echo
    done = gemctl("batch", str(file), "-o", str(out))
    assert done.returncode == 0
    assert [one["text"] for one in records(out.read_text())] == ["<a>", "<wait>", "<c>", "<wait>"]
    assert len(daemon.asked("Generate")) == 6


def test_progress_has_rate_and_failures(gemctl: Gemctl, file: Path, home: Path) -> None:
    """On a terminal as one line that goes away, elsewhere as a few."""
    errors = gemctl("batch", str(file), "--jobs", "1").stderr
    assert "answering jobs.jsonl    0 %  0 of 5\n" in errors
    assert "100 %  5 of 5, 1 failed, " in errors
    assert " jobs/s\n" in errors
    _, seen = gemctl.on_terminal("batch", str(file), "-o", str(home / "out"))
    assert "\r\x1b[K5 jobs in " in seen
