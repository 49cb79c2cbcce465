"""A gRPC server on a real socket that says what a test tells it to.

In a test: `with FakeDaemon(socket) as daemon: …`, then set its scripts and read `requests`.
As a program (`python -m tests.support.fake_daemon --socket PATH`) it stands in for `gemd`.
"""
# ruff: noqa: D102, N802 - the methods are RPCs: named and documented in proto/.

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import grpc

from gemd.v1 import (
    daemon_service_pb2,
    daemon_service_pb2_grpc,
    decision_pb2,
    device_pb2,
    generation_pb2,
    generation_service_pb2,
    generation_service_pb2_grpc,
    lease_pb2,
    lease_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    operation_pb2,
    operation_service_pb2,
    operation_service_pb2_grpc,
    store_service_pb2,
    store_service_pb2_grpc,
)
from gemd.v1 import (
    status_pb2 as daemon_status_pb2,
)
from tests.support.daemon_says import abort, answer, cpu, loading, model, operation
from tests.support.fake_daemon_service import FakeDaemonService
from tests.support.fake_leases import FakeLeases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message as Proto


Failure = Callable[[grpc.ServicerContext], NoReturn]


@dataclass
class Script:
    """What the daemon says; tests change it while it runs."""

    generate: Any = field(default_factory=lambda: answer("The capital of France", " is Paris."))
    models: dict[str, model_pb2.Model] = field(
        default_factory=lambda: {"smollm2-135m": model("smollm2-135m")}
    )
    pull: list[operation_pb2.Operation] = field(default_factory=list)
    """Snapshots of the one operation; the watch ends when they do."""
    prunes: list[operation_pb2.Operation] = field(default_factory=list)
    """What the next calls of PruneStore answer, first first; they have ended already."""
    verifications: list[operation_pb2.Operation] = field(default_factory=list)
    """The same of VerifyModel."""
    disk: model_pb2.DiskUse = field(default_factory=model_pb2.DiskUse)
    failures: list[Failure] = field(default_factory=list)
    """The next calls of any method fail with these, first first."""
    page_size: int = 100
    drained: daemon_service_pb2.DrainResponse = field(
        default_factory=lambda: daemon_service_pb2.DrainResponse(finished_requests=1)
    )
    devices: list[device_pb2.Device] = field(default_factory=lambda: [cpu()])
    on_battery: bool | None = None
    yielded: list[daemon_service_pb2.YieldedMemory] = field(default_factory=list)
    diagnoses: list[daemon_service_pb2.Diagnosis] = field(default_factory=list)
    events: list[daemon_service_pb2.WatchEventsResponse] = field(default_factory=list)
    watches: list[list[daemon_service_pb2.WatchEventsResponse | Failure]] = field(
        default_factory=list
    )
    """What the next calls of WatchEvents answer, first first, instead of `events`."""
    decisions: list[decision_pb2.Decision] = field(default_factory=list)
    leases: dict[str, lease_pb2.Lease] = field(default_factory=dict)
    """By name, oldest first."""
    schedules: list[daemon_status_pb2.Schedule] = field(default_factory=list)
    routing: daemon_status_pb2.Routing | None = None
    routes: list[daemon_status_pb2.Statistics.RouteShare] = field(default_factory=list)
    remembers: bool = True
    """Whether feedback can be used."""
    hold_watch: threading.Event | None = None
    """If set, the watch stands still before its last snapshot until this event."""


