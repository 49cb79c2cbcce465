"""The whole way with a real model: gemctl and the client, the daemon, the worker, llama.cpp."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from gemd.client import (
    Delta,
    Finished,
    GemdClientError,
    InvalidRequestError,
    Loading,
    Message,
    ModelNotFoundError,
    Queued,
    Routed,
    Started,
)
from tests.support.desktop import MODEL, PARIS, Desktop, asking, desktop

if TYPE_CHECKING:
    from pathlib import Path


def test_gemctl_answers_with_the_real_model(running: Desktop) -> None:
    """The main job: the answer, and nothing else, on standard output."""
    done = running.gemctl("run", "--model", MODEL, PARIS)

    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert done.stdout.endswith("\n")
    assert done.stdout.count("\n") == 1


def test_the_events_of_an_answer_come_in_their_order(running: Desktop) -> None:
    """Started, text, Finished with usage and timings that add up."""
    with running.client() as client:
        events = list(client.chat(PARIS, asking(logprobs=2)))

    kinds = [type(e) for e in events if not isinstance(e, Queued | Loading | Routed)]
    assert kinds == [Started, *[Delta] * (len(kinds) - 2), Finished]
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.finish_reason == "STOP"
    deltas = [e for e in events if isinstance(e, Delta)]
    assert "Paris" in "".join(delta.text for delta in deltas)
    tokens = [token for delta in deltas for token in delta.token_ids]
    assert len(tokens) == finished.usage.completion_tokens
    assert [p.token_id for delta in deltas for p in delta.logprobs] == tokens
    assert finished.timings.total is not None
    assert finished.timings.first_token is not None
    assert 0 < finished.timings.first_token <= finished.timings.total


def test_json_output_is_one_document(running: Desktop) -> None:
    """For scripts: answer, usage and timings with the proto's names."""
    done = running.gemctl("run", "--model", MODEL, "--json", PARIS)
    document = json.loads(done.stdout)

    assert "Paris" in json.dumps(document)
    assert "completion_tokens" in json.dumps(document)


def test_the_second_turn_reads_only_what_is_new(running: Desktop) -> None:
    """The first turn's prompt and answer are in the cache."""
    with running.client() as client:
        question = Message("user", "Name a fruit. " * 10)
        first = client.chat([question], asking()).answer()
        second = client.chat(
            [question, Message("assistant", first.text), Message("user", "Another one?")],
            asking(max_tokens=4),
        ).answer()

    assert second.started is not None
    assert first.started is not None
    assert second.started.cached_tokens >= first.started.prompt_tokens
    assert second.started.prompt_tokens - second.started.cached_tokens < 25


def test_scores_embeddings_and_counts_come_from_the_model(running: Desktop) -> None:
    """The checker's primitives, over the same socket."""
    with running.client() as client:
        scores = client.score("The capital of France is", [" Paris", " Rome"], model=MODEL)
        vectors = client.embed(["a cat", "a kitten", "SELECT 1;"], model=MODEL).vectors
        counted = client.count_tokens([Message("user", PARIS)], model=MODEL)

    paris, rome = scores.scores
    assert paris.sum_logprob > rome.sum_logprob
    assert (paris.token_count, paris.greedy_match) == (1, True)

    def similarity(a: int, b: int) -> float:
        return sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True))

    assert similarity(0, 0) == pytest.approx(1, abs=1e-4)
    assert similarity(0, 1) > similarity(0, 2)
    assert 10 < counted.count < 40


def test_many_clients_at_once_all_get_their_answers(running: Desktop) -> None:
    """Twelve requests over four sequences."""

    def ask(number: int) -> str:
        with running.client() as client:
            return client.chat(f"Say the number {number}.", asking(max_tokens=8)).text()

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    assert all(answers)


BAD_REQUESTS = {
    "temperature": (asking(temperature=-1.0), "hello", "sampling.temperature"),
    "top_p": (asking(top_p=0.0), "hello", "sampling.top_p"),
    "bias": (asking(logit_bias={999_999: 1.0}), "hello", "logit_bias"),
    "empty": (asking(), "", "empty"),
    "too long": (asking(), "word " * 2000, "context"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_requests_are_named_errors_that_say_what_to_do(running: Desktop, name: str) -> None:
    """The field or the numbers are in the message."""
    options, prompt, said = BAD_REQUESTS[name]
    with running.client() as client, pytest.raises(InvalidRequestError) as caught:
        client.chat(prompt, options).text()
    assert said in str(caught.value) + json.dumps(caught.value.metadata)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_an_unknown_model_names_the_nearest_and_how_to_see_all(running: Desktop) -> None:
    """Exit code 4 on the command line."""
    with running.client() as client, pytest.raises(ModelNotFoundError) as caught:
        client.chat(PARIS, asking(model="smolm2-135m")).text()
    assert MODEL in str(caught.value) + " ".join(caught.value.advice)
    assert running.gemctl("run", "--model", "smolm2-135m", PARIS).returncode == 4


def _truncated(data: bytearray) -> bytes:
    return bytes(data[: len(data) // 2])


def _flipped_header(data: bytearray) -> bytes:
    data[8:16] = b"\xff" * 8  # the number of tensors
    return bytes(data)


def _not_gguf(data: bytearray) -> bytes:
    return b"PK\x03\x04" + bytes(data[4:100_000])


@pytest.mark.parametrize("damage", [_truncated, _flipped_header, _not_gguf])
def test_damaged_files_are_bad_model_files(
    running: Desktop, smollm2: Path, tmp_path: Path, damage: object
) -> None:
    """A file named by its path is read with care and refused by name, exit code 6."""
    assert callable(damage)
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damage(bytearray(smollm2.read_bytes())))
    done = running.gemctl("run", "--model", str(path), PARIS)

    assert done.returncode == 6, done.stderr
    assert "damaged.gguf" in done.stderr
    assert "why:" in done.stderr
    with running.client() as client, pytest.raises(GemdClientError) as caught:
        client.chat(PARIS, asking(model=str(path))).text()
    assert caught.value.reason == "BAD_MODEL_FILE"


def test_a_flipped_bit_in_a_stored_model_is_found_by_its_hash(
    store: Path, smollm2: Path, tmp_path: Path
) -> None:
    """One bit in 98 MB of weights; the advice is the pull that repairs it, and it does."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns("*.lock"))
    blob = copy / smollm2.relative_to(store)
    with blob.open("r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)[0]
        file.seek(50_000_000)
        file.write(bytes([byte ^ 4]))
    with desktop(copy) as one:
        with one.client() as client, pytest.raises(GemdClientError) as caught:
            client.chat(PARIS, asking()).text()
        assert (caught.value.code, caught.value.reason) == ("DATA_LOSS", "CONTENT_MISMATCH")
        assert any("gemctl pull" in advice for advice in caught.value.advice)


def test_a_file_named_by_its_path_answers_and_is_not_copied(
    running: Desktop, smollm2: Path, tmp_path: Path
) -> None:
    """Any GGUF file on the disk can be used as it is."""
    path = tmp_path / "mine.gguf"
    path.symlink_to(smollm2)
    done = running.gemctl("run", "--model", str(path), "--max-tokens", "8", "Hello")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert running.gemctl("unload", str(path)).returncode == 0
