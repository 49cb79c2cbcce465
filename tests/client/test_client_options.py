"""What calls can be told beside their input, as a real daemon is told it by both clients."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from gemd.client import AsyncClient, Client, Model, RetryPolicy, UnimplementedError
from gemd.store import Kind
from tests.support.app import MODEL, Running, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from gemd.rpc.requests import RequestRecord, Waits

ONCE = RetryPolicy(attempts=1)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A daemon with one scripted model, which was made for pooling by its texts' last words."""
    async with serving(load={"pooling": "last"}) as daemon:
        yield daemon


@pytest.fixture(params=["sync", "async"])
async def ask(running: Running, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Awaits what a function makes of a client: of either, each in its own way."""
    socket = running.paths.socket
    if request.param == "async":
        async with AsyncClient(socket, name="test/1", retry=ONCE) as aio:

            async def directly(call: Callable[[Any], Any]) -> Any:
                made = call(aio)
                return await made if inspect.isawaitable(made) else [each async for each in made]

            yield directly
        return
    with Client(socket, name="test/1", retry=ONCE) as client:

        def here(call: Callable[[Any], Any]) -> Any:
            made = call(client)
            return list(made) if hasattr(made, "__next__") else made

        async def in_a_thread(call: Callable[[Any], Any]) -> Any:
            return await asyncio.to_thread(here, call)

        yield in_a_thread


class Ended:
    """Follows requests; those that have ended, in order."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def began(self, record: RequestRecord) -> None:
        """See `Follower`."""

    def ended(self, record: RequestRecord, waits: Waits) -> None:
        """See `Follower`."""
        self.records.append(record)


@pytest.fixture
def ended(running: Running) -> Ended:
    """All requests from now on."""
    follower = Ended()
    running.app.requests.followers.append(follower)
    return follower


@pytest.fixture
def holds(running: Running, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every load and request, whether it goes behind those that somebody waits for."""
    seen: list[bool] = []
    hold = running.app.manager.hold

    def noting(*args: Any, **options: Any) -> Any:
        seen.append(options["background"])
        return hold(*args, **options)

    monkeypatch.setattr(running.app.manager, "hold", noting)
    return seen


WORKS: dict[str, Callable[..., Any]] = {
    "Embed": lambda client, **options: client.embed(["a b"], model=MODEL, **options),
    "Score": lambda client, **options: client.score("a", ["b"], model=MODEL, **options),
}


@pytest.mark.parametrize("method", WORKS)
async def test_a_work_has_the_id_and_the_priority_that_it_is_given(
    ask: Any, ended: Ended, holds: list[bool], method: str
) -> None:
    """Without them the daemon makes an id, and somebody waits for it."""
    work = WORKS[method]
    await ask(lambda client: work(client, request_id="my-own", background=True))
    await ask(work)
    named, plain = ended.records
    assert (named.method, named.client, named.request_id) == (method, "test/1", "my-own")
    assert (named.background, plain.background) == (True, False)
    assert plain.request_id not in {"", "my-own"}
    assert holds == [True, False]


async def test_a_load_has_the_priority_that_it_is_given(ask: Any, holds: list[bool]) -> None:
    """By default somebody waits for it."""
    for options in ({"background": True}, {}):
        events = await ask(lambda client, options=options: client.load(MODEL, **options))
        assert isinstance(events[-1], Model)
    assert holds == [True, False]


async def test_no_load_has_a_context_of_its_own(ask: Any) -> None:
    """As the documentation of the clients says."""
    with pytest.raises(UnimplementedError, match="context_length"):
        await ask(lambda client: client.load(MODEL, context_length=2048))


async def test_a_pooling_is_asked_for_or_left_to_the_model(ask: Any) -> None:
    """The model's own way is another than the mean."""

    async def vectors(**options: Any) -> Any:
        found = await ask(lambda client: client.embed(["a b"], model=MODEL, **options))
        return found.vectors

    mean, last = await vectors(pooling="mean"), await vectors(pooling="last")
    assert mean != last
    assert await vectors() == await vectors(pooling=None) == last


@pytest.mark.parametrize("pooling", ["cls", "unspecific"])
async def test_a_pooling_that_there_is_not_is_refused_at_once(ask: Any, pooling: str) -> None:
    """As any value that is none of its kind."""
    with pytest.raises(ValueError, match=pooling.upper()):
        await ask(lambda client: client.embed(["a"], pooling=pooling))


async def never(_: object) -> Any:
    """Work that only ends when it is cancelled."""
    await asyncio.Event().wait()


@pytest.fixture
async def worked(running: Running) -> None:
    """Two pulls and a verification, of which one pull was cancelled."""
    operations = running.app._operations
    operations.start(Kind.PULL, "one", never)
    cancelled = operations.start(Kind.PULL, "two", never)
    await operations.cancel(cancelled.id)
    operations.start(Kind.VERIFY, "two", never)


@pytest.mark.parametrize(
    "options,expected",
    [
        ({}, {("PULL", "one"), ("PULL", "two"), ("VERIFY", "two")}),
        ({"kinds": ["PULL"]}, {("PULL", "one"), ("PULL", "two")}),
        ({"kinds": ["pull", "VERIFY"], "states": ["CANCELLED"]}, {("PULL", "two")}),
        ({"states": ["CANCELLED"]}, {("PULL", "two")}),
        ({"kinds": ["VERIFY"], "model": "one"}, set()),
        ({"kinds": ["DELETE"]}, set()),
    ],
)
@pytest.mark.usefixtures("worked")
async def test_operations_of_a_kind_or_in_a_state(
    ask: Any, options: dict[str, Sequence[str]], expected: set[tuple[str, str]]
) -> None:
    """Both narrow the list, beside the model."""
    found = await ask(lambda client: client.operations(**options))
    assert {(each.kind, each.model) for each in found} == expected


@pytest.mark.parametrize("options", [{"kinds": ["PULLS"]}, {"states": ["ASLEEP"]}])
async def test_a_kind_that_there_is_not_is_refused(ask: Any, options: dict[str, Any]) -> None:
    """It is not left out, which would list all."""
    with pytest.raises(ValueError, match=r"PULLS|ASLEEP"):
        await ask(lambda client: client.operations(**options))