def _unscripted(_self: object, _request: object, context: grpc.ServicerContext) -> NoReturn:
    abort(context, grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED", "not scripted")


class FakeDaemon(
    FakeDaemonService,
    generation_service_pb2_grpc.GenerationServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
    operation_service_pb2_grpc.OperationServiceServicer,
    store_service_pb2_grpc.StoreServiceServicer,
):
    """All services of one daemon; state is in `script`, what came in is in `requests`."""

    Plan: Any = _unscripted
    Reload: Any = _unscripted

    def __init__(self, socket: Path | None = None, *, token: str | None = None) -> None:
        self.script = Script()
        self.requests: list[tuple[str, Proto]] = []
        self.metadata: list[dict[str, str]] = []
        self.deadlines: list[float | None] = []
        self.stream_ended = threading.Event()
        self.draining = threading.Event()
        self.token = token
        self._server = grpc.server(
            futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)]
        )
        daemon_service_pb2_grpc.add_DaemonServiceServicer_to_server(self, self._server)
        generation_service_pb2_grpc.add_GenerationServiceServicer_to_server(self, self._server)
        lease_service_pb2_grpc.add_LeaseServiceServicer_to_server(FakeLeases(self), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        operation_service_pb2_grpc.add_OperationServiceServicer_to_server(self, self._server)
        store_service_pb2_grpc.add_StoreServiceServicer_to_server(self, self._server)
        address = f"unix:{socket}" if socket else "127.0.0.1:0"
        self.port = self._server.add_insecure_port(address)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End at once; running calls fail."""
        self._server.stop(0).wait()

    def asked(self, method: str) -> list[Any]:
        """The requests of one method, in order."""
        return [request for name, request in self.requests if name == method]

    def _enter(self, method: str, request: Proto, context: grpc.ServicerContext) -> None:
        self.requests.append((method, request))
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        self.deadlines.append(context.time_remaining())
        if self.token and self.metadata[-1].get("authorization") != f"Bearer {self.token}":
            abort(context, grpc.StatusCode.UNAUTHENTICATED, "AUTH_REQUIRED", "no token")
        if self.script.failures:
            self.script.failures.pop(0)(context)

    def _model(self, name: str, context: grpc.ServicerContext) -> model_pb2.Model:
        bare = name.removeprefix("models/")
        if bare not in self.script.models:
            abort(
                context,
                grpc.StatusCode.NOT_FOUND,
                "MODEL_NOT_FOUND",
                f"no model is called {bare}",
                why="the catalogue has smollm2-135m",
                advice=["gemctl list", "gemctl run --model smollm2-135m"],
                metadata={"model": bare},
            )
        return self.script.models[bare]

    # --- GenerationService --------------------------------------------------------------

    def Generate(
        self, request: generation_service_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generation_service_pb2.GenerateResponse]:
        self._enter("Generate", request, context)
        context.add_callback(self.stream_ended.set)
        yield from self.script.generate(request, context)

    def Embed(
        self, request: generation_service_pb2.EmbedRequest, context: grpc.ServicerContext
    ) -> generation_service_pb2.EmbedResponse:
        self._enter("Embed", request, context)
        return generation_service_pb2.EmbedResponse(
            model="models/smollm2-135m",
            embeddings=[
                generation_service_pb2.Embedding(values=[0.0, 1.0], tokens=len(text.split()))
                for text in request.texts
            ],
        )

    def CountTokens(
        self, request: generation_service_pb2.CountTokensRequest, context: grpc.ServicerContext
    ) -> generation_service_pb2.CountTokensResponse:
        self._enter("CountTokens", request, context)
        return generation_service_pb2.CountTokensResponse(
            count=3, model="models/smollm2-135m", context_length=4096, token_ids=[1, 2, 3]
        )

    def Score(
        self, request: generation_service_pb2.ScoreRequest, context: grpc.ServicerContext
    ) -> generation_service_pb2.ScoreResponse:
        self._enter("Score", request, context)
        return generation_service_pb2.ScoreResponse(
            model="models/smollm2-135m",
            prompt_tokens=4,
            scores=[
                generation_service_pb2.ContinuationScore(
                    sum_logprob=-1.5,
                    token_count=1,
                    greedy_match=True,
                    tokens=[generation_pb2.TokenLogprob(token_id=5, token=b" Paris", logprob=-1.5)],
                )
                for _ in request.continuations
            ],
        )

    def SendFeedback(
        self, request: generation_service_pb2.SendFeedbackRequest, context: grpc.ServicerContext
    ) -> generation_service_pb2.SendFeedbackResponse:
        self._enter("SendFeedback", request, context)
        return generation_service_pb2.SendFeedbackResponse(recorded=self.script.remembers)

    # --- ModelService -------------------------------------------------------------------

    def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.ListModelsResponse:
        self._enter("ListModels", request, context)
        start = int(request.page_token or 0)
        end = start + self.script.page_size
        models = [
            one
            for one in self.script.models.values()
            if not request.states or one.state in request.states
        ]
        return model_service_pb2.ListModelsResponse(
            models=models[start:end],
            next_page_token=str(end) if end < len(models) else "",
            disk=self.script.disk,
        )

    def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.GetModelResponse:
        self._enter("GetModel", request, context)
        return model_service_pb2.GetModelResponse(model=self._model(request.name, context))

    def LoadModel(
        self, request: model_service_pb2.LoadModelRequest, context: grpc.ServicerContext
    ) -> Iterator[model_service_pb2.LoadModelResponse]:
        self._enter("LoadModel", request, context)
        found = self._model(request.model, context)
        for current in (0, 500, 1000):
            yield model_service_pb2.LoadModelResponse(loading=loading(current, 1000))
        found.state = model_pb2.Model.STATE_READY
        yield model_service_pb2.LoadModelResponse(ready=found)

    def UnloadModel(
        self, request: model_service_pb2.UnloadModelRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.UnloadModelResponse:
        self._enter("UnloadModel", request, context)
        found = self._model(request.model, context)
        found.state = model_pb2.Model.STATE_ON_DISK
        return model_service_pb2.UnloadModelResponse(model=found)

    def PinModel(
        self, request: model_service_pb2.PinModelRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.PinModelResponse:
        self._enter("PinModel", request, context)
        found = self._model(request.model, context)
        found.pinned = request.pinned
        return model_service_pb2.PinModelResponse(model=found)

    # --- StoreService and OperationService ----------------------------------------------

    def _begin(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter(method, request, context)
        found = self._model(request.model, context)
        if not self.script.pull:
            self.script.pull = [operation("SUCCEEDED", current=1000)]
        if self.script.pull[-1].state == operation_pb2.Operation.STATE_SUCCEEDED:
            absent = method == "DeleteModel"
            state = model_pb2.Model.STATE_ABSENT if absent else model_pb2.Model.STATE_ON_DISK
            found.state = state
            found.variants[0].on_disk = not absent
        return self.script.pull[0]

    def PullModel(
        self, request: store_service_pb2.PullModelRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.PullModelResponse:
        return store_service_pb2.PullModelResponse(
            operation=self._begin("PullModel", request, context)
        )

    def QuantizeModel(
        self, request: store_service_pb2.QuantizeModelRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.QuantizeModelResponse:
        return store_service_pb2.QuantizeModelResponse(
            operation=self._begin("QuantizeModel", request, context)
        )

    def VerifyModel(
        self, request: store_service_pb2.VerifyModelRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.VerifyModelResponse:
        self._enter("VerifyModel", request, context)
        self._model(request.model, context)
        return store_service_pb2.VerifyModelResponse(operation=self.script.verifications.pop(0))

    def DeleteModel(
        self, request: store_service_pb2.DeleteModelRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.DeleteModelResponse:
        return store_service_pb2.DeleteModelResponse(
            operation=self._begin("DeleteModel", request, context)
        )

    def PruneStore(
        self, request: store_service_pb2.PruneStoreRequest, context: grpc.ServicerContext
    ) -> store_service_pb2.PruneStoreResponse:
        self._enter("PruneStore", request, context)
        return store_service_pb2.PruneStoreResponse(operation=self.script.prunes.pop(0))

    def WatchOperation(
        self, request: operation_service_pb2.WatchOperationRequest, context: grpc.ServicerContext
    ) -> Iterator[operation_service_pb2.WatchOperationResponse]:
        self._enter("WatchOperation", request, context)
        for position, snapshot in enumerate(self.script.pull):
            if position == len(self.script.pull) - 1 and self.script.hold_watch is not None:
                context.add_callback(self.script.hold_watch.set)
                self.script.hold_watch.wait()
            yield operation_service_pb2.WatchOperationResponse(operation=snapshot)

    def GetOperation(
        self, request: operation_service_pb2.GetOperationRequest, context: grpc.ServicerContext
    ) -> operation_service_pb2.GetOperationResponse:
        self._enter("GetOperation", request, context)
        return operation_service_pb2.GetOperationResponse(operation=self.script.pull[0])

    def ListOperations(
        self, request: operation_service_pb2.ListOperationsRequest, context: grpc.ServicerContext
    ) -> operation_service_pb2.ListOperationsResponse:
        self._enter("ListOperations", request, context)
        return operation_service_pb2.ListOperationsResponse(operations=self.script.pull)

    def CancelOperation(
        self, request: operation_service_pb2.CancelOperationRequest, context: grpc.ServicerContext
    ) -> operation_service_pb2.CancelOperationResponse:
        self._enter("CancelOperation", request, context)
        if request.name != "operations/7":
            abort(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", f"no {request.name}")
        return operation_service_pb2.CancelOperationResponse(operation=operation("CANCELLING"))


def main() -> None:
    """Stand in for `gemd`, or fail as it could: ``--fail CODE TEXT``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path)
    parser.add_argument("--autostarted", action="store_true")
    parser.add_argument("--fail", nargs=2, metavar=("CODE", "TEXT"))
    arguments = parser.parse_args()
    if arguments.fail:
        sys.stderr.write(arguments.fail[1] + "\n")
        raise SystemExit(int(arguments.fail[0]))
    arguments.socket.parent.mkdir(parents=True, exist_ok=True)
    with FakeDaemon(arguments.socket) as daemon:
        signal.signal(signal.SIGTERM, lambda *_: daemon.draining.set())
        daemon.draining.wait()


if __name__ == "__main__":
    main()
