"""A request's arrival is handled at once where nothing is ahead of it, and in turn otherwise."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from gemd.errors import ShuttingDownError
from gemd.residency.states import State, StateChanged
from tests.support.residency import Plant, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from gemd.residency.hold import Hold
    from gemd.residency.manager import Manager
    from gemd.residency.states import Located


class Events(list[Any]):
    """What was published, and somebody who acts on it."""

    def __init__(self) -> None:
        super().__init__()
        self.listener: Callable[[object], None] = lambda _: None

    def append(self, event: object) -> None:
        """Keep and tell it."""
        super().append(event)
        self.listener(event)


@pytest.fixture
def events() -> Events:
    """Everything that is published."""
    return Events()


@pytest.fixture
def plant(events: Events) -> Plant:
    """A plant whose loads succeed at once."""
    return Plant(events=events)


@pytest.fixture
async def manager(plant: Plant) -> AsyncGenerator[Manager]:
    """A running manager with a warm model m."""
    async with plant.manager() as running:
        async with running.hold("m") as hold:
            await hold.worker()
        await settle()
        yield running


async def test_a_warm_model_is_granted_on_arrival(manager: Manager) -> None:
    """Before anything else of the event loop runs."""
    async with manager.hold("m") as hold:
        assert hold.granted
        assert manager.residence("m").active == 1


async def test_a_model_that_is_full_is_waited_for(manager: Manager) -> None:
    """What is not granted on arrival is not granted by being asked at once."""
    async with manager.hold("m", slots=2), manager.hold("m") as second:
        assert not second.granted


async def test_what_came_before_is_handled_before(manager: Manager) -> None:
    """A message that is still in the inbox is not overtaken."""
    manager.refuse()
    async with manager.hold("m") as hold:
        assert not hold.granted
        with pytest.raises(ShuttingDownError):
            await hold.worker()


async def test_no_arrival_is_handled_within_another_message(
    manager: Manager, events: Events
) -> None:
    """A listener that asks for a worker is told of a state that is not yet whole: it waits."""
    came: list[Hold] = []

    def ask(event: object) -> None:
        if not came and isinstance(event, StateChanged) and event.now.state is State.LOADING:
            came.append(manager.hold("m"))
            manager.admit_ticket(came[0]._ticket)
            assert not came[0].granted

    events.listener = ask
    async with manager.hold("other") as hold:
        await hold.worker()
    assert len(came) == 1
    assert (await came[0].worker()).spec.model == "m"
    manager.return_ticket(came[0]._ticket)


async def test_what_an_arrival_begins_is_not_the_requests(manager: Manager, plant: Plant) -> None:
    """A load outlives the request that was first, and is told of without its context."""
    whose = ContextVar("whose", default="nobody's")
    seen: list[str] = []
    locate = plant.locate

    async def located(model: str) -> Located:
        seen.append(whose.get())
        return await locate(model)

    manager._work._locate = located
    whose.set("the request's")
    async with manager.hold("other") as hold:
        await hold.worker()
    assert seen == ["nobody's"]


async def test_a_defect_on_arrival_ends_the_loop_and_nothing_is_handled_after_it(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a defect in any other message does; the daemon ends then."""

    def fail(_: object) -> None:
        raise ValueError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(manager._scheduler, "on_ticket", fail)
        manager.admit_ticket(manager.hold("m")._ticket)
    later = manager.hold("m")
    manager.admit_ticket(later._ticket)
    assert not later.granted
    await asyncio.wait_for(manager.failed(), 10)
    assert not later.granted
