"""Calls that are about the daemon as a whole, as data; see `gemd.client.calls`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.client import inputs
from gemd.client.calls import Stream, Unary, always
from gemd.client.decisions import Decision
from gemd.client.diagnoses import Diagnosis
from gemd.client.drained import Drained
from gemd.client.plans import Plan
from gemd.client.resources import Device, Event, Info, Status
from gemd.client.yielded import YieldedMemory
from gemd.v1 import daemon_service_pb2, decision_pb2, event_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable


def info() -> Unary[Info]:
    """Who the daemon is."""
    return Unary(
        "/gemd.v1.DaemonService/GetInfo",
        daemon_service_pb2.GetInfoRequest(),
        daemon_service_pb2.GetInfoResponse,
        lambda response: Info.of(response.info),
    )


def status() -> Unary[Status]:
    """The whole state."""
    return Unary(
        "/gemd.v1.DaemonService/GetStatus",
        daemon_service_pb2.GetStatusRequest(),
        daemon_service_pb2.GetStatusResponse,
        lambda response: Status.of(response.status),
    )


def list_devices(page_token: str) -> Unary[tuple[list[Device], str]]:
    """One page of devices."""
    return Unary(
        "/gemd.v1.DaemonService/ListDevices",
        daemon_service_pb2.ListDevicesRequest(page_token=page_token),
        daemon_service_pb2.ListDevicesResponse,
        lambda page: ([Device.of(one) for one in page.devices], page.next_page_token),
    )


def plan(
    *,
    model: str,
    variant: str,
    device_profile: str,
    context_length: int | None,
    budget_bytes: int | None,
    ignore_others: bool,
    allow_cpu: bool,
) -> Unary[Plan]:
    """Which weights suit a machine."""
    return Unary(
        "/gemd.v1.DaemonService/Plan",
        daemon_service_pb2.PlanRequest(
            model=model,
            variant=variant,
            device_profile=device_profile,
            context_length=context_length,
            budget_bytes=budget_bytes,
            ignore_others=ignore_others,
            allow_cpu=allow_cpu,
        ),
        daemon_service_pb2.PlanResponse,
        lambda response: Plan.of(response.plan),
    )


def watch_events(
    *, snapshot: bool, since: int | None, instance_id: str, kinds: Iterable[str]
) -> Stream[Event]:
    """Changes as they happen."""
    types = [event_pb2.Event.Type.Value(f"TYPE_{kind.upper()}") for kind in kinds]
    return Stream(
        "/gemd.v1.DaemonService/WatchEvents",
        daemon_service_pb2.WatchEventsRequest(
            initial_state=snapshot, since_sequence=since, instance_id=instance_id, types=types
        ),
        daemon_service_pb2.WatchEventsResponse,
        lambda response: Event.of(response.event),
        commits=always,
    )


def explain(
    *,
    model: str,
    device: str,
    request_id: str,
    kinds: Iterable[str],
    page_size: int,
    page_token: str,
) -> Unary[tuple[list[Decision], str]]:
    """One page of decisions, newest first."""
    if sum(map(bool, (model, device, request_id))) > 1:
        raise ValueError("name one subject: a model, a device or a request")
    request = daemon_service_pb2.ExplainRequest(
        kinds=[decision_pb2.Decision.Kind.Value(f"KIND_{kind.upper()}") for kind in kinds],
        page_size=page_size,
        page_token=page_token,
    )
    # They are one choice: an empty one that is set would take the other's place.
    if model:
        request.model = model
    if device:
        request.device = device
    if request_id:
        request.request_id = request_id
    return Unary(
        "/gemd.v1.DaemonService/Explain",
        request,
        daemon_service_pb2.ExplainResponse,
        lambda page: ([Decision.of(one) for one in page.decisions], page.next_page_token),
    )


def give_back(
    device: str, *, size: int | None, keep_off: float | None, force: bool
) -> Unary[tuple[YieldedMemory, ...]]:
    """Give memory back to other programs."""
    request = daemon_service_pb2.YieldRequest(device=device, size_bytes=size, force=force)
    if keep_off is not None:
        inputs.set_duration(request.keep_off, keep_off)
    # A second attempt would give back as much once more.
    return _yield(request, retried=size is None)


def resume(device: str) -> Unary[tuple[YieldedMemory, ...]]:
    """Load models again where a user had memory kept free."""
    return _yield(daemon_service_pb2.YieldRequest(device=device, resume=True), retried=True)


def _yield(
    request: daemon_service_pb2.YieldRequest, *, retried: bool
) -> Unary[tuple[YieldedMemory, ...]]:
    return Unary(
        "/gemd.v1.DaemonService/Yield",
        request,
        daemon_service_pb2.YieldResponse,
        lambda response: tuple(YieldedMemory.of(one) for one in response.yielded),
        retried=retried,
    )


def diagnose(checks: Iterable[str], *, thorough: bool) -> Unary[tuple[Diagnosis, ...]]:
    """Look for what is wrong."""
    return Unary(
        "/gemd.v1.DaemonService/Diagnose",
        daemon_service_pb2.DiagnoseRequest(checks=checks, thorough=thorough),
        daemon_service_pb2.DiagnoseResponse,
        lambda response: tuple(Diagnosis.of(one) for one in response.diagnoses),
    )


def drain(grace: float | None) -> Unary[Drained]:
    """End the daemon in good order."""
    request = daemon_service_pb2.DrainRequest()
    if grace is not None:
        inputs.set_duration(request.timeout, grace)
    return Unary(
        "/gemd.v1.DaemonService/Drain",
        request,
        daemon_service_pb2.DrainResponse,
        Drained.of,
        retried=False,
    )
