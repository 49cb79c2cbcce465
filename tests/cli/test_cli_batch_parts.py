"""The parts of `gemctl batch` that decide and keep: no daemon takes part."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.batch.jobs import Job, read_jobs
from gemd.cli.batch.order import groups
from gemd.cli.batch.running import (
    Attempt,
    BatchStoppedError,
    Runner,
    delay_after,
    request,
    success,
)
from gemd.cli.failures import CommandError, Exit
from gemd.client import Answer, Finished, GemdClientError, Message
from gemd.client.events import generation_event
from tests.support.daemon_says import ended

# --- the file -----------------------------------------------------------------------------


def jobs_of(*lines: str | dict[str, Any], **defaults: Any) -> list[Job]:
    """The jobs of a file with these lines."""
    content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return read_jobs(content, name="jobs", defaults=defaults)


def test_a_line_is_a_job() -> None:
    """Blank lines are none; a job without an id has its line's number; a BOM is no text."""
    jobs = jobs_of('\ufeff{"prompt": "a"}', "", {"id": "x", "prompt": "b"}, "  ", {"prompt": "c"})
    assert [(job.line, job.id) for job in jobs] == [(1, 1), (3, "x"), (5, 5)]
    assert jobs[1].content == {"prompt": "b"}


def test_no_other_line_ends_than_those_of_json_lines() -> None:
    """A text may hold what other programs end lines with."""
    (job,) = jobs_of('{"prompt": "a\u2028b\x0cc"}'.replace("\x0c", "\\f"))
    assert job.content["prompt"] == "a\u2028b\x0cc"


@pytest.mark.parametrize(
    "line,says",
    [
        ("{", "line 1: it is no JSON"),
        ("[]", "line 1: it is no JSON object"),
        ('{"prompt": NaN}', "NaN is no number of JSON"),
        ('{"prompt": "a", "prompt": "b"}', "'prompt' is there 2 times"),
        ({}, "a prompt or messages, and not both"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "and not both"),
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": 7}, "prompt has to be a text"),
        ('{"prompt": "\\ud800"}', "prompt has half of a character"),
        ({"prompt": "a", "temprature": 1}, "'temprature'; did you mean 'temperature'?"),
        ({"prompt": "a", "zzz": 1}, "no field 'zzz'; it can have id, prompt"),
        ({"prompt": "a", "temperature": True}, "temperature has to be a number from 0 to 10"),
        ({"prompt": "a", "temperature": 11}, "temperature has to be a number from 0 to 10"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens has to be a whole number from 0"),
        ({"prompt": "a", "seed": -1}, "seed has to be a whole number from 0"),
        ({"prompt": "a", "candidates": 65}, "candidates has to be a whole number from 1 to 64"),
        ({"prompt": "a", "thinking": "yes"}, "thinking has to be true or false"),
        ({"prompt": "a", "mode": "quick"}, "mode has to be one of fast, balanced, best, exact"),
        ({"prompt": "a", "mode": ["fast"]}, "mode has to be one of"),
        ({"prompt": "a", "stop": [""]}, "stop has to be a text or a list of texts"),
        ({"prompt": "a", "stop": ["a"] * 17}, "stop can have 16 texts"),
        ({"prompt": "a", "id": True}, "id has to be a text or a whole number"),
        ({"prompt": "a", "model": "m", "tier": "fast"}, "a model or a tier, and not both"),
        ({"prompt": "a", "mode": "exact", "tier": "fast"}, "the strong tier's own answer"),
        ({"prompt": "a", "candidates": 3, "best_of": 2}, "best_of has to be at least candidates"),
        ({"messages": []}, "messages has to be a list with at least one message"),
        ({"messages": ["a"]}, 'messages [0] has to be {"role": …, "content": …}'),
        ({"messages": [{"role": "tool", "content": "a"}]}, "[0]: role has to be one of"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages [0]: content is empty"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "system", "content": "b"},
                ]
            },
            "messages [1]: a system message has to be the first",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}], "system": "b"},
            "system goes with a prompt",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(line: str | dict[str, Any], says: str) -> None:
    """Nothing is run, and nothing is guessed."""
    with pytest.raises(CommandError) as caught:
        jobs_of(line, {"id": "other", "prompt": "fine"})
    assert caught.value.code == Exit.USAGE
    assert caught.value.message == "jobs has 1 mistake; nothing was run"
    assert says in caught.value.why
    assert caught.value.why.startswith("line 1: ")


