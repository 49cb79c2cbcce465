"""The real daemon with the real small model, as a user and as a program meet them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from gemd.client import AsyncClient, Client, Delta, GenerationOptions, InvalidRequestError, Sampling
from tests.support.gemctl import REPOSITORY, Gemctl
from tests.support.models import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def real(smollm2: Path) -> Iterator[Gemctl]:
    """A home whose daemon `gemctl` starts by itself and finds the embedded model on disk."""
    with tempfile.TemporaryDirectory(prefix="gemd-") as home:
        runtime = Path(home) / "run"
        runtime.mkdir(mode=0o700)
        gemctl = Gemctl(
            {
                "PATH": os.environ["PATH"],
                "HOME": home,
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(REPOSITORY),
                "XDG_RUNTIME_DIR": str(runtime),
                "GEMD_STORE_DIR": str(CACHE),
                "GEMD_OFFLINE": "true",
                "GEMD_CONTEXT_TOKENS": "512",
                # More of them wait for each other, spinning, while other tests compute.
                "GEMD_THREADS": "1",
            }
        )
        yield gemctl
        assert gemctl("stop", "--now").returncode == 0


@pytest.fixture
def socket(real: Gemctl) -> Path:
    """The socket of the running daemon."""
    assert real("load", "smollm2-135m").returncode == 0
    return Path(real.environ["XDG_RUNTIME_DIR"]) / "gemd" / "gemd.sock"


def test_one_command_answers(real: Gemctl) -> None:
    """Started or not, loaded or not: the answer is on stdout and names Paris."""
    done = real("run", QUESTION, "--stats")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert done.stdout.endswith("\n")
    assert "smollm2-135m: " in done.stderr
    again = real("run", QUESTION, "--json")
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert "Paris" in document["text"]
    assert document["finished"]["finish_reason"] == "FINISH_REASON_STOP"
    assert document["finished"]["usage"]["cached_tokens"] > 0
    models = json.loads(real("status", "--json").stdout)["models"]
    assert {one["id"]: one["state"] for one in models}["smollm2-135m"] == "STATE_READY"


@pytest.mark.parametrize(
    "arguments,code,says",
    [
        (["Hi", "--temperature", "-1"], Exit.USAGE, "temperature"),
        ([""], Exit.USAGE, "empty"),
        (["word " * 2000], Exit.DOES_NOT_FIT, "511 fit"),
        (["Hi", "--model", "smollm"], Exit.NOT_FOUND, "smollm2-135m"),
        (["Hi", "--model", "./README.gguf"], Exit.NOT_FOUND, "README.gguf"),
        (["Hi", "--tier", "fast", "--mode", "exact"], Exit.USAGE, "exact"),
    ],
)
def test_bad_input_is_a_named_error(
    real: Gemctl, arguments: list[str], code: Exit, says: str
) -> None:
    """Each says what is wrong, with its exit code, and nothing on stdout."""
    done = real("run", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "\nerror: " in f"\n{done.stderr}"
    assert says in done.stderr


def test_a_file_that_is_no_model_is_refused(real: Gemctl, tmp_path: Path) -> None:
    """A file of something else is a broken model file, not a crash."""
    file = tmp_path / "picture.gguf"
    file.write_bytes(b"\x89PNG" * 1000)
    done = real("run", "Hi", "--model", str(file))
    assert (done.returncode, done.stdout) == (Exit.PRECONDITION, "")
    assert "picture.gguf" in done.stderr


def test_memory_is_given_back_and_kept_free(socket: Path, real: Gemctl) -> None:
    """The worker has ended when the command has; requests are refused until gemd may resume."""
    done = real("yield", "cpu", "--keep-off", "1h", "--json")
    try:
        assert done.returncode == 0, done.stderr
        (given,) = json.loads(done.stdout)["yielded"]
        assert (given["models"], given["confirmed"]) == (["models/smollm2-135m"], True)
        (cpu,) = [
            one
            for one in json.loads(real("status", "--json").stdout)["devices"]
            if one["id"] == "cpu"
        ]
        assert cpu["memory"]["ours_bytes"] == 0
        assert "keep_off_until" in given
        assert "keep_off_until" in cpu
        refused = real("run", QUESTION)
        assert (refused.returncode, refused.stdout) == (Exit.DOES_NOT_FIT, "")
        assert "  try: gemctl yield cpu --resume" in refused.stderr
    finally:
        assert real("yield", "cpu", "--resume").returncode == 0
    assert real("run", QUESTION, "--max-tokens", "2").returncode == 0


def test_the_sync_client_meets_the_real_daemon(socket: Path) -> None:
    """Chat, cancel mid-stream, score, embed, count: over the real socket."""
    with Client(socket) as client:
        greedy = GenerationOptions(sampling=Sampling(temperature=0, max_tokens=24))
        assert "Paris" in client.chat(QUESTION, greedy).text()
        endless = GenerationOptions(sampling=Sampling(ignore_eos=True))
        with client.generate("Once upon a time", endless) as generation:
            assert any(isinstance(event, Delta) for event in generation)
        scores = client.score("The capital of France is", [" Paris", " Rome"])
        paris, rome = (one.sum_logprob / one.token_count for one in scores.scores)
        assert paris > rome
        (vector,) = client.embed(["Paris"]).vectors
        assert sum(value * value for value in vector) == pytest.approx(1.0, abs=1e-3)
        assert client.count_tokens("The capital of France").count > 0
        with pytest.raises(InvalidRequestError) as caught:
            client.chat("word " * 2000).text()
        assert caught.value.reason == "CONTEXT_TOO_LONG"
        assert client.status().running_requests == 0


async def test_the_async_client_meets_the_real_daemon(socket: Path) -> None:
    """The same, on asyncio; the snapshot of the events knows the warm model."""
    async with AsyncClient(socket) as client:
        greedy = GenerationOptions(sampling=Sampling(temperature=0, max_tokens=24))
        assert "Paris" in await client.chat(QUESTION, greedy).text()
        async with client.events() as events:
            first = await anext(events)
        assert first.kind == "snapshot"
        states = {one.id: one.state for one in await client.models()}
        assert states["smollm2-135m"] == "READY"
