"""What a request asks of a model, where the model's profile has something to say as well."""

from __future__ import annotations

from typing import Any

import pytest

from gemd.routing.cascade.job import Job
from gemd.routing.decide import Choice, Strategy
from gemd.routing.request import Request, Tier
from gemd.wire import Prompt, Span

CHOICE = Choice(Strategy.DIRECT, "small", Tier.STRONG, "MODEL_NAMED", "x")
DEFAULTS = {"temperature": 0.5, "max_tokens": 100}


def job(*spans: Span, **sampling: Any) -> Job:
    """A request with these fields of its own."""
    return Job(
        asked=Request(prompt=Prompt(text="x"), sampling=sampling, spans=spans),
        look=None,
        choice=CHOICE,
        request_id="r",
        work_id="w",
        seed=3,
        arrived=0.0,
    )


@pytest.mark.parametrize("own", [0, 5, 4000])
def test_a_limit_of_the_request_is_the_limit(own: int) -> None:
    """Smaller or larger than the profile's, or nothing at all."""
    assert job(max_tokens=own).sampling(DEFAULTS).max_tokens == own


def test_a_request_without_a_limit_has_the_profiles() -> None:
    """Beside what it does set."""
    sampling = job(temperature=1.0).sampling(DEFAULTS)
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (100, 1.0, 3)
    assert job().sampling({"temperature": 0.5}).max_tokens is None


def test_a_text_with_gaps_has_no_limit_beside_them() -> None:
    """The profile's would be refused as the request's own; that one is handed on, to be refused."""
    gaps = (Span(text="from "), Span(free=True, max_tokens=4), Span(text=" to"))
    assert job(*gaps).sampling(DEFAULTS).max_tokens is None
    assert job(*gaps, max_tokens=7).sampling(DEFAULTS).max_tokens == 7
