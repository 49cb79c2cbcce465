"""Messages with every field set, and a daemon that says nothing else: all that can be shown."""
# ruff: noqa: D102, N802 - the methods are RPCs: named and documented in proto/.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gemd.v1 import (
    daemon_service_pb2,
    event_pb2,
    generation_pb2,
    generation_service_pb2,
    lease_pb2,
    model_pb2,
    model_service_pb2,
    operation_pb2,
    operation_service_pb2,
    plan_pb2,
    status_pb2,
    store_service_pb2,
)
from tests.support.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import grpc
    from google.protobuf.message import Message

    M = TypeVar("M", bound=Message)

KEY = "any-key"
"""The one key of each map."""
_SECONDS = 86400 * 365
_RESULTS = ("pull", "quantize", "verify", "delete", "prune")
_NUMBERS = {
    FieldDescriptor.CPPTYPE_BOOL: True,
    FieldDescriptor.CPPTYPE_DOUBLE: 0.5,
    FieldDescriptor.CPPTYPE_FLOAT: 0.5,
}


def filled(kind: type[M], *, text: str = "text", **chosen: str) -> M:
    """A message in which each field of each message is set, lists with one element.

    Args:
        kind: Of what kind.
        text: What strings say; behind their first slash, for those that are resources' names.
        chosen: The field of each oneof, by the oneof's name, at any depth; else its last one.

    """
    made = kind()
    _fill(made, text, chosen, ())
    return made


def _fill(message: Any, text: str, chosen: dict[str, str], above: tuple[str, ...]) -> None:
    kind = message.DESCRIPTOR.full_name
    if isinstance(message, Duration | Timestamp):
        message.FromSeconds(_SECONDS)
        return
    if kind in above:
        return
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is None or field.name == chosen.get(oneof.name, oneof.fields[-1].name):
            _set(message, field, text, chosen, (*above, kind))


def _set(
    message: Any, field: FieldDescriptor, text: str, chosen: dict[str, str], above: tuple[str, ...]
) -> None:
    inner = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        if value.message_type is None:
            inner[f"{KEY}{text if text != 'text' else ''}"] = _scalar(value, text)
        else:
            _fill(inner[KEY], text, chosen, above)
    elif field.message_type is not None:
        repeated = field.is_repeated
        # Present also where there is nothing in it to set.
        part = inner.add() if repeated else inner
        if not repeated:
            inner.SetInParent()
        _fill(part, text, chosen, above)
    elif field.is_repeated:
        inner.append(_scalar(field, text))
    else:
        setattr(message, field.name, _scalar(field, text))


def _scalar(field: FieldDescriptor, text: str) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return b"bytes" if field.type == FieldDescriptor.TYPE_BYTES else text
    return _NUMBERS.get(field.cpp_type, 1)


def ended(work: str, *, text: str = "text") -> operation_pb2.Operation:
    """An operation of a kind that has succeeded, with the result of that kind."""
    made = filled(operation_pb2.Operation, text=text, result=work)
    made.kind = operation_pb2.Operation.Kind.Value(f"KIND_{work.upper()}")
    made.state = operation_pb2.Operation.STATE_SUCCEEDED
    made.name, made.model = f"operations/{text}", f"models/{text}"
    if work == "verify":
        made.verify.passed = True
    return made


def happening(payload: str, *, text: str = "text") -> daemon_service_pb2.WatchEventsResponse:
    """An event of a kind."""
    made = filled(event_pb2.Event, text=text, payload=payload)
    return daemon_service_pb2.WatchEventsResponse(event=made)


def answering(text: str) -> list[generation_service_pb2.GenerateResponse]:
    """Every event of an answer, in an order in which they could come."""
    kinds = [*("queued", "loading", "routed", "started", "canvas", "draft", "resolved", "delta")]
    made = [
        filled(generation_service_pb2.GenerateResponse, text=text, event=kind)
        for kind in (*kinds, "finished")
    ]
    for each in made:
        # One candidate, the first.
        content = getattr(each, each.WhichOneof("event") or "")
        if hasattr(content, "candidate"):
            content.candidate = 0
    made[4].canvas.text_offsets[:] = [0]
    made[5].draft.last = True
    made[6].resolved.resolution = generation_pb2.Resolved.RESOLUTION_REPLACED
    return made


