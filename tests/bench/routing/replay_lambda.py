"""What one avoided bad answer should be worth, by replay: the weight of mode balanced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from gemd.routing.decide import DRAFTS, Ask, Strategy, decide
from gemd.routing.decide.pricing import LAMBDA_S
from gemd.routing.prompt import Look, Task
from gemd.routing.request import Mode
from tests.bench.report import Section
from tests.bench.routing import replay_run as run
from tests.bench.routing import replay_tables as tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.routing.decide import Odds
    from tests.bench.routing.replay_tables import Asked, Table

LAMBDAS_S: Final = (1.0, 3.0, 5.0, 7.0, 10.0)
PROMPT_TOKENS: Final = 100
ANSWERS: Final = (60, 120, 200)
"""Tokens that are expected of an answer."""
_STEPS: Final = 100
"""A prior is told to a hundredth."""


def worth(trace: Sequence[Asked], odds: Odds) -> Section:
    """The trace with other weights, on the tables that the mission's aim is for."""
    section = Section(
        title="Routing, replayed with other weights of a bad answer",
        how="As on the tables of machines, mode balanced, with lambda (the seconds that one "
        f"avoided bad answer is worth) as given; the program has {LAMBDA_S[Mode.BALANCED]:g}. "
        "Drafted: of the simple and of the hard requests.",
        head=(
            "lambda s",
            "machine",
            "mean s",
            "under 1 s",
            "harm",
            "simple drafted",
            "hard drafted",
        ),
    )
    for weight in LAMBDAS_S:
        with patch.dict(LAMBDA_S, {Mode.BALANCED: weight}):
            for table in _aimed():
                outcomes = run.replay(trace, table, run.gemd_policy(odds), odds)
                found = run.totals(outcomes)
                section.rows.append(
                    (
                        f"{weight:g}",
                        table.name,
                        f"{found.mean_s:.2f}",
                        f"{found.instant:.0%}",
                        f"{found.harm:.1%}",
                        f"{_drafted(trace, outcomes, simple=True):.0%}",
                        f"{_drafted(trace, outcomes, simple=False):.0%}",
                    )
                )
    return section


def _aimed() -> list[Table]:
    return [table for table in tables.TABLES if table.aimed]


def _drafted(trace: Sequence[Asked], outcomes: Sequence[run.Outcome], *, simple: bool) -> float:
    ways = [
        outcome.strategy
        for asked, outcome in zip(trace, outcomes, strict=True)
        if asked.simple is simple
    ]
    return sum(way in DRAFTS for way in ways) / len(ways)


def turns(odds: Odds) -> Section:
    """From which prior on a prompt is answered by the strong tier alone."""
    names = [table.name for table in _aimed()]
    section = Section(
        title="Routing: the prior from which on nothing is drafted",
        how=f"The least prior, in hundredths, with which a prompt of {PROMPT_TOKENS} tokens and of "
        "a task that is neither easy nor hard goes to the strong tier alone in mode balanced, by "
        "the tokens that are expected of its answer.",
        head=("expected tokens", *names),
    )
    for tokens in ANSWERS:
        section.rows.append((str(tokens), *(_turn(table, tokens, odds) for table in _aimed())))
    return section


def _turn(table: Table, tokens: int, odds: Odds) -> str:
    for step in range(_STEPS + 1):
        look = Look(
            text="",
            task=Task.FACT,
            prior=step / _STEPS,
            expected_tokens=tokens,
            long_output="",
            prompt_tokens=PROMPT_TOKENS,
        )
        if decide(Ask(), look, table.tiers(), odds).strategy is Strategy.DIRECT:
            return "always" if not step else f"{look.prior:.2f}"
    return "never"
