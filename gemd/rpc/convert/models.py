"""Models: what the catalogue, the disk and residency know, as one resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.catalog.sources import kind_of
from gemd.hardware import RAM
from gemd.residency.states import Residence, State
from gemd.routing.speeds import UNKNOWN, Speed
from gemd.rpc.convert.fields import duration, error_detail, model_name, timestamp
from gemd.v1 import model_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gemd.catalog import Profile, Variant


_STATES: Mapping[State, model_pb2.Model.State.ValueType] = {
    State.LOADING: model_pb2.Model.STATE_LOADING,
    State.READY: model_pb2.Model.STATE_READY,
    State.DRAINING: model_pb2.Model.STATE_DRAINING,
    State.UNLOADING: model_pb2.Model.STATE_UNLOADING,
    State.FAILED: model_pb2.Model.STATE_FAILED,
}
_ROLES: Mapping[str, model_pb2.Model.Role.ValueType] = {
    "fast": model_pb2.Model.ROLE_FAST,
    "strong": model_pb2.Model.ROLE_STRONG,
    "verifier": model_pb2.Model.ROLE_VERIFIER,
    "embedding": model_pb2.Model.ROLE_EMBEDDING,
    "default": model_pb2.Model.ROLE_DEFAULT,
}
_MODALITIES: Mapping[str, model_pb2.Model.Modality.ValueType] = {
    "text": model_pb2.Model.MODALITY_TEXT,
    "image": model_pb2.Model.MODALITY_IMAGE,
    "audio": model_pb2.Model.MODALITY_AUDIO,
    "video": model_pb2.Model.MODALITY_VIDEO,
}
_ENGINES = {"llama": "llama.cpp"}


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A variant's complete and verified files.

    Attributes:
        size_bytes: Their size.
        source: Where their bytes came from: `hub`, `python-package`, `local`, `quantized`.
        origin: Repository, package or file, with its revision.
        verified: Wall-clock second of the last verification; None if never.
        exclusive_bytes: What deleting it would free.
        last_used: Wall-clock second of its last use; None if never.
        path: Of the file or directory.
        rejection: Why it is not served; empty if it is.

    """

    size_bytes: int
    source: str
    origin: str
    verified: float | None
    exclusive_bytes: int
    last_used: float | None
    path: str
    rejection: str = ""


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What models take on disk. Fields as `DiskUse` of the API."""

    owned_bytes: int
    shared_bytes: int
    quota_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model at one moment.

    Attributes:
        profile: What the catalogue says.
        disk: Files by variant id.
        residence: What residency says.
        operation: Resource name of the operation on its files; empty if none runs.
        fetching: Whether that operation fetches or makes its weights.
        context_tokens: The context a worker would get.
        leases: Active leases on it.
        speed: What it was measured to do here.

    """

    profile: Profile
    disk: Mapping[str, OnDisk]
    residence: Residence
    operation: str
    fetching: bool
    context_tokens: int
    leases: int
    speed: Speed = UNKNOWN


def state(view: ModelView) -> model_pb2.Model.State.ValueType:
    """Where the model stands, memory before disk."""
    if view.residence.state in _STATES:
        return _STATES[view.residence.state]
    if view.fetching:
        return model_pb2.Model.STATE_DOWNLOADING
    return model_pb2.Model.STATE_ON_DISK if _served(view) else model_pb2.Model.STATE_ABSENT


def _served(view: ModelView) -> list[Variant]:
    """The variants that are on disk and could be loaded."""
    return [
        variant
        for variant in view.profile.variants
        if variant.id in view.disk and not view.disk[variant.id].rejection
    ]


def _loaded(view: ModelView) -> Variant | None:
    """The variant that is in memory, or on its way there; None if none is."""
    if view.residence.state not in _STATES:
        return None
    return next(
        (
            variant
            for variant in view.profile.variants
            if variant.id in view.disk and view.disk[variant.id].path == view.residence.path
        ),
        None,
    )


def disk_use(use: DiskUse) -> model_pb2.DiskUse:
    """What models take on disk."""
    return model_pb2.DiskUse(
        owned_bytes=use.owned_bytes,
        shared_bytes=use.shared_bytes,
        quota_bytes=use.quota_bytes,
        free_bytes=use.free_bytes,
    )


