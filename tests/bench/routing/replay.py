"""``python -m tests.bench.routing.replay``: what routing comes to on machines that are not here.

Replays drawn requests over tables of stated speeds with the program's own decision, and compares
it with policies that decide nothing. What a decision costs is measured in `deciding`.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from gemd.routing.decide import Strategy
from gemd.routing.request import CANVAS_TOKENS, Mode
from gemd.routing.risk import auroc
from gemd.routing.speeds import Speed
from tests.bench.report import Check, Section, record
from tests.bench.routing import replay_lambda
from tests.bench.routing import replay_run as run
from tests.bench.routing import replay_tables as tables
from tests.bench.routing.replay_tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemd.routing.decide import Odds
    from tests.bench.routing.replay_tables import Asked

COUNT: Final = 5000
SEED: Final = 20_261_127
AUROC: Final = 0.73
"""Of the judge that has a checker's scores, on closed tasks, unless another one is named."""
JUDGES: Final = (0.70, 0.75, 0.80)
MEAN_S: Final = 2.0
INSTANT: Final = 0.7
"""The mission's aim, for the mission's mix."""
_PLENTY: Final = 500.0
"""Tokens per second with which any policy keeps the aim."""
CANVASES_S: Final = (0.2, 0.366, 0.64)
"""Of an H100, an RTX 5090 and an RTX 4090, published."""


def machines(count: int = COUNT) -> Section:
    """Each table under each policy, on the mission's mix."""
    trace, odds = tables.draw(tables.MIXES[tables.MISSION], count, SEED), run.judge_odds(AUROC)
    bad = [asked.bad for asked in trace]
    simple = sum(asked.simple for asked in trace) / count
    section = Section(
        title="Routing, replayed on tables of machines",
        how=f"Computed, not measured: {count} drawn requests, {simple:.0%} of them simple, one at "
        "a time, all models warm; speeds are published or predicted ones "
        "(`tests/bench/routing/replay_tables.py` has them with their sources, and the mixes). "
        f"Of all drafts {sum(bad) / count:.1%} would be beaten by the strong tier's answer, which "
        f"the prior knows with an AUROC of {auroc([a.prior for a in trace], bad):.2f}, the "
        f"judge of drafts with {run.AUROC_ALONE:.2f} alone and {AUROC:.2f} with the checker's "
        "scores, where answers are right or wrong. Harm: a draft stayed that would have been "
        "beaten. First text: a provisional one counts. Wasted: mean time for drafts that did not "
        "stay. Ways: drafted, drafted and checked, direct.",
        head=(
            "machine",
            "policy",
            "mean s",
            "p50",
            "p95",
            "first text p50",
            "under 1 s",
            "text under 1 s",
            "harm",
            "refined of drafts",
            "wasted s",
            "ways",
        ),
    )
    for table in tables.TABLES:
        for name, policy in _policies(table, odds).items():
            found = run.totals(run.replay(trace, table, policy, odds))
            section.rows.append((table.name, name, *_cells(found)))
            if name == "gemd":
                section.checks += _checks(table, found)
    return section


def _policies(table: Table, odds: Odds) -> dict[str, run.Policy]:
    found: dict[str, run.Policy] = {
        "gemd": run.gemd_policy(odds),
        "always strong": run.always_strong,
    }
    if table.aimed:
        found["gemd, mode fast"] = run.gemd_policy(odds, Mode.FAST)
    if table.fast is not None:
        found["always fast"] = run.always_fast
        found["draft all, refine a quarter"] = run.always_check
    return found


def _cells(found: run.Totals) -> tuple[str, ...]:
    ways = (Strategy.DRAFT, Strategy.DRAFT_AND_CHECK, Strategy.DIRECT)
    return (
        f"{found.mean_s:.2f}",
        f"{found.p50_s:.2f}",
        f"{found.p95_s:.2f}",
        f"{found.first_s:.2f}",
        f"{found.instant:.0%}",
        f"{found.instant_text:.0%}",
        f"{found.harm:.1%}",
        f"{found.refined:.0%}" if found.drafted else "",
        f"{found.wasted_s:.2f}",
        " / ".join(f"{found.shares[way]:.0%}" for way in ways),
    )


def _checks(table: Table, found: run.Totals) -> list[Check]:
    if table.aimed:
        return [
            Check(f"{table.name}: mean", found.mean_s, MEAN_S, at_least=False, unit=" s"),
            Check(f"{table.name}: share under 1 s", found.instant, INSTANT, at_least=True),
        ]
    if table.fast is not None and _hopeless(table):
        name = f"{table.name}: drafted though a canvas takes longer than 256 tokens"
        return [Check(name, found.drafted, 0.0, at_least=False)]
    return []


