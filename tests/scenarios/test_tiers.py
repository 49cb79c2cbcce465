"""Both tiers with real engines: a tiny DiffusionGemma drafts, SmolLM2 scores and refines."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from gemd.client import Draft, GenerationOptions, Resolved, Sampling
from tests.support.desktop import MODEL, Desktop, desktop, serving, wait_until
from tests.support.tiny_diffusion import ANSWERS, TINY, UNDERTRAINED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gemd.client import Answer, Client

KNOWN = (
    "What is the capital of France?",
    "What is the capital of Japan?",
    "Count to ten.",
    "Hello",
    "What is three plus four?",
    "What is the largest planet?",
)
UNKNOWN = (
    "What is the capital of Spain?",
    "Who wrote Hamlet?",
    "What is the boiling point of water?",
    "Name a river in Germany.",
)


def paired(drafter: Path) -> dict[str, str]:
    """The settings that make a pair of that drafter and SmolLM2."""
    return {"GEMD_FAST_MODEL": str(drafter), "GEMD_STRONG_MODEL": MODEL}


@pytest.fixture(scope="module", name="tiers")
def _tiers(store: Path) -> Iterator[Desktop]:
    """A daemon with a drafter that knows sixteen answers by heart."""
    with desktop(store, **paired(TINY)) as one:
        yield one


@pytest.fixture(autouse=True)
def _both_warm(request: pytest.FixtureRequest) -> None:
    """Whatever a test before this one has done to its models."""
    if "tiers" in request.fixturenames:
        with request.getfixturevalue("tiers").client() as client:
            client.load_and_wait(str(TINY))
            client.load_and_wait(MODEL)


def ask(client: Client, question: str, *, mode: str = "balanced", **fields: object) -> Answer:
    """The answer to a question by whoever gives it."""
    sampling = Sampling(max_tokens=32, seed=7)
    options = GenerationOptions(mode=mode, sampling=sampling, **fields)  # type: ignore[arg-type]
    return client.chat(question, options).answer()


def test_what_is_known_by_heart_is_drafted_and_what_is_not_is_refined(tiers: Desktop) -> None:
    """The draft is the answer word for word, or the answer is the strong model's own."""
    with tiers.client() as client:
        known = {question: ask(client, question) for question in KNOWN}
        unknown = {question: ask(client, question) for question in UNKNOWN}
        own = {question: ask(client, question, mode="best").text for question in UNKNOWN}
    kept = [question for question, answer in known.items() if answer.finished.resolution == "KEPT"]
    assert len(kept) >= len(KNOWN) - 1
    for question in kept:
        assert known[question].text == ANSWERS[question]
        assert known[question].finished.tier == "FAST"
    for question, answer in unknown.items():
        assert answer.finished.resolution == "REPLACED", question
        assert answer.finished.tier == "STRONG"
        assert answer.text != answer.draft
    # What has no fault of its own to be mended is answered as if there had been no draft.
    anew = [each for each, answer in unknown.items() if answer.finished.usage.prompt_tokens < 30]
    assert anew
    assert all(unknown[each].text == own[each] for each in anew)


@pytest.mark.slow
def test_an_undertrained_drafter_is_refined_more(store: Path) -> None:
    """Than the good one, of which one in six is; nothing it makes of unknown ones is shipped."""
    with desktop(store, **paired(UNDERTRAINED)) as one, one.client() as client:
        client.load_and_wait(str(UNDERTRAINED))
        client.load_and_wait(MODEL)
        known = [ask(client, question) for question in ANSWERS]
        unknown = [ask(client, question) for question in UNKNOWN]
    refined = [answer.finished.resolution != "KEPT" for answer in known]
    assert sum(refined) / len(refined) > 1 / 3
    assert all(answer.finished.resolution != "KEPT" for answer in unknown)


def test_exact_mode_gives_the_strong_models_greedy_answer(tiers: Desktop) -> None:
    """Whatever the draft was."""
    with tiers.client() as client:
        for question in (KNOWN[0], KNOWN[2], UNKNOWN[0], UNKNOWN[3]):
            exact = ask(client, question, mode="exact")
            assert exact.text == ask(client, question, mode="best").text
            if exact.finished.strategy == "SPECULATE":
                assert exact.finished.drafted_tokens >= exact.finished.accepted_tokens