def test_all_mistakes_are_told_at_once_but_no_wall_of_them() -> None:
    """Ten lines and a count."""
    with pytest.raises(CommandError) as caught:
        jobs_of(*["{}"] * 30)
    assert caught.value.message == "jobs has 30 mistakes; nothing was run"
    lines = [line.strip() for line in caught.value.why.splitlines()]
    assert lines[9].startswith("line 10: ")
    assert lines[10:] == ["and 20 more"]


def test_an_id_belongs_to_one_job() -> None:
    """Also if one is written as a number and the other one as a text, or is a line's number."""
    with pytest.raises(CommandError, match="mistakes") as caught:
        jobs_of(
            {"id": "a", "prompt": "x"},
            {"id": "a", "prompt": "y"},
            {"id": "4", "prompt": "x"},
            {"prompt": "x"},
        )
    assert "line 2: the id 'a' is that of line 1" in caught.value.why
    assert "line 4: the id 4 is that of line 3" in caught.value.why


def test_a_file_without_jobs_is_a_mistake() -> None:
    """Rather than a success that did nothing."""
    with pytest.raises(CommandError, match="jobs has no jobs"):
        jobs_of("", " ")


def test_defaults_are_for_jobs_that_say_nothing_else() -> None:
    """A tier is another word for who answers: it keeps the default model away."""
    named, tiered, plain = jobs_of(
        {"prompt": "a", "model": "own"},
        {"prompt": "a", "tier": "fast"},
        {"prompt": "a"},
        model="default",
        mode="best",
    )
    assert named.content == {"prompt": "a", "model": "own", "mode": "best"}
    assert tiered.content == {"prompt": "a", "tier": "fast", "mode": "best"}
    assert plain.content == {"prompt": "a", "model": "default", "mode": "best"}


def test_a_key_is_of_all_that_a_job_says() -> None:
    """The order of its fields is not part of that; every value, default and id is."""
    (one,) = jobs_of('{"id": "a", "prompt": "p", "seed": 1}')
    (same,) = jobs_of('{"seed": 1,  "prompt": "p", "id": "a"}')
    assert one.key == same.key
    others = (
        jobs_of({"id": "b", "prompt": "p", "seed": 1})
        + jobs_of({"id": "a", "prompt": "q", "seed": 1})
        + jobs_of({"id": "a", "prompt": "p", "seed": 1}, mode="best")
    )
    assert len({one.key, *(other.key for other in others)}) == 4


def test_a_request_says_what_the_job_says() -> None:
    """In the background; what the job leaves open stays open."""
    (job,) = jobs_of({"prompt": "p", "system": "s", "max_tokens": 0, "stop": "x", "best_of": 4})
    conversation, options = request(job)
    assert conversation == [Message("system", "s"), Message("user", "p")]
    assert (options.sampling.max_tokens, options.sampling.stop) == (0, "x")
    assert (options.sampling.temperature, options.model, options.mode) == (None, None, None)
    assert (options.best_of, options.candidates, options.background) == (4, 0, True)
    (job,) = jobs_of({"messages": [{"role": "assistant", "content": "a"}]})
    assert request(job)[0] == [Message("assistant", "a")]


@pytest.mark.parametrize("rank,score", [(0, None), (1, 0.0), (2, -0.5)])
def test_a_ranked_answer_tells_its_score(rank: int, score: float | None) -> None:
    """Though that may be 0; one that was not ranked has neither."""
    (job,) = jobs_of({"prompt": "a", "best_of": 4})
    said = ended("KEPT")
    said.finished.rank = rank
    if score is not None:
        said.finished.score = score
    finished = generation_event(said)
    assert isinstance(finished, Finished)
    told = success(job, [Answer(text="x", reasoning_text="", started=None, finished=finished)])
    assert (told.get("rank", 0), told.get("score")) == (rank, score)


# --- the order ----------------------------------------------------------------------------