def _hopeless(table: Table) -> bool:
    """Whether no answer of one canvas comes sooner from the fast tier."""
    fast, strong = table.fast, table.strong
    assert fast is not None
    assert fast.canvas_s is not None
    assert strong.decode_tps is not None
    return fast.canvas_s > CANVAS_TOKENS / strong.decode_tps


def mixes(count: int = COUNT) -> Section:
    """The two desktop tables with other mixes and other judges."""
    section = Section(
        title="Routing, replayed with other mixes and judges",
        how="As above, for gemd in mode balanced. AUROC is that of the judge with the checker's "
        "scores, where answers are right or wrong; gemd knows it. Beside it the strong tier alone.",
        head=(
            "machine",
            "mix",
            "AUROC",
            "mean s",
            "under 1 s",
            "harm",
            "refined of drafts",
            "drafted",
            "always strong: mean s",
            "always strong: under 1 s",
        ),
    )
    for table in tables.TABLES:
        if not (table.aimed and table.name.startswith("RTX")):
            continue
        for mix, shares in tables.MIXES.items():
            trace = tables.draw(shares, count, SEED)
            odds = run.judge_odds(AUROC)
            alone = run.totals(run.replay(trace, table, run.always_strong, odds))
            for area in JUDGES:
                odds = run.judge_odds(area)
                found = run.totals(run.replay(trace, table, run.gemd_policy(odds), odds))
                section.rows.append(
                    (
                        table.name,
                        mix,
                        f"{area:.2f}",
                        f"{found.mean_s:.2f}",
                        f"{found.instant:.0%}",
                        f"{found.harm:.1%}",
                        f"{found.refined:.0%}" if found.drafted else "",
                        f"{found.drafted:.0%}",
                        f"{alone.mean_s:.2f}",
                        f"{alone.instant:.0%}",
                    )
                )
    return section


def needed(count: int = COUNT) -> Section:
    """How fast the strong tier has to be for the mission's mean, beside each canvas."""
    trace, odds = tables.draw(tables.MIXES[tables.MISSION], count, SEED), run.judge_odds(AUROC)
    section = Section(
        title="Routing: the strong tier that the aim needs",
        how="The least tokens/s of the strong tier, to the next whole one, with which the "
        f"mission's mix has a mean below {MEAN_S:g} s; by bisection over replays as above, with "
        "the prompt read at 30 times that rate. The other figures are those at that rate.",
        head=("canvas s", "policy", "tokens/s", "under 1 s", "harm"),
    )
    policies = {
        "gemd": run.gemd_policy(odds),
        "always strong": run.always_strong,
        "draft all, refine a quarter": run.always_check,
    }
    for canvas_s in CANVASES_S:
        for name, policy in policies.items():
            at = partial(_at, trace, policy, odds, canvas_s)
            rate = _least(lambda rate, at=at: at(rate).mean_s < MEAN_S)  # type: ignore[misc]
            found = at(rate)
            cells = (f"{rate:.0f}", f"{found.instant:.0%}", f"{found.harm:.1%}")
            section.rows.append((f"{canvas_s:g}", name, *cells))
    return section


def _at(
    trace: list[Asked], policy: run.Policy, odds: Odds, canvas_s: float, rate: float
) -> run.Totals:
    """A replay on a machine of that canvas and that strong tier."""
    table = Table("", Speed(decode_tps=rate), Speed(canvas_s=canvas_s))
    return run.totals(run.replay(trace, table, policy, odds))


def _least(enough: Callable[[float], bool]) -> float:
    low, high = 1.0, _PLENTY
    while high - low > 1.0:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def lambdas(count: int = COUNT) -> tuple[Section, Section]:
    """What one avoided bad answer should be worth, and where that turns a decision."""
    trace, odds = tables.draw(tables.MIXES[tables.MISSION], count, SEED), run.judge_odds(AUROC)
    return replay_lambda.worth(trace, odds), replay_lambda.turns(odds)


def main() -> int:
    """Replay everything; 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.routing.replay", description=__doc__
    )
    parser.add_argument("--write", action="store_true", help="put the sections into RESULTS.md")
    write = parser.parse_args().write
    sections = [machines(), mixes(), needed(), *lambdas()]
    for section in sections:
        sys.stdout.write(section.text() + "\n")
    if write:
        record(sections)
    return 0 if all(check.holds for section in sections for check in section.checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
