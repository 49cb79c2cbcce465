"""What the daemon has, as plain values: models, devices, its status.

Each carries the proto message it was made from under `raw`, with everything that the
common path does not need. Models are named by their bare id throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gemd.client.decisions import Decision
from gemd.client.disk import Variant
from gemd.client.errors import GemdClientError, failure
from gemd.client.leases import Lease
from gemd.client.operations import Operation
from gemd.client.protos import device_id, enum_word, model_id, optional, seconds, unix_time
from gemd.client.routing import RouteShare, Routing
from gemd.client.schedules import Schedule

if TYPE_CHECKING:
    from google.protobuf.message import Message as Proto

    from gemd.v1 import (
        device_pb2,
        event_pb2,
        model_pb2,
        status_pb2,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the catalogue, and where it stands."""

    raw: model_pb2.Model = field(repr=False, compare=False)
    id: str
    display_name: str
    state: str
    """``ABSENT``, ``DOWNLOADING``, ``ON_DISK``, ``LOADING``, ``READY``, ``DRAINING``,
    ``UNLOADING`` or ``FAILED``."""
    variant: str
    quantization: str
    size_bytes: int
    """0 if unknown."""
    variants: tuple[Variant, ...]
    on_disk: bool
    """Whether a complete and verified variant is on this machine."""
    source: str
    """Where the variant's bytes come from: ``hub``, ``python-package``, ``local``."""
    origin: str
    context_length: int
    licence: str
    pinned: bool
    memory_bytes: int
    """Over all devices: measured where a sensor tells, booked elsewhere."""
    compute: str
    """The way in which its worker computes, where the engine has several; else empty."""
    compute_reason: str
    active_requests: int
    queued_requests: int
    operation: str
    """The operation that works on its files, or empty."""
    failure: GemdClientError | None
    """What went wrong last."""

    @classmethod
    def of(cls, proto: model_pb2.Model) -> Model:
        """Convert the proto message."""
        variants = {variant.id: variant for variant in proto.variants}
        variant = variants.get(proto.variant) or next(iter(proto.variants), None)
        return cls(
            raw=proto,
            id=proto.id or model_id(proto.name),
            display_name=proto.display_name,
            state=enum_word(proto, "state"),
            variant=proto.variant,
            quantization=proto.quantization,
            size_bytes=proto.size_bytes,
            variants=tuple(map(Variant.of, proto.variants)),
            on_disk=any(one.on_disk for one in proto.variants),
            source=variant.source if variant else "",
            origin=variant.origin if variant else "",
            context_length=proto.context_length,
            licence=proto.licence,
            pinned=proto.pinned,
            memory_bytes=sum(
                part.measured_bytes if part.HasField("measured_bytes") else part.booked_bytes
                for part in proto.memory
            ),
            compute=proto.compute,
            compute_reason=proto.compute_reason,
            active_requests=proto.active_requests,
            queued_requests=proto.queued_requests,
            operation=proto.operation,
            failure=failure(proto.failure) if proto.HasField("failure") else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A processor with its memory; fields as in the message. What no sensor tells is None."""

    raw: device_pb2.Device = field(repr=False, compare=False)
    id: str
    display_name: str
    kind: str
    """``CPU``, ``DISCRETE_GPU``, ``INTEGRATED_GPU`` or ``UNIFIED``."""
    vendor: str
    architecture: str
    driver_version: str
    features: tuple[str, ...]
    backends: tuple[str, ...]
    cores: int
    """Of a processor; compute units or multiprocessors of a GPU. 0 if unknown."""
    bandwidth_bytes_per_second: int | None
    drives_display: bool | None
    power_watts: float | None
    utilization: float | None
    """Share of time that it was busy, from 0 to 1."""
    usable: bool
    unusable_reason: str
    simulated: bool
    """Whether it is made up from a file, for a rehearsal."""
    keep_off_until: float | None
    """Seconds since 1970 until when nothing is loaded there; None if it may be."""
    capacity_bytes: int
    budget_bytes: int
    """The most that all models together may take."""
    margin_bytes: int
    """What stays free for other programs to start in."""
    reserved_bytes: int
    """Promised to models, or on its way back, beyond what `ours_bytes` shows."""
    ours_bytes: int | None
    others_bytes: int | None
    unknown_bytes: int | None
    """In use by nobody knows whom."""
    free_bytes: int | None
    stale: bool
    """Whether the sensor fails and the figures are those of its last good sample."""

    @classmethod
    def of(cls, proto: device_pb2.Device) -> Device:
        """Convert the proto message."""
        memory = proto.memory
        return cls(
            raw=proto,
            id=proto.id or device_id(proto.name),
            display_name=proto.display_name,
            kind=enum_word(proto, "kind"),
            vendor=enum_word(proto, "vendor"),
            architecture=proto.architecture,
            driver_version=proto.driver_version,
            features=tuple(proto.features),
            backends=tuple(proto.backends),
            cores=proto.cores,
            bandwidth_bytes_per_second=optional(proto, "bandwidth_bytes_per_second"),
            drives_display=optional(proto, "drives_display"),
            power_watts=optional(proto, "power_watts"),
            utilization=optional(proto, "utilization"),
            usable=proto.usable,
            unusable_reason=proto.unusable_reason,
            simulated=proto.simulated,
            keep_off_until=unix_time(proto, "keep_off_until"),
            capacity_bytes=memory.capacity_bytes,
            budget_bytes=memory.budget_bytes,
            margin_bytes=memory.margin_bytes,
            reserved_bytes=memory.reserved_bytes,
            ours_bytes=optional(memory, "ours_bytes"),
            others_bytes=optional(memory, "others_bytes"),
            unknown_bytes=optional(memory, "unknown_bytes"),
            free_bytes=optional(memory, "free_bytes"),
            stale=memory.stale,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """Who the daemon is."""

    raw: status_pb2.DaemonInfo = field(repr=False, compare=False)
    version: str
    api_version: str
    instance_id: str
    pid: int
    socket: str
    tcp_address: str
    uptime: float
    """Seconds."""
    started_by: str
    """``AUTOSTART``, ``SERVICE`` or ``MANUAL``."""
    state: str
    """``STARTING``, ``SERVING`` or ``DRAINING``."""
    idle_exit_time: float | None
    """Seconds since 1970, if the daemon ends by itself."""
    log_path: str

    @classmethod
    def of(cls, proto: status_pb2.DaemonInfo) -> Info:
        """Convert the proto message."""
        return cls(
            raw=proto,
            version=proto.version,
            api_version=proto.api_version,
            instance_id=proto.instance_id,
            pid=proto.pid,
            socket=proto.socket,
            tcp_address=proto.tcp_address,
            uptime=seconds(proto, "uptime") or 0.0,
            started_by=enum_word(proto, "started_by"),
            state=enum_word(proto, "state"),
            idle_exit_time=unix_time(proto, "idle_exit_time"),
            log_path=proto.log_path,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something that holds and matters."""

    raw: status_pb2.Condition = field(repr=False, compare=False)
    type: str
    subject: str
    status: str
    """``TRUE``, ``FALSE`` or ``UNKNOWN``."""
    severity: str
    """``INFO``, ``WARNING`` or ``ERROR``."""
    reason: str
    message: str
    advice: tuple[str, ...]

    @classmethod
    def of(cls, proto: status_pb2.Condition) -> Condition:
        """Convert the proto message."""
        return cls(
            raw=proto,
            type=proto.type,
            subject=proto.subject,
            status=enum_word(proto, "status"),
            severity=enum_word(proto, "severity"),
            reason=proto.reason,
            message=proto.message,
            advice=tuple(proto.advice),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The whole state of the daemon at one moment."""

    raw: status_pb2.DaemonStatus = field(repr=False, compare=False)
    info: Info
    sequence: int
    """`events(since=…)` goes on from here."""
    devices: tuple[Device, ...]
    models: tuple[Model, ...]
    """All but those that are ABSENT."""
    operations: tuple[Operation, ...]
    conditions: tuple[Condition, ...]
    leases: tuple[Lease, ...]
    """The active ones, oldest first."""
    schedules: tuple[Schedule, ...]
    """Those of the settings."""
    running_requests: int
    queued_requests: int
    on_battery: bool | None
    """Whether the machine runs on battery; None if unknown."""
    routing: Routing | None
    """The two tiers; None if one model answers everything because a setting says so."""
    routes: tuple[RouteShare, ...]
    """The ways that requests took since the daemon started."""

    @classmethod
    def of(cls, proto: status_pb2.DaemonStatus) -> Status:
        """Convert the proto message."""
        return cls(
            raw=proto,
            info=Info.of(proto.info),
            sequence=proto.sequence,
            devices=tuple(Device.of(one) for one in proto.devices),
            models=tuple(Model.of(one) for one in proto.models),
            operations=tuple(Operation.of(one) for one in proto.operations),
            conditions=tuple(Condition.of(one) for one in proto.conditions),
            leases=tuple(Lease.of(one) for one in proto.leases),
            schedules=tuple(Schedule.of(one) for one in proto.schedules),
            running_requests=proto.running_requests,
            queued_requests=proto.queued_requests,
            on_battery=optional(proto, "on_battery"),
            routing=Routing.of(proto.routing) if proto.HasField("routing") else None,
            routes=tuple(RouteShare.of(one) for one in proto.statistics.routes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of the daemon's state."""

    raw: event_pb2.Event = field(repr=False, compare=False)
    sequence: int
    time: float | None
    """Seconds since 1970."""
    kind: str
    """Such as ``model`` or ``operation``; empty for one newer than this client."""
    payload: (
        Status | Model | Operation | Device | Condition | Info | Decision | Lease | Proto | None
    )
    """The resource after the change; as proto message where there is no class here for it."""

    @classmethod
    def of(cls, proto: event_pb2.Event) -> Event:
        """Convert the proto message."""
        kind = proto.WhichOneof("payload")
        content: Any = getattr(proto, kind) if kind else None
        converter = _PAYLOADS.get(kind or "")
        return cls(
            raw=proto,
            sequence=proto.sequence,
            time=unix_time(proto, "time"),
            kind=kind or "",
            payload=converter(content) if converter else content,
        )


_PAYLOADS: dict[str, Any] = {
    "snapshot": Status.of,
    "model": Model.of,
    "device": Device.of,
    "operation": Operation.of,
    "condition": Condition.of,
    "daemon": Info.of,
    "decision": Decision.of,
    "lease": Lease.of,
}