def test_jobs_of_one_model_run_together_short_ones_first() -> None:
    """Groups come in the order of their first job; a job without a limit is the longest."""
    jobs = jobs_of(
        {"prompt": "a", "model": "m", "max_tokens": 300},
        {"prompt": "a"},
        {"prompt": "a", "model": "m", "max_tokens": 20},
        {"prompt": "a", "model": "m"},
        {"prompt": "a", "model": "m", "max_tokens": 17},
        {"prompt": "a", "tier": "fast"},
        {"prompt": "a", "mode": "best"},
    )
    assert groups(jobs, range(7)) == [[2, 4, 0, 3], [1, 6], [5]]
    assert groups(jobs, [3, 6]) == [[3], [6]]
    assert groups(jobs, []) == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 999)), max_size=12),
    st.data(),
)
def test_every_open_job_runs_once(drawn: list[tuple[str, int | None]], data: st.DataObject) -> None:
    """And no other one does; no model comes back after another one."""
    jobs = [
        Job(line, line, {"model": model} | ({} if most is None else {"max_tokens": most}))
        for line, (model, most) in enumerate(drawn, 1)
    ]
    open_ = data.draw(st.sets(st.sampled_from(range(len(jobs)))) if jobs else st.just(set()))
    found = groups(jobs, sorted(open_))
    assert sorted(index for group in found for index in group) == sorted(open_)
    models = [{jobs[index].content["model"] for index in group} for group in found]
    assert all(len(each) == 1 for each in models)
    assert len(set().union(*models)) == len(models)


# --- what is tried again ------------------------------------------------------------------


def error(reason: str, *, retry_after: float | None = None) -> GemdClientError:
    """An error of the daemon."""
    return GemdClientError("no", reason=reason, code="X", retry_after=retry_after)


@pytest.mark.parametrize(
    "reason,retry_after,number,delay",
    [
        ("QUEUE_FULL", 2.0, 1, 2.0),
        ("QUEUE_FULL", None, 1, 0.5),
        ("QUEUE_FULL", 0.1, 99, 10.0),
        ("VRAM_BUDGET_EXCEEDED", 3.0, 50, 10.0),
        ("VRAM_BUDGET_EXCEEDED", None, 1, None),
        ("ENGINE_CRASHED", None, 1, 0.5),
        ("ENGINE_CRASHED", None, 2, 1.0),
        ("ENGINE_CRASHED", None, 3, None),
        ("CANCELLED", None, 1, 0.5),
        ("INVALID_REQUEST", None, 1, None),
        ("MODEL_QUARANTINED", None, 1, None),
        ("DAEMON_UNREACHABLE", None, 4, 4.0),
        ("SHUTTING_DOWN", None, 9, 10.0),
    ],
)
def test_what_may_pass_is_tried_again(
    reason: str, retry_after: float | None, number: int, delay: float | None
) -> None:
    """Never before the daemon's word, ever less often, and a crash only so many times."""
    failed = error(reason, retry_after=retry_after)
    assert delay_after(failed, Attempt(number, 59.0)) == delay


@pytest.mark.parametrize("reason,away", [("DAEMON_UNREACHABLE", 60.0), ("MODEL_NOT_FOUND", 0.0)])
def test_what_all_jobs_would_fail_of_ends_the_batch(reason: str, away: float) -> None:
    """A daemon that stays away, or a model that is not there."""
    with pytest.raises(BatchStoppedError):
        delay_after(error(reason), Attempt(1, away))


def test_the_daemons_absence_is_counted_from_its_beginning() -> None:
    """Not from the last job that ended, which may have taken long; any other word ends it."""
    now = [0.0]
    told: list[float] = []
    runner = Runner([], lambda *_: None, away=lambda: told.append(now[0]), clock=lambda: now[0])
    found = []
    for moment, reason in (
        (500, "DAEMON_UNREACHABLE"),
        (520, "SHUTTING_DOWN"),
        (530, "QUEUE_FULL"),
        (600, "DAEMON_UNREACHABLE"),
        (601, "DAEMON_UNREACHABLE"),
    ):
        now[0] = moment
        found.append(runner._away(error(reason)))
    assert found == [0, 20, 0, 0, 1]
    assert told == [500, 600], "once for each absence"