def test_best_of_gives_one_answer_of_several(tiers: Desktop) -> None:
    """Ranked by the strong model; its place and score are told."""
    with tiers.client() as client:
        answer = ask(client, KNOWN[0], best_of=4)
    assert answer.text == ANSWERS[KNOWN[0]]
    assert answer.finished.rank == 1
    assert answer.finished.score is not None
    assert answer.finished.checker == MODEL


def test_the_terminal_tells_of_the_way(tiers: Desktop) -> None:
    """Only the answer on standard output; the way and its reasons where they are asked for."""
    done = tiers.gemctl("run", "--stats", KNOWN[0])
    assert (done.returncode, done.stdout) == (0, f"{ANSWERS[KNOWN[0]]}\n"), done.stderr
    assert "drafted by" in done.stderr
    document = json.loads(tiers.gemctl("run", "--json", KNOWN[1]).stdout)
    request_id = document["started"]["request_id"]
    why = tiers.gemctl("why", request_id)
    assert why.returncode == 0, why.stderr
    assert "risk" in why.stdout
    fed = tiers.gemctl("feedback", request_id, "good")
    assert fed.returncode == 0, fed.stderr
    status = json.loads(tiers.gemctl("status", "--json").stdout)
    assert status["routing"]["strong"].endswith(MODEL)
    assert int(status["routing"]["labels"]) >= 1
    shown = tiers.gemctl("status").stdout
    assert MODEL in shown


def test_a_cancelled_draft_frees_both_models(tiers: Desktop) -> None:
    """Closed when the first provisional text comes; nothing is resolved, nothing goes on."""
    with tiers.client() as client:
        stream = client.chat(UNKNOWN[1], GenerationOptions(sampling=Sampling(max_tokens=32)))
        for event in stream:
            assert not isinstance(event, Resolved)
            if isinstance(event, Draft):
                break
        stream.close()
        wait_until(lambda: client.status().running_requests == 0, what="the cancel")
        assert ask(client, KNOWN[1]).text == ANSWERS[KNOWN[1]]


@pytest.mark.usefixtures("breaking")
def test_a_crash_of_the_drafter_is_made_up_for(tiers: Desktop) -> None:
    """Killed with its answer under way, it is replaced by the strong model in the same call."""
    with tiers.client() as client:
        client.load_and_wait(str(TINY))
        workers = {worker.pid: worker for worker in tiers.workers()}
        [drafter] = [
            worker for worker in workers.values() if TINY.name in " ".join(worker.cmdline())
        ]
        drafter.suspend()
        options = GenerationOptions(sampling=Sampling(max_tokens=16))
        with ThreadPoolExecutor(1) as pool:
            try:
                coming = pool.submit(lambda: client.chat(KNOWN[2], options).answer())
                wait_until(lambda: client.status().queued_requests == 1, what="the request")
            finally:
                drafter.kill()
            answer = coming.result(60)
        assert answer.finished.tier == "STRONG"
        assert answer.resolved is not None
        assert answer.resolved.reason == "DRAFTER_FAILED"
        assert answer.text


@pytest.mark.slow
def test_what_was_learnt_outlives_the_daemon(store: Path) -> None:
    """Drafts that were judged, and speeds, count in the next run."""
    with desktop(store, **paired(TINY)) as one:
        with one.client() as client:
            client.load_and_wait(str(TINY))
            client.load_and_wait(MODEL)
            for question in KNOWN[:3]:
                ask(client, question)
        environ, home = one.environ, one.home
        assert one.gemctl("stop").returncode == 0
        one.process.wait(20)
        with serving(home, environ) as again, again.client() as client:
            routing = client.status().routing
            assert routing is not None
            assert any(speed.samples >= 3 for speed in routing.speeds)
            client.load_and_wait(str(TINY))
            client.load_and_wait(MODEL)
            request_id = ask(client, KNOWN[3]).started.request_id  # type: ignore[union-attr]
            [*_, way] = client.explain(request_id=request_id)
            assert way.reasons[0].code == "FEW_DRAFTS", way.reasons[0].message
            assert "3 drafts" in way.reasons[0].message
