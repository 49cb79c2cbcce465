from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.measuring import Figures, Round, Run, figures, prompt_of
from tests.support.desktop import MODEL, OTHER
from tests.support.gemctl import Inside

if TYPE_CHECKING:
    from tests.support.desktop import Desktop


def run(tokens: int, decode_s: float | None, *, joules: float | None = None) -> Run:
    """An answer to a prompt of 100 tokens, which were read in half a second."""
    return Run(100, tokens, 0.5, decode_s, 0.6, joules)


def test_figures_are_medians_over_all_answers() -> None:
    """And those of all streams together the median of rounds, with everything in their time."""
    rounds = [
        Round((run(10, 1.0, joules=5), run(10, 2.0, joules=10)), 4.0),
        Round((run(10, 1.0, joules=5), run(10, 1.0)), 2.0),
        Round((run(10, 1.0), run(10, 2.0)), 5.0),
    ]
    assert figures(rounds) == Figures(
        streams=2,
        prompt_tokens=100,
        tokens=10,
        prompt_speed=200.0,
        speed=10.0,
        total_speed=5.0,
        first_token_s=0.6,
        tokens_per_joule=2.0,
    )


def test_what_no_answer_says_is_unknown() -> None:
    """Not 0, and no division by it."""
    found = figures([Round((Run(0, 5, None, 0.0, None, 0.0),), 1.0)])
    assert (found.prompt_speed, found.speed, found.first_token_s) == (None, None, None)
    assert found.tokens_per_joule is None
    assert found.total_speed == 5


@given(st.integers(1, 3000), st.integers(1, 3), st.integers(0, 40))
def test_a_prompt_is_about_as_long_as_it_should_be(wanted: int, per_word: int, frame: int) -> None:
    """Whatever a tokenizer makes of a word, and a template adds; no two begin alike."""

    def count(text: str) -> int:
        return frame + per_word * len(text.split())

    counted = count(prompt_of(wanted, 1, count))
    least = frame + 2 * per_word
    assert abs(counted - max(wanted, least)) <= max(1, wanted // 50) + per_word
    assert prompt_of(wanted, 1, count).split()[0] != prompt_of(wanted, 2, count).split()[0]


def test_a_real_model_is_measured(running: Desktop) -> None:
    """Each row with its length, and speeds that belong together; no prompt was in a cache."""
    asked = ("bench", MODEL, "--prompt-tokens", "64", "--tokens", "8", "--repeat", "1")
    done = running.gemctl(*asked, "--streams", "1,2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["model"] == MODEL
    assert document["memory_bytes"] > 0
    assert [each["streams"] for each in document["figures"]] == [1, 2]
    for each in document["figures"]:
        assert each["tokens"] == 8
        assert abs(each["prompt_tokens"] - 64) <= 2
        assert each["speed"] > 0
        assert 0 < each["total_speed"] < each["streams"] * each["speed"]
        assert each["first_token_s"] > 0
    table = running.gemctl(*asked, "--streams", "1").stdout.splitlines()
    assert table[0].startswith(f"{MODEL}, ")
    assert table[1].split()[:3] == ["STREAMS", "PROMPT", "WRITTEN"]
    assert table[2].split()[0] == "1"


@pytest.mark.usefixtures("both")
def test_a_base_model_is_measured_by_texts_that_it_continues(running: Desktop) -> None:
    """It takes no conversation."""
    asked = ("bench", OTHER, "--prompt-tokens", "32", "--tokens", "4", "--repeat", "1")
    done = running.gemctl(*asked, "--streams", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figures"][0]["tokens"] == 4


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--streams", "1,x"), "numbers with commas"),
        (("--streams", "0"), "from 1 to 64"),
        (("--streams", "65"), "from 1 to 64"),
        (("--tokens", "0"), "1 or more"),
        (("--prompt-tokens", "0"), "1 or more"),
        (("--repeat", "0"), "1 or more"),
        (("--repeat", "-1"), "whole number"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: tuple[str, ...], said: str) -> None:
    """Before a daemon is started for it."""
    done = Inside({"HOME": "/nowhere", "PATH": "/nowhere"})("bench", "smollm2-135m", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
