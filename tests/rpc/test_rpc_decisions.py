from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest

from gemd.residency.decisions import (
    Alternative,
    Decision,
    DecisionKind,
    MemoryChange,
    Reason,
)
from gemd.residency.ledger import Figures
from gemd.rpc.convert.decisions import KINDS
from gemd.rpc.convert.decisions import decision as convert
from gemd.v1 import daemon_service_pb2, decision_pb2, event_pb2, model_service_pb2
from tests.support.app import MODEL, Running, fails, serving, until


def made(kind: DecisionKind = DecisionKind.LOAD, **fields: Any) -> Decision:
    """A decision that says little."""
    values: dict[str, Any] = {"time": 0.0, "kind": kind, "summary": "so it is"}
    return Decision(**(values | fields))


async def explained(running: Running, **fields: Any) -> list[int]:
    """The sequence numbers of what Explain answers."""
    answer = await running.daemon.Explain(daemon_service_pb2.ExplainRequest(**fields))
    return [each.sequence for each in answer.decisions]


async def test_a_load_says_why_it_goes_where_it_goes() -> None:
    """Beside why it was loaded at all."""
    why = Reason("ON_GPU", "3 of 4 layers go to gpu0", {"layers": "3"})
    async with serving(adapt=lambda located: replace(located, placed=why)) as running:
        await running.answer("a b c")
        answer = await running.daemon.Explain(daemon_service_pb2.ExplainRequest(model=MODEL))
        [load] = [each for each in answer.decisions if each.kind == decision_pb2.Decision.KIND_LOAD]
        assert [each.code for each in load.reasons] == ["WANTED", "ON_GPU"]
        assert load.reasons[1].message == why.message


def test_a_decision_becomes_its_message() -> None:
    """Names of resources, wall time, figures before and after."""
    given = made(
        DecisionKind.EVICT,
        sequence=7,
        time=10.0,
        model="m",
        device="cpu",
        reasons=(Reason("CHEAPEST", "it is cheap", {"loss_seconds": "0.5"}),),
        alternatives=(
            Alternative("o", Reason("DEARER", "o is dearer"), 0.0),
            Alternative("p", Reason("PINNED", "p is pinned")),
        ),
        memory=(
            MemoryChange(
                Figures("cpu", budget=9, ours=5, reserved=1),
                Figures("cpu", budget=9, ours=2, reserved=0),
            ),
        ),
        inputs={"loss_seconds": 0.5},
        effect_s=0.25,
    )
    message = convert(given, wall_of=lambda moment: moment + 1000)
    assert (message.sequence, message.time.seconds) == (7, 1010)
    assert message.kind == decision_pb2.Decision.KIND_EVICT
    assert (message.model, message.device) == ("models/m", "devices/cpu")
    assert message.summary == "so it is"
    (reason,) = message.reasons
    assert (reason.code, reason.message) == ("CHEAPEST", "it is cheap")
    assert dict(reason.metadata) == {"loss_seconds": "0.5"}
    ranked, ruled_out = message.alternatives
    assert (ranked.subject, ranked.HasField("cost"), ranked.cost) == ("o", True, 0)
    assert not ruled_out.HasField("cost")
    (change,) = message.memory
    before, after = change.before, change.after
    assert (before.device, before.budget_bytes) == ("devices/cpu", 9)
    assert (before.ours_bytes, before.reserved_bytes) == (5, 1)
    assert (after.ours_bytes, after.reserved_bytes) == (2, 0)
    assert dict(message.inputs) == {"loss_seconds": 0.5}
    assert message.effect_duration.ToMilliseconds() == 250


def test_what_is_open_stays_unset() -> None:
    """No effect yet, no figures of afterwards; no model and no device, no name."""
    figures = Figures("cpu", budget=9, ours=5, reserved=1)
    message = convert(made(memory=(MemoryChange(figures),)), wall_of=lambda moment: moment)
    assert (message.model, message.device) == ("", "")
    assert not message.HasField("effect_duration")
    assert not message.memory[0].HasField("after")


@pytest.mark.parametrize("kind", DecisionKind)
def test_every_kind_has_the_name_of_the_api(kind: DecisionKind) -> None:
    """None is missing, and none is mixed up."""
    assert decision_pb2.Decision.Kind.Name(KINDS[kind]) == f"KIND_{kind.value}"


