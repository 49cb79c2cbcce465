"""Shadow runs: the strong model answers shipped drafts when nobody waits, and labels come of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from gemd.residency.states import State
from gemd.routing.risk import SHARE, Basis, Judgement, Label, Verdict, is_drawn
from gemd.rpc import shadow
from gemd.rpc.shadow import ShadowRuns, Shipped
from gemd.v1 import daemon_service_pb2
from gemd.v1.model_service_pb2 import LoadModelRequest, UnloadModelRequest
from gemd.wire import ChatMessage, Prompt
from tests.support.app import until
from tests.support.tiers import FAST, STRONG, play
from tests.support.two_tiers import ask, both_tiers, scripted, trace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.support.app import Running

SEED = next(seed for seed in range(10_000) if is_drawn(1, seed))
"""Draws the first draft that is shipped."""
SHIP = Judgement(Verdict.SHIP, 0.1, 0.3, Basis.REFERENCE, "X", "x", {}, {"prior": 0.2}, "FACT")
QUESTION = "How many is six times seven?"


class Stage:
    """Shadow runs whose pauses end when the test says so.

    Attributes:
        labels: That came of them.
        busy: Whether somebody waits for an answer.
        served: Requests so far.
        allowed: Whether the machine may work.
        pausing: Pauses that were begun.

    """

    def __init__(self, running: Running) -> None:
        self.labels: list[Label] = []
        self.busy = False
        self.served = 0
        self.allowed = True
        self.pausing = 0
        self._pauses: asyncio.Queue[None] = asyncio.Queue()
        self._let = 0
        self.runs = ShadowRuns(
            manager=running.app.manager,
            sampling_defaults=lambda _: {},
            busy=lambda: self.busy,
            served=lambda: self.served,
            allowed=lambda: self.allowed,
            pause=self._pause,
            wall=lambda: 5000.0,
            seed=SEED,
        )
        self.runs.start()

    async def _pause(self, _: float) -> None:
        self.pausing += 1
        await self._pauses.get()

    async def let(self) -> None:
        """End the pause that it is in, once it is in one."""
        await until(lambda: self.pausing > self._let)
        self._let += 1
        self._pauses.put_nowait(None)

    def offer(self, draft: str = "It is 42.", **strong: Any) -> None:
        """A draft was shipped of which the strong model makes what the script says."""
        prompt = Prompt(
            chat=(
                ChatMessage(role="user", text=play(strong=strong)),
                ChatMessage(role="assistant", text="I see."),
                ChatMessage(role="user", text=QUESTION),
            )
        )
        self.runs.offer(
            Shipped("r", prompt, QUESTION, draft, SHIP, "balanced", STRONG, self.labels.append)
        )


@pytest.fixture(name="running")
async def _running() -> AsyncGenerator[Running]:
    async with both_tiers() as daemon:
        yield daemon


@contextlib.asynccontextmanager
async def staged(running: Running) -> AsyncGenerator[Stage]:
    """Shadow runs that end with the test, and leave nothing behind."""
    stage = Stage(running)
    yield stage
    async with asyncio.timeout(5):
        await stage.runs.stop()
    await until(lambda: running.app.manager.residence(STRONG).active == 0)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("shadow")]


@pytest.mark.parametrize("answer,good", [("42.", True), ("41.", False)])
async def test_answers_to_a_closed_question_are_compared(
    running: Running, answer: str, *, good: bool
) -> None:
    """What comes of it is a label with the share of drafts that get one, and no text."""
    async with staged(running) as stage:
        stage.offer(tokens=["It", " is", f" {answer}"])
        await stage.let()
        await until(lambda: bool(stage.labels))
    [label] = stage.labels
    assert (label.good, label.origin, label.propensity) == (good, "r/0", SHARE)
    assert label.is_of_shipped


async def test_nothing_begins_while_somebody_asks(running: Running) -> None:
    """Nor when somebody has asked since, nor on battery."""
    async with staged(running) as stage:
        stage.offer(tokens=["42"])
        stage.busy = True
        await stage.let()
        await until(lambda: stage.pausing == 2)
        stage.busy = False
        stage.served += 1
        await stage.let()
        await until(lambda: stage.pausing == 3)
        stage.allowed = False
        await stage.let()
        await until(lambda: stage.pausing == 4)
        assert stage.labels == []
        stage.allowed = True
        await stage.let()
        await until(lambda: bool(stage.labels))


async def test_a_run_gives_way_and_is_begun_again(running: Running) -> None:
    """A request that comes frees the worker at once, whatever the run is waiting for."""
    async with staged(running) as stage:
        stage.offer(count=1000, token_seconds=30.0)
        await stage.let()
        await until(lambda: running.app.manager.residence(STRONG).active == 1)
        stage.busy = True
        await until(lambda: running.app.manager.residence(STRONG).active == 0)
        stage.busy = False
        await until(lambda: stage.pausing == 2)
        assert stage.labels == []


async def test_a_run_that_goes_wrong_is_the_last_of_its_draft_only(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of the worker, or a defect of ours: the next draft has its run."""

    def defective(*_: object) -> bool:
        raise ValueError("a defect")

    async with staged(running) as stage:
        stage.offer(crash_at=0)
        await stage.let()
        await until(lambda: running.app.manager.residence(STRONG).state is not State.READY)
        async for _ in running.models.LoadModel(LoadModelRequest(model=STRONG)):
            pass
        again = next(number for number in range(2, 999) if is_drawn(number, SEED))
        with monkeypatch.context() as patched:
            patched.setattr(shadow, "compare", defective)
            for _ in range(2, again + 1):
                stage.offer(tokens=["42"])
            await stage.let()
            await until(lambda: stage.pausing == 2)
            await until(lambda: not stage.runs._waiting)
            await until(lambda: running.app.manager.residence(STRONG).active == 0)
        third = next(number for number in range(again + 1, 999) if is_drawn(number, SEED))
        for _ in range(again + 1, third + 1):
            stage.offer(tokens=["42"])
        await stage.let()
        await until(lambda: bool(stage.labels))


async def test_nothing_is_loaded_for_it(running: Running) -> None:
    """A draft whose strong model is cold by then gets no label."""
    await running.models.UnloadModel(UnloadModelRequest(model=STRONG))
    async with staged(running) as stage:
        stage.offer(tokens=["42"])
        await stage.let()
        await until(lambda: not stage.runs._waiting)
        assert running.app.manager.residence(STRONG).state is not State.READY
        assert stage.labels == []


async def test_it_ends_in_the_middle_of_a_run(running: Running) -> None:
    """The worker is free by then."""
    async with staged(running) as stage:
        stage.offer(count=1000, token_seconds=30.0)
        await stage.let()
        await until(lambda: running.app.manager.residence(STRONG).active == 1)


async def test_a_daemon_learns_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched on, a draft that was shipped becomes a label by itself."""
    monkeypatch.setattr(shadow, "QUIET_S", 0.01)
    monkeypatch.setattr(secrets, "randbits", lambda _: SEED)
    async with both_tiers(shadow_runs=True) as running:
        models = {
            FAST: {"tokens": ["42"], "trace": trace(3, 0.1).model_dump()},
            STRONG: {"tokens": ["42"], "score": {"logprobs": [[-0.05]], "entropy": 0.2}},
        }
        told = await ask(running, scripted(models, question=QUESTION))
        assert told.text == "42"

        async def labels() -> int:
            asked = daemon_service_pb2.GetStatusRequest()
            return (await running.daemon.GetStatus(asked)).status.routing.labels

        async with asyncio.timeout(10):
            while not await labels():
                continue
