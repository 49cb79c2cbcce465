"""The typed Python client of gemd, for programs with threads and programs on asyncio.

::

    from gemd.client import Client, default_socket

    with Client(default_socket()) as client:
        for event in client.chat("What is the capital of France?"):
            ...
        print(client.chat("And of Italy?").text())

Names are loaded when they are first used: a program that asks for the status of the daemon
need not wait for what it takes to read a generation.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gemd.client.aio import AsyncClient
    from gemd.client.aio_stream import AsyncGeneration, AsyncStream
    from gemd.client.answers import Answer, ContinuationScore, Embeddings, Scores, TokenCount
    from gemd.client.calls import GenerationOptions
    from gemd.client.decisions import Alternative, Decision, MemoryChange, Reason
    from gemd.client.diagnoses import Diagnosis
    from gemd.client.discovery import default_socket
    from gemd.client.disk import DiskUse, Variant
    from gemd.client.drained import Drained
    from gemd.client.endpoint import Endpoint
    from gemd.client.errors import (
        AuthenticationError,
        DaemonUnreachableError,
        DeadlineExpiredError,
        DoesNotFitError,
        EngineError,
        EventsLostError,
        GemdClientError,
        InvalidRequestError,
        ModelNotFoundError,
        QueueFullError,
        RequestCancelledError,
        ResourceNotFoundError,
        ShuttingDownError,
        UnimplementedError,
    )
    from gemd.client.events import (
        Canvas,
        Delta,
        Draft,
        Finished,
        GenerationEvent,
        LoadEvent,
        Loading,
        Queued,
        Resolved,
        Routed,
        Started,
        Timings,
        TokenLogprob,
        Usage,
    )
    from gemd.client.inputs import Gap, Message, Sampling
    from gemd.client.leases import Lease
    from gemd.client.operations import Operation, Unit
    from gemd.client.plans import (
        MemoryEstimate,
        Plan,
        PlannedDevice,
        PlannedModel,
        VariantVerdict,
    )
    from gemd.client.preview import DraftView, Preview
    from gemd.client.resources import (
        Condition,
        Device,
        Event,
        Info,
        Model,
        Status,
    )
    from gemd.client.retry import RetryPolicy
    from gemd.client.routing import ModelSpeed, RouteShare, Routing
    from gemd.client.schedules import Schedule
    from gemd.client.sync import Client
    from gemd.client.sync_stream import Generation, Stream
    from gemd.client.yielded import YieldedMemory

_HOMES = {
    "Alternative": "decisions",
    "Answer": "answers",
    "AsyncClient": "aio",
    "AsyncGeneration": "aio_stream",
    "AsyncStream": "aio_stream",
    "AuthenticationError": "errors",
    "Canvas": "events",
    "Client": "sync",
    "Condition": "resources",
    "ContinuationScore": "answers",
    "DaemonUnreachableError": "errors",
    "DeadlineExpiredError": "errors",
    "Decision": "decisions",
    "Delta": "events",
    "Device": "resources",
    "Diagnosis": "diagnoses",
    "DiskUse": "disk",
    "DoesNotFitError": "errors",
    "Draft": "events",
    "DraftView": "preview",
    "Drained": "drained",
    "Embeddings": "answers",
    "Endpoint": "endpoint",
    "EngineError": "errors",
    "Event": "resources",
    "EventsLostError": "errors",
    "Finished": "events",
    "Gap": "inputs",
    "GemdClientError": "errors",
    "Generation": "sync_stream",
    "GenerationEvent": "events",
    "GenerationOptions": "calls",
    "Info": "resources",
    "InvalidRequestError": "errors",
    "Lease": "leases",
    "LoadEvent": "events",
    "Loading": "events",
    "MemoryChange": "decisions",
    "MemoryEstimate": "plans",
    "Message": "inputs",
    "Model": "resources",
    "ModelNotFoundError": "errors",
    "ModelSpeed": "routing",
    "Operation": "operations",
    "Plan": "plans",
    "PlannedDevice": "plans",
    "PlannedModel": "plans",
    "Preview": "preview",
    "QueueFullError": "errors",
    "Queued": "events",
    "Reason": "decisions",
    "RequestCancelledError": "errors",
    "Resolved": "events",
    "ResourceNotFoundError": "errors",
    "RetryPolicy": "retry",
    "RouteShare": "routing",
    "Routed": "events",
    "Routing": "routing",
    "Sampling": "inputs",
    "Schedule": "schedules",
    "Scores": "answers",
    "ShuttingDownError": "errors",
    "Started": "events",
    "Status": "resources",
    "Stream": "sync_stream",
    "Timings": "events",
    "TokenCount": "answers",
    "TokenLogprob": "events",
    "UnimplementedError": "errors",
    "Unit": "operations",
    "Usage": "events",
    "Variant": "disk",
    "VariantVerdict": "plans",
    "YieldedMemory": "yielded",
    "default_socket": "discovery",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "Alternative",
    "Answer",
    "AsyncClient",
    "AsyncGeneration",
    "AsyncStream",
    "AuthenticationError",
    "Canvas",
    "Client",
    "Condition",
    "ContinuationScore",
    "DaemonUnreachableError",
    "DeadlineExpiredError",
    "Decision",
    "Delta",
    "Device",
    "Diagnosis",
    "DiskUse",
    "DoesNotFitError",
    "Draft",
    "DraftView",
    "Drained",
    "Embeddings",
    "Endpoint",
    "EngineError",
    "Event",
    "EventsLostError",
    "Finished",
    "Gap",
    "GemdClientError",
    "Generation",
    "GenerationEvent",
    "GenerationOptions",
    "Info",
    "InvalidRequestError",
    "Lease",
    "LoadEvent",
    "Loading",
    "MemoryChange",
    "MemoryEstimate",
    "Message",
    "Model",
    "ModelNotFoundError",
    "ModelSpeed",
    "Operation",
    "Plan",
    "PlannedDevice",
    "PlannedModel",
    "Preview",
    "QueueFullError",
    "Queued",
    "Reason",
    "RequestCancelledError",
    "Resolved",
    "ResourceNotFoundError",
    "RetryPolicy",
    "RouteShare",
    "Routed",
    "Routing",
    "Sampling",
    "Schedule",
    "Scores",
    "ShuttingDownError",
    "Started",
    "Status",
    "Stream",
    "Timings",
    "TokenCount",
    "TokenLogprob",
    "UnimplementedError",
    "Unit",
    "Usage",
    "Variant",
    "VariantVerdict",
    "YieldedMemory",
    "default_socket",
]
