"""Faults of a text, given how it came to its end; and how long a draft may be."""

from __future__ import annotations

from typing import Any

import pytest

from gemd.routing.cascade.faults import faults_of
from gemd.routing.cascade.job import DRAFT_TOKENS, Job
from gemd.routing.decide import Choice, Strategy
from gemd.routing.prompt import look_at
from gemd.routing.request import Request, Tier
from gemd.wire import ChatMessage, Finished, Prompt

CHOICE = Choice(Strategy.DRAFT, "quick", Tier.FAST, "PRICED", "x", drafter="quick")
CUT = "The sea is wide and blue and cold, and the ships that cross it in summer sail over the"
PROMPT = Prompt(chat=(ChatMessage(role="user", text="Tell me of the sea."),))


def job(**sampling: Any) -> Job:
    """A request with these limits."""
    return Job(
        asked=Request(prompt=PROMPT, sampling=sampling),
        look=look_at(PROMPT),
        choice=CHOICE,
        request_id="r",
        work_id="w",
        seed=3,
        arrived=0.0,
    )


def ended(reason: Any, tokens: int = 20) -> Finished:
    """An answer of so many tokens that ended so."""
    return Finished(
        request_id="w",
        reason=reason,
        prompt_tokens=9,
        cached_tokens=0,
        completion_tokens=tokens,
        queue_seconds=0.0,
        prefill_seconds=0.0,
        decode_seconds=0.0,
    )


@pytest.mark.parametrize("reason", ["max_tokens", "context_full", "stop"])
def test_an_answer_that_lacks_its_end_has_a_fault(reason: str) -> None:
    """Whatever cut it off, if the request did not."""
    assert "TRUNCATED" in {fault.code for fault in faults_of(job(), CUT, ended(reason))}


def test_what_the_request_cuts_off_has_none() -> None:
    """Its own limit or stop string would cut off any answer; a smaller limit than it is another."""
    assert faults_of(job(max_tokens=20), CUT, ended("max_tokens")) == ()
    assert faults_of(job(stop=("!",)), CUT, ended("stop_string")) == ()
    assert faults_of(job(max_tokens=600), CUT, ended("max_tokens", 512)) != ()


def test_other_faults_stay() -> None:
    """A loop is one however it ends."""
    loop = "sail away and " * 30
    found = faults_of(job(max_tokens=20), loop, ended("max_tokens"))
    assert [fault.code for fault in found] == ["REPETITION"]


@pytest.mark.parametrize(
    "own,most", [(None, DRAFT_TOKENS), (5, 5), (0, 0), (4 * DRAFT_TOKENS, DRAFT_TOKENS)]
)
def test_a_draft_has_a_limit(own: int | None, most: int) -> None:
    """The request's, if that is less; the seed is the request's."""
    wanted = {} if own is None else {"max_tokens": own}
    sampling = job(**wanted).draft_sampling({"temperature": 0.5})
    assert (sampling.max_tokens, sampling.seed, sampling.temperature) == (most, 3, 0.5)
