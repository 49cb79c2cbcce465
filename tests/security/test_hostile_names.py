"""Names that lead elsewhere, in every text of every request: nothing outside is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import duration_pb2, message_factory
from google.protobuf.descriptor import FieldDescriptor

from gemd.v1 import generation_service_pb2 as generation
from gemd.v1 import lease_service_pb2 as lease
from gemd.v1 import store_service_pb2 as store
from tests.support.app import MODEL, Running, serving, until
from tests.support.methods import MODULES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.protobuf.descriptor import Descriptor, MethodDescriptor
    from google.protobuf.message import Message

VICTIM = b"GGUF, says a file that is none"
DEEPEST = 3
ENDING = {"Drain", "Yield", "Reload", "WatchEvents"}
"""Drain ends the daemon; Yield unloads the models; WatchEvents has no text and no end."""


ORDINARY: dict[str, Message] = {
    "GenerateRequest": generation.GenerateRequest(model=MODEL, text="x"),
    "EmbedRequest": generation.EmbedRequest(model=MODEL, texts=["x"]),
    "CountTokensRequest": generation.CountTokensRequest(model=MODEL, text="x"),
    "ScoreRequest": generation.ScoreRequest(
        model=MODEL, text="x", continuations=[generation.Continuation(text="y")]
    ),
    "CreateLeaseRequest": lease.CreateLeaseRequest(
        model=MODEL, ttl=duration_pb2.Duration(seconds=2)
    ),
    "RenewLeaseRequest": lease.RenewLeaseRequest(ttl=duration_pb2.Duration(seconds=2)),
    "PullModelRequest": store.PullModelRequest(model=MODEL),
    "QuantizeModelRequest": store.QuantizeModelRequest(model=MODEL, quantization="Q4_0"),
    "DeleteModelRequest": store.DeleteModelRequest(model=MODEL, force=True),
}
"""What makes the other fields of a request be read; without it, most are refused before."""


def hostile(victim: Path) -> list[str]:
    """Names that no model, operation, device or file has."""
    up = "../" * 12
    return [
        str(victim),
        f"{up}{victim.relative_to('/')}",
        f"models/{up}{victim.relative_to('/')}",
        f"operations/{up}{victim.relative_to('/')}",
        f"local/scripted:{up}{victim.relative_to('/')}",
        f"file://{victim}",
        "..",
        "/",
        "~",
        f"$(touch {victim.parent.with_name('was-here')})",
        "`id`; rm -rf ~",
        "a\x00b",
        "a\nb\r\x1b]0;title\x07\x1b[2J",
        "--help",
        "%2e%2e%2fetc%2fpasswd",
        "CON:" + "x" * 5000,
        "\u202egemd\u2066",
        "\U0001f600" * 300,
    ]


def api_methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """Those of our own services that do not end what is tested."""
    for module in MODULES:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if method.name not in ENDING:
                    yield f"/{service.full_name}/{method.name}", method


def texts_of(kind: Descriptor, depth: int = 0) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Ways to every text field of a message, through messages and lists of them."""
    for field in kind.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (field,)
        elif field.message_type is not None and depth < DEEPEST and not is_map(field):
            for rest in texts_of(field.message_type, depth + 1):
                yield (field, *rest)


def is_map(field: FieldDescriptor) -> bool:
    """Whether it is one."""
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


def filled(kind: Descriptor, way: tuple[FieldDescriptor, ...], text: str) -> Message:
    """An ordinary message but for one text, at the end of a way."""
    made: Message = message_factory.GetMessageClass(kind)()
    made.MergeFrom(ORDINARY.get(kind.name, type(made)()))
    inside: Any = made
    *containers, last = way
    for field in containers:
        inside = getattr(inside, field.name)
        if field.is_repeated:
            inside = inside.add()
        else:
            inside.SetInParent()
    if last.is_repeated:
        getattr(inside, last.name).append(text)
    else:
        setattr(inside, last.name, text)
    return made


async def code_of(running: Running, path: str, method: MethodDescriptor, request: Message) -> Any:
    """How the call ends, or OK if it begins to answer."""
    codec: dict[str, Any] = {
        "request_serializer": type(request).SerializeToString,
        "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString,
    }
    try:
        if method.server_streaming:
            call: Any = running.channel.unary_stream(path, **codec)(request, timeout=20)
            async for _ in call:
                pass
        else:
            await running.channel.unary_unary(path, **codec)(request, timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def everything(folder: Path) -> dict[Path, bytes]:
    """All files below a folder with what is in them."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "path, method", list(api_methods()), ids=lambda given: getattr(given, "name", None)
)
async def test_no_text_leads_outside(tmp_path: Path, path: str, method: MethodDescriptor) -> None:
    """Whatever a field says: an error of the caller's, or an answer; never a defect of ours."""
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim.gguf"
    victim.write_bytes(VICTIM)
    before = everything(outside)
    async with serving() as running:
        for way in texts_of(method.input_type):
            for text in hostile(victim):
                request = filled(method.input_type, way, text)
                code = await code_of(running, path, method, request)
                where = ".".join(field.name for field in way)
                assert code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, (
                    where,
                    text,
                )
                assert code is not grpc.StatusCode.DEADLINE_EXCEEDED, (where, text)
        await until(lambda: all(item.done for item in running.app._operations.list()))
        assert await running.answer("it goes on") == "it goes on"
    assert everything(outside) == before
    assert not (tmp_path / "was-here").exists()
