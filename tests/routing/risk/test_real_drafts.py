"""Drafts of real diffusion models, read by a real autoregressive one, under the reference judge."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch

from gemd import wire
from gemd.routing.checks import find_faults
from gemd.routing.risk import Evidence, Judge, Likelihood, State, Verdict, auroc
from gemd.routing.risk.judge import REFERENCE_UNTIL
from tests.support import diffusion, llama
from tests.support.drafts import look
from tests.support.engine_host import chat
from tests.support.tiny_diffusion import ANSWERS, TINY, UNDERTRAINED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow
"""The scenarios have a few of these in the default run, through the daemon."""

KNOWN = list(ANSWERS)[::3]
UNKNOWN = (
    "What is nine plus nine?",
    "What is the capital of Peru?",
    "Why do cats purr?",
    "Who wrote Hamlet?",
)
TOKENS = 32
"""One canvas."""


@dataclass(frozen=True)
class Draft:
    """What a drafter wrote."""

    path: Path
    asked: str
    text: str
    trace: wire.Trace | None

    @property
    def is_right(self) -> bool:
        """Whether it is what both models were taught."""
        return self.text == ANSWERS.get(self.asked)

    def evidence(self, likelihood: Likelihood | None = None) -> Evidence:
        """All that is known of it."""
        return Evidence(
            look(self.asked), self.trace, find_faults(self.asked, self.text), likelihood
        )


@pytest.fixture(scope="module", name="drafts")
def _drafts() -> list[Draft]:
    """Of both models, to questions that both were trained on and to others."""
    torch.set_num_threads(1)
    made = []
    for path in (TINY, UNDERTRAINED):
        with diffusion.bench(path) as bench:
            for asked in (*KNOWN, *UNKNOWN):
                request = bench.ask(asked, max_tokens=TOKENS)
                bench.run()
                made.append(Draft(path, asked, bench.text(request), bench.end(request).trace))
    return made


@pytest.fixture(scope="module", name="likelihoods")
def _likelihoods(drafts: list[Draft], smollm2: Path) -> list[Likelihood | None]:
    """Of the same drafts, in order; None of an empty one."""
    found: list[Likelihood | None] = []
    with llama.loaded(smollm2, chat_template=llama.CHATML) as bench:
        for index, draft in enumerate(drafts):
            if not draft.text:
                found.append(None)
                continue
            request = wire.Score(
                request_id=f"s{index}", prompt=chat(draft.asked), continuations=(draft.text,)
            )
            bench.run(request)
            [scored] = bench.of(request).one(wire.Scores).continuations
            found.append(Likelihood.of(scored.tokens))
    return found


def test_what_is_known_by_heart_ships_and_the_rest_is_doubted(drafts: list[Draft]) -> None:
    """Before another model has read anything, by the reference scales."""
    few = (0.0,) * REFERENCE_UNTIL
    judge = Judge(state=State(drafts=few, finals=few, refined=few, judged=REFERENCE_UNTIL))
    verdicts = {
        (draft.path, draft.asked): judge.judge(
            draft.evidence(), checked=False, may_check=True
        ).verdict
        for draft in drafts
    }
    assert {verdicts[TINY, asked] for asked in KNOWN} == {Verdict.SHIP}
    doubted = [verdicts[UNDERTRAINED, asked] for asked in (*KNOWN, *UNKNOWN)]
    doubted += [verdicts[TINY, asked] for asked in UNKNOWN]
    assert Verdict.SHIP not in doubted


def test_after_the_check_garbage_is_refined(
    drafts: list[Draft],
    likelihoods: list[Likelihood | None],
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    """What nobody knows is refined, with few exceptions; areas under the curve are printed."""
    judge = Judge()
    judged = [
        judge.judge(draft.evidence(likelihood), checked=likelihood is not None, may_check=False)
        for draft, likelihood in zip(drafts, likelihoods, strict=True)
    ]
    alone = [judge.judge(draft.evidence(), checked=False, may_check=False) for draft in drafts]
    wrong = [not draft.is_right for draft in drafts]
    undertrained = [draft.path == UNDERTRAINED for draft in drafts]
    figures = {
        "wrong, checked": auroc([each.risk for each in judged], wrong),
        "wrong, trace and text": auroc([each.risk for each in alone], wrong),
        "undertrained, trace and text": auroc([each.risk for each in alone], undertrained),
    }
    for name, value in figures.items():
        record_property(f"auroc_{name}", value)
    refined = [each.verdict is Verdict.REFINE for each in judged]
    unknown = [draft.asked in UNKNOWN for draft in drafts]
    shares = {
        "unknown": _share(refined, unknown),
        "undertrained and wrong": _share(
            refined, [bad and one for bad, one in zip(wrong, undertrained, strict=True)]
        ),
        "right": _share(refined, [not each for each in wrong]),
    }
    with capsys.disabled():
        rounded = {name: round(value, 3) for name, value in (figures | shares).items()}
        sys.stdout.write(f"\nreference judge, AUROC and shares refined: {rounded}\n")
    assert figures["wrong, checked"] > 0.9
    assert figures["wrong, trace and text"] > 0.8
    assert shares["unknown"] > 0.8
    assert shares["undertrained and wrong"] > 0.7
    assert shares["right"] < 0.4


def _share(refined: list[bool], among: list[bool]) -> float:
    counted = [each for each, one in zip(refined, among, strict=True) if one]
    return sum(counted) / len(counted)