async def test_what_is_explained_is_filtered(running: Running) -> None:
    """By model, by device, by kinds; newest first."""
    record = running.app.manager.decisions.record
    record(made(DecisionKind.LOAD, model=MODEL, device="cpu"))
    record(made(DecisionKind.REFUSE, model="other", device="cpu"))
    record(made(DecisionKind.QUARANTINE, model=MODEL))
    assert await explained(running) == [3, 2, 1]
    for name in (MODEL, f"models/{MODEL}"):
        assert await explained(running, model=name) == [3, 1]
    for name in ("cpu", "devices/cpu"):
        assert await explained(running, device=name) == [2, 1]
    kinds = [decision_pb2.Decision.KIND_REFUSE, decision_pb2.Decision.KIND_QUARANTINE]
    assert await explained(running, kinds=kinds) == [3, 2]
    assert await explained(running, kinds=kinds, model=MODEL) == [3]


async def test_pages_stay_where_they_are(running: Running) -> None:
    """What is decided between two calls neither repeats nor hides anything."""
    record = running.app.manager.decisions.record
    for _ in range(5):
        record(made())
    request = daemon_service_pb2.ExplainRequest(page_size=2)
    first = await running.daemon.Explain(request)
    record(made())
    request.page_token = first.next_page_token
    second = await running.daemon.Explain(request)
    request.page_token = second.next_page_token
    last = await running.daemon.Explain(request)
    pages = [[each.sequence for each in page.decisions] for page in (first, second, last)]
    assert pages == [[5, 4], [3, 2], [1]]
    assert last.next_page_token == ""


async def test_what_does_not_exist_cannot_be_explained(running: Running) -> None:
    """An unknown model or device is told apart from one that nothing was decided about."""
    for request, reason in (
        (daemon_service_pb2.ExplainRequest(model="nobody"), "MODEL_NOT_FOUND"),
        (daemon_service_pb2.ExplainRequest(device="devices/gpu7"), "NOT_FOUND"),
    ):
        found = await fails(running.daemon.Explain(request))
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, reason)
    assert found.message == "there is no device 'gpu7'"
    assert found.metadata["device"] == "gpu7"
    found = await fails(running.daemon.Explain(daemon_service_pb2.ExplainRequest(device="x" * 129)))
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("device",))


async def test_a_decision_is_told_and_told_again_with_its_effect(running: Running) -> None:
    """Who watches decisions hears of nothing else."""
    manager = running.app.manager
    watch: Any = running.daemon.WatchEvents(
        daemon_service_pb2.WatchEventsRequest(
            initial_state=True, types=[event_pb2.Event.TYPE_DECISION]
        )
    )
    assert (await watch.read()).event.HasField("snapshot")
    await manager.pin(MODEL, pinned=True)
    figures = Figures("cpu", budget=9, ours=5, reserved=1)
    now = manager.time()
    number = manager.decisions.record(made(time=now, model=MODEL, memory=(MemoryChange(figures),)))
    manager.decisions.confirm(number, now=now + 2, figures={"cpu": figures})
    open_, confirmed = [(await watch.read()).event.decision for _ in range(2)]
    assert open_.sequence == confirmed.sequence == number
    assert not open_.HasField("effect_duration")
    assert confirmed.effect_duration.seconds == 2
    assert confirmed.memory[0].after.ours_bytes == 5
    watch.cancel()


async def test_what_really_happens_is_explained(running: Running) -> None:
    """Loads and unloads with their reasons, and with the memory and the time that they took."""
    for _ in range(2):
        async for _ in running.models.LoadModel(model_service_pb2.LoadModelRequest(model=MODEL)):
            pass
        await running.models.UnloadModel(model_service_pb2.UnloadModelRequest(model=MODEL))
    # The worker is gone; that its memory is free a sensor has yet to see.
    await until(lambda: all(each.effect_s for each in running.app.manager.decisions))
    answer = await running.daemon.Explain(daemon_service_pb2.ExplainRequest())
    told = [(each.kind, each.reasons[0].code) for each in answer.decisions]
    assert told == 2 * [
        (decision_pb2.Decision.KIND_UNLOAD, "ASKED"),
        (decision_pb2.Decision.KIND_LOAD, "WANTED"),
    ]
    for each in answer.decisions:
        assert (each.model, each.device) == (f"models/{MODEL}", "devices/cpu")
        assert each.HasField("effect_duration")
        assert each.memory[0].before.budget_bytes == each.memory[0].after.budget_bytes > 0
