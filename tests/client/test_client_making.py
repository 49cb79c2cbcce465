"""Making and checking variants, through the clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gemd.client import AsyncClient, Client, Operation, Unit
from gemd.v1 import operation_pb2
from gemd.v1 import store_service_pb2 as service
from tests.support.daemon_says import model, operation
from tests.support.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.protobuf.message import Message

OPTIONS: dict[str, Any] = {
    "source_variant": "f16",
    "variant": "mine",
    "force": True,
    "discard_source": True,
    "accept_licence": True,
    "quantize_dense": True,
    "importance_matrix": "/i.gguf",
}


@pytest.fixture
def daemon(socket: Path) -> Iterator[FakeDaemon]:
    """A daemon that has made a variant, and has found it bad."""
    with FakeDaemon(socket) as running:
        running.script.models = {"tiny": model("tiny")}
        made = operation("SUCCEEDED", kind=operation_pb2.Operation.KIND_QUANTIZE)
        made.quantize.variant = "mine"
        running.script.pull = [made]
        checked = operation("SUCCEEDED", kind=operation_pb2.Operation.KIND_VERIFY)
        checked.verify.checks.add(check="sha256", passed=False, detail="another one")
        running.script.verifications = [checked]
        yield running


def check(daemon: FakeDaemon, made: Operation, checked: Operation) -> None:
    """What came back, and what was asked for."""
    assert (made.kind, made.raw.quantize.variant) == ("QUANTIZE", "mine")
    # A verdict is a result, and no error.
    assert (checked.done, checked.error, checked.raw.verify.passed) == (True, None, False)
    [asked] = daemon.asked("QuantizeModel")
    assert (asked.model, asked.quantization) == ("tiny", "Q4_0")
    assert {name: getattr(asked, name) for name in OPTIONS} == OPTIONS
    # Another attempt of the same call is known by it.
    assert asked.request_id
    [asked] = daemon.asked("VerifyModel")
    assert (asked.model, asked.variant) == ("tiny", "mine")
    assert asked.depth == service.VerifyModelRequest.DEPTH_FULL


def test_every_wish_reaches_the_daemon(daemon: FakeDaemon, socket: Path) -> None:
    """With threads."""
    with Client(socket) as client:
        made = client.quantize("tiny", "Q4_0", **OPTIONS)
        checked = client.wait(client.verify("tiny", variant="mine", full=True).name)
    check(daemon, made, checked)


async def test_and_on_asyncio(daemon: FakeDaemon, socket: Path) -> None:
    """The same calls."""
    async with AsyncClient(socket) as client:
        made = await client.quantize("tiny", "Q4_0", **OPTIONS)
        begun = await client.verify("tiny", variant="mine", full=True)
        checked = await client.wait(begun.name)
    check(daemon, made, checked)


def test_all_fields_of_the_request_can_be_wished() -> None:
    """One that the API gets later is missed here."""
    kind: type[Message] = service.QuantizeModelRequest
    named = {field.name for field in kind.DESCRIPTOR.fields}
    assert named == {"model", "quantization", "request_id", *OPTIONS}


def test_units_are_plain_values() -> None:
    """What is counted, and whether each is begun and done."""
    proto = operation("RUNNING")
    unit = proto.units.add(id="a", name="a.gguf", current=5, total=10)
    unit.measure = operation_pb2.Operation.Unit.MEASURE_BYTES
    unit.started.FromSeconds(1)
    (found,) = Operation.of(proto).units
    assert found == Unit(
        name="a.gguf", current=5, total=10, measure="BYTES", begun=True, done=False
    )