class FilledDaemon(FakeDaemon):
    """Answers every call with messages that say all there is to say.

    Args:
        socket: Where it listens.
        text: What strings say in them.

    """

    def __init__(self, socket: Path, *, text: str = "text") -> None:
        super().__init__(socket)
        self.text = text
        script = self.script
        found = filled(model_pb2.Model, text=text)
        found.name, found.id = f"models/{text}", text
        found.state = model_pb2.Model.STATE_READY
        script.models = {text: found}
        script.disk = filled(model_pb2.DiskUse, text=text)
        status = filled(status_pb2.DaemonStatus, text=text)
        script.devices = list(status.devices)
        script.decisions = [
            each.decision for each in [filled(event_pb2.Event, text=text, payload="decision")]
        ]
        script.yielded = [filled(daemon_service_pb2.YieldedMemory, text=text)]
        script.diagnoses = [filled(daemon_service_pb2.Diagnosis, text=text)]
        script.leases = {"leases/1": filled(lease_pb2.Lease, text=text)}
        script.pull = [ended(each, text=text) for each in _RESULTS]
        script.pull.append(filled(operation_pb2.Operation, text=text, result="error"))
        script.generate = lambda _request, _context: iter(answering(text))
        script.events = [
            happening(field.name, text=text)
            for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields
        ]

    def _model(self, name: str, context: grpc.ServicerContext) -> model_pb2.Model:
        return self.script.models[self.text]

    def _ended(self, work: str, method: str, request: Any, context: Any) -> Any:
        self._enter(method, request, context)
        self.script.pull = [ended(work, text=self.text)]
        return self.script.pull[0]

    def GetInfo(
        self, request: daemon_service_pb2.GetInfoRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.GetInfoResponse:
        self._enter("GetInfo", request, context)
        return filled(daemon_service_pb2.GetInfoResponse, text=self.text)

    def GetStatus(
        self, request: daemon_service_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.GetStatusResponse:
        self._enter("GetStatus", request, context)
        made = filled(daemon_service_pb2.GetStatusResponse, text=self.text, result="pull")
        made.status.conditions[0].status = status_pb2.Condition.STATUS_TRUE
        return made

    def CancelOperation(
        self, request: operation_service_pb2.CancelOperationRequest, context: grpc.ServicerContext
    ) -> operation_service_pb2.CancelOperationResponse:
        self._enter("CancelOperation", request, context)
        return operation_service_pb2.CancelOperationResponse(operation=self.script.pull[0])

    def Plan(
        self, request: daemon_service_pb2.PlanRequest, context: grpc.ServicerContext
    ) -> daemon_service_pb2.PlanResponse:
        self._enter("Plan", request, context)
        plan = filled(plan_pb2.Plan, text=self.text)
        plan.verdicts.add().CopyFrom(plan.verdicts[0])
        plan.verdicts[1].chosen = False
        return daemon_service_pb2.PlanResponse(plan=plan)

    def LoadModel(
        self, request: model_service_pb2.LoadModelRequest, context: grpc.ServicerContext
    ) -> Iterator[model_service_pb2.LoadModelResponse]:
        self._enter("LoadModel", request, context)
        for each in ("queued", "loading", "ready"):
            made = filled(model_service_pb2.LoadModelResponse, text=self.text, event=each)
            yield made

    def PullModel(
        self, request: store_service_pb2.PullModelRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.PullModelResponse:
        done = self._ended("pull", "PullModel", request, context)
        return store_service_pb2.PullModelResponse(operation=done)

    def QuantizeModel(
        self, request: store_service_pb2.QuantizeModelRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.QuantizeModelResponse:
        done = self._ended("quantize", "QuantizeModel", request, context)
        return store_service_pb2.QuantizeModelResponse(operation=done)

    def VerifyModel(
        self, request: store_service_pb2.VerifyModelRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.VerifyModelResponse:
        done = self._ended("verify", "VerifyModel", request, context)
        return store_service_pb2.VerifyModelResponse(operation=done)

    def DeleteModel(
        self, request: store_service_pb2.DeleteModelRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.DeleteModelResponse:
        done = self._ended("delete", "DeleteModel", request, context)
        return store_service_pb2.DeleteModelResponse(operation=done)

    def PruneStore(
        self, request: store_service_pb2.PruneStoreRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.PruneStoreResponse:
        done = self._ended("prune", "PruneStore", request, context)
        return store_service_pb2.PruneStoreResponse(operation=done)