def model(view: ModelView, *, wall_of: Callable[[float], float]) -> model_pb2.Model:
    """The whole resource.

    Args:
        view: What is known.
        wall_of: Turns the manager's monotonic seconds into seconds since the epoch.

    """
    profile, residence = view.profile, view.residence
    chosen = _loaded(view) or (_served(view) or list(profile.variants))[0]
    found = view.disk.get(chosen.id)
    message = model_pb2.Model(
        name=model_name(profile.id),
        id=profile.id,
        display_name=profile.display_name,
        state=state(view),
        variant=chosen.id,
        variants=[_variant(variant, view.disk.get(variant.id)) for variant in _shown(view)],
        # Of a file on the hub without a pinned hash the profile only predicts the size.
        size_bytes=found.size_bytes if found else chosen.size_bytes,
        context_length=view.context_tokens,
        max_context_length=profile.context_tokens,
        engine=engine_name(chosen.engine),
        quantization=chosen.quantization,
        licence=profile.licence,
        licence_url=profile.licence_url,
        roles=[role_of(role) for role in profile.roles],
        modalities=[_MODALITIES[modality] for modality in profile.modalities],
        pinned=residence.pinned,
        lease_count=view.leases,
        active_requests=residence.active,
        queued_requests=residence.waiting,
        load_count=residence.loads,
        crash_count=residence.crashes,
        operation=view.operation,
    )
    _add_residence(message, residence, wall_of)
    if view.speed.measured:
        message.measured_speed.CopyFrom(_speed(view.speed))
    return message


def _speed(speed: Speed) -> model_pb2.Speed:
    return model_pb2.Speed(
        prefill_tokens_per_second=speed.prefill_tps,
        decode_tokens_per_second=speed.decode_tps,
        canvas_duration=None if speed.canvas_s is None else duration(speed.canvas_s),
    )


def _add_residence(
    message: model_pb2.Model, residence: Residence, wall_of: Callable[[float], float]
) -> None:
    if residence.worker is not None:
        ready = residence.worker.ready
        message.context_length = ready.context_tokens
        message.max_context_length = ready.train_context_tokens
        message.backend = ",".join(ready.devices).lower()
        message.max_sequences = ready.max_sequences
        message.compute = ready.compute
        message.compute_reason = ready.compute_reason
        message.pid = residence.worker.pid
    _add_memory(message, residence)
    if residence.last_used is not None:
        message.last_used_time.CopyFrom(timestamp(wall_of(residence.last_used)))
    if residence.ready_since is not None:
        message.ready_time.CopyFrom(timestamp(wall_of(residence.ready_since)))
    if residence.idle_unload is not None:
        message.idle_unload_time.CopyFrom(timestamp(wall_of(residence.idle_unload)))
    if residence.failure is not None:
        message.failure.CopyFrom(error_detail(residence.failure))
    if residence.retry is not None:
        message.retry_time.CopyFrom(timestamp(wall_of(residence.retry)))
    if residence.last_load_s is not None:
        message.last_load_duration.CopyFrom(duration(residence.last_load_s))


def _shown(view: ModelView) -> list[Variant]:
    """All variants, and the unquantized weights if they are on disk."""
    checkpoint = view.profile.checkpoint
    there = checkpoint is not None and checkpoint.id in view.disk
    return [*view.profile.variants, *([checkpoint] if checkpoint and there else [])]


def _variant(variant: Variant, found: OnDisk | None) -> model_pb2.Variant:
    message = model_pb2.Variant(
        id=variant.id,
        quantization=variant.quantization,
        engine=engine_name(variant.engine),
        size_bytes=variant.size_bytes,
        on_disk=found is not None and not found.rejection,
    )
    if found is None:
        message.source = kind_of(variant.sources[0])
        message.origin = variant.sources[0].origin
        return message
    message.disk_bytes = found.size_bytes
    message.exclusive_bytes = found.exclusive_bytes
    message.source = found.source
    message.origin = found.origin
    if found.verified is not None:
        message.verify_time.CopyFrom(timestamp(found.verified))
    if found.last_used is not None:
        message.last_used_time.CopyFrom(timestamp(found.last_used))
    message.path = found.path
    message.rejection = found.rejection
    return message


def engine_name(engine: str) -> str:
    """An engine as the API calls it."""
    return _ENGINES.get(engine, engine)


def role_of(role: str) -> model_pb2.Model.Role.ValueType:
    """The part that a model plays."""
    return _ROLES[role]


def _add_memory(message: model_pb2.Model, residence: Residence) -> None:
    for device, booked in residence.booked.items():
        memory = message.memory.add(device=f"devices/{device}", booked_bytes=booked)
        measured = residence.measured.get(device)
        if measured is not None:
            memory.measured_bytes = measured
        if device == RAM:
            memory.estimate.device = memory.device
            memory.estimate.steady_bytes = residence.estimate_bytes
            memory.estimate.peak_bytes = residence.estimate_bytes
            memory.estimate.method = model_pb2.MemoryEstimate.METHOD_FORMULA
