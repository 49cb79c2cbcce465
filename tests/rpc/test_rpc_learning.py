"""What requests teach: the right pair learns, odds follow it, and nothing is left over."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gemd.routing.cascade import Job, Judged
from gemd.routing.decide import Choice, Strategy
from gemd.routing.prompt import look_at
from gemd.routing.request import Feedback, Request, Tier
from gemd.routing.risk import Basis, Judgement, KeptStates, Label, Source, Verdict
from gemd.routing.route import Pair
from gemd.routing.speeds import Speeds
from gemd.rpc import learning
from gemd.rpc.learning import Learning
from gemd.wire import ChatMessage, Prompt
from tests.support.app import until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SECRET = "The password of the safe is swordfish."
PROMPT = Prompt(chat=(ChatMessage(role="user", text=SECRET),))
SIGNALS = {"prior": 0.3, "severe_faults": 0.0, "mild_faults": 0.0}


@dataclass(frozen=True)
class Model:
    """What a pair is made of."""

    id: str
    quality: int = 1
    roles: tuple[str, ...] = ()
    variants: tuple[Any, ...] = field(default=())


PAIR = Pair(fast=Model("quick"), strong=Model("large"), checker=Model("large"))
OTHER = Pair(fast=Model("quick"), strong=Model("large"), checker=Model("small"))


def learned(folder: Path | None = None, identity: str = "v1") -> Learning:
    """One without labels, that keeps what it learns in the folder."""
    return Learning(
        speeds=Speeds(lambda _: ""),
        states=None if folder is None else lambda: KeptStates(folder),
        identity=lambda _: identity,
        budget=0.25,
        harm=0.1,
        wall=lambda: 5000.0,
    )


def job(strategy: Strategy = Strategy.DRAFT_AND_CHECK, request_id: str = "r") -> Job:
    """A drafted request."""
    return Job(
        asked=Request(prompt=PROMPT),
        look=look_at(PROMPT),
        choice=Choice(strategy, "quick", Tier.FAST, "PRICED", "x", drafter="quick"),
        request_id=request_id,
        work_id="w",
        seed=0,
        arrived=0.0,
        pair=PAIR,
    )


def judged(verdict: Verdict = Verdict.SHIP, *, checked: bool = True, final: bool = True) -> Judged:
    """A judgement of its draft."""
    made = Judgement(verdict, 0.2, 0.3, Basis.REFERENCE, "X", "x", {}, SIGNALS, "CHAT")
    return Judged(made, checked=checked, final=final, draft=SECRET, faults=(), seconds=0.1)


def texts(folder: Path) -> list[str]:
    """Of all files in it."""
    return [file.read_text() for file in folder.iterdir()]


def label(number: int, *, good: bool) -> Label:
    """Of a shipped draft."""
    return Label(
        signals={"prior": number % 10 / 10},
        good=good,
        source=Source.USER,
        origin=f"r{number}/0",
    )


def test_feedback_goes_to_the_pair_that_drafted() -> None:
    """Another pair with another checker learns nothing of it, and an unknown request nobody."""
    learning = learned()
    ours, others = learning.of(PAIR), learning.of(OTHER)
    learning.note(job(), judged(), ours)
    assert not learning.feedback("another", 0, Feedback.LIKED)
    assert learning.feedback("r", 0, Feedback.DISLIKED)
    assert [len(each.judge.labels) for each in (ours, others)] == [1, 0]
    assert learning.of(PAIR) is ours


def test_only_what_was_shipped_is_remembered() -> None:
    """Of a refined answer feedback says nothing about the draft."""
    learning = learned()
    lesson = learning.of(PAIR)
    learning.note(job(), judged(Verdict.REFINE), lesson)
    learning.note(job(request_id="s"), judged(Verdict.CHECK, final=False), lesson)
    assert not learning.feedback("r", 0, Feedback.LIKED)
    assert not learning.feedback("s", 0, Feedback.LIKED)


def test_the_share_of_checks_is_that_of_drafts_that_could_be_checked() -> None:
    """Each draft counts once, and one that nobody was to check does not."""
    learning = learned()
    lesson = learning.of(PAIR)
    before = learning.odds(lesson.judge).check_share
    for number in range(40):
        checked = number % 4 == 0
        if checked:
            learning.note(job(), judged(Verdict.CHECK, checked=False, final=False), lesson)
        learning.note(job(), judged(checked=checked), lesson)
        learning.note(job(Strategy.DRAFT), judged(checked=False), lesson)
    assert before == 1.0
    assert learning.odds(lesson.judge).check_share == 0.25


async def test_what_is_kept_has_no_text(tmp_path: Path) -> None:
    """Signals, verdicts and the request's id; and the next run knows them."""
    learning = learned(tmp_path)
    lesson = learning.of(PAIR)
    event = judged()
    lesson.judge.learn(event.judgement)
    learning.note(job(), event, lesson)
    learning.feedback("r", 0, Feedback.LIKED)
    await learning.close()
    [text] = texts(tmp_path)
    assert "swordfish" not in text
    assert json.loads(text)["judged"] == 1
    again = learned(tmp_path).of(PAIR).judge
    assert (again.report().judged, len(again.labels)) == (1, 1)
    changed = learned(tmp_path, identity="v2").of(PAIR).judge
    assert changed.report().judged == 0, "other weights are another drafter"


async def test_labels_are_fitted_beside_the_loop() -> None:
    """Those that come meanwhile are not lost, and the judge goes by the fit afterwards."""
    learning = learned()
    lesson = learning.of(PAIR)
    for number in range(200):
        learning.add(label(number, good=number % 10 < 7), lesson)
    assert lesson.judge.report().basis is not Basis.CALIBRATED
    await until(lambda: lesson.judge.report().basis is Basis.CALIBRATED)
    assert len(lesson.judge.labels) == 200
    await learning.close()


async def test_the_end_does_not_wait_for_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take long, and the next run fits the same labels. Nothing is left running."""
    begun, hang = asyncio.Event(), asyncio.Event()

    async def endless(*_: object, **__: object) -> None:
        begun.set()
        await hang.wait()

    learning_ = learned()
    lesson = learning_.of(PAIR)
    monkeypatch.setattr(learning, "in_thread", endless)
    for number in range(120):
        learning_.add(label(number, good=number % 2 == 0), lesson)
    await begun.wait()
    monkeypatch.undo()
    async with asyncio.timeout(5):
        await learning_.close()
    learning_.add(label(500, good=True), lesson)
    left = [task for task in asyncio.all_tasks() if "learning" in task.get_name()]
    assert left == []


async def test_a_disk_that_is_full_costs_no_request(tmp_path: Path) -> None:
    """What cannot be written is said in the log, and answers go on."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    learning = learned(blocked)
    lesson = learning.of(PAIR)
    lesson.judge.learn(judged().judgement)
    await learning.close()
    assert blocked.read_text() == "no folder"
