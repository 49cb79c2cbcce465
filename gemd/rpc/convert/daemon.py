"""The daemon as a whole: identity, devices, requests, conditions, events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemd.rpc.convert.fields import duration, model_name, timestamp
from gemd.rpc.lifecycle import Identity, Phase, StartedBy
from gemd.rpc.requests import RequestRecord, RequestState, Totals
from gemd.v1 import device_pb2, generation_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.hardware import Gpu, Inventory

_PHASES: Mapping[Phase, status_pb2.DaemonInfo.State.ValueType] = {
    Phase.STARTING: status_pb2.DaemonInfo.STATE_STARTING,
    Phase.SERVING: status_pb2.DaemonInfo.STATE_SERVING,
    Phase.DRAINING: status_pb2.DaemonInfo.STATE_DRAINING,
}
_STARTERS: Mapping[StartedBy, status_pb2.DaemonInfo.StartedBy.ValueType] = {
    StartedBy.AUTOSTART: status_pb2.DaemonInfo.STARTED_BY_AUTOSTART,
    StartedBy.SERVICE: status_pb2.DaemonInfo.STARTED_BY_SERVICE,
    StartedBy.MANUAL: status_pb2.DaemonInfo.STARTED_BY_MANUAL,
}
_REQUEST_STATES: Mapping[RequestState, status_pb2.RequestStatus.State.ValueType] = {
    RequestState.QUEUED: status_pb2.RequestStatus.STATE_QUEUED,
    RequestState.LOADING: status_pb2.RequestStatus.STATE_LOADING,
    RequestState.RUNNING: status_pb2.RequestStatus.STATE_RUNNING,
    RequestState.FINISHED: status_pb2.RequestStatus.STATE_FINISHED,
    RequestState.FAILED: status_pb2.RequestStatus.STATE_FAILED,
    RequestState.CANCELLED: status_pb2.RequestStatus.STATE_CANCELLED,
}
_VENDORS: Mapping[str, device_pb2.Device.Vendor.ValueType] = {
    "nvidia": device_pb2.Device.VENDOR_NVIDIA,
    "amd": device_pb2.Device.VENDOR_AMD,
    "intel": device_pb2.Device.VENDOR_INTEL,
    "apple": device_pb2.Device.VENDOR_APPLE,
}


_FEATURES = frozenset({"asimd", "asimddp", "bf16", "f16c", "fma", "fphp", "i8mm", "neon"})


@dataclass(frozen=True, slots=True)
class RamUse:
    """Main memory from residency's side; bytes.

    Attributes:
        budget: The most that gemd may hold.
        ours: What its workers hold, measured.
        reserved: What is promised to loads beyond that.

    """

    budget: int
    ours: int
    reserved: int


def info(
    identity: Identity, phase: Phase, *, now: float, idle_exit_time: float | None
) -> status_pb2.DaemonInfo:
    """Who the daemon is; times in wall-clock seconds."""
    return status_pb2.DaemonInfo(
        version=identity.version,
        api_version="v1",
        instance_id=identity.instance_id,
        pid=identity.pid,
        socket=str(identity.socket),
        tcp_address=identity.tcp_address,
        start_time=timestamp(identity.start_time),
        uptime=duration(max(0.0, now - identity.start_time)),
        started_by=_STARTERS[identity.started_by],
        state=_PHASES[phase],
        idle_exit_time=None if idle_exit_time is None else timestamp(idle_exit_time),
        config_path=identity.config_path,
        data_path=identity.data_path,
        log_path=identity.log_path,
        platform=identity.platform,
    )


def devices(inventory: Inventory, ram: RamUse, *, now: float) -> list[device_pb2.Device]:
    """All devices, GPUs first."""
    gpus = [_gpu(index, gpu, now=now) for index, gpu in enumerate(inventory.gpus)]
    return [*gpus, _cpu(inventory, ram, now=now)]


def request(record: RequestRecord) -> status_pb2.RequestStatus:
    """One request."""
    return status_pb2.RequestStatus(
        request_id=record.request_id,
        method=record.method,
        client=record.client,
        state=_REQUEST_STATES[record.state],
        model=model_name(record.model) if record.model else "",
        position=record.position,
        create_time=timestamp(record.create_time),
        start_time=None if record.start_time is None else timestamp(record.start_time),
        deadline=None if record.deadline is None else timestamp(record.deadline),
        usage=generation_pb2.Usage(
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            completion_tokens=record.completion_tokens,
        ),
        error_reason=record.error_reason,
    )


def statistics(
    totals: Totals, *, loads: int, crashes: int, evictions: int
) -> status_pb2.Statistics:
    """Counts since the daemon started."""
    return status_pb2.Statistics(
        requests=totals.requests,
        failed_requests=totals.failed,
        cancelled_requests=totals.cancelled,
        prompt_tokens=totals.prompt_tokens,
        cached_tokens=totals.cached_tokens,
        completion_tokens=totals.completion_tokens,
        loads=loads,
        crashes=crashes,
        evictions=evictions,
    )


def gpu_unused(gpu_index: int, gpu: Gpu) -> status_pb2.Condition:
    """A GPU is there and nothing computes on it: said, so that no CPU run is silent."""
    return status_pb2.Condition(
        type="GpuUnused",
        subject=f"devices/gpu{gpu_index}",
        status=status_pb2.Condition.STATUS_TRUE,
        severity=status_pb2.Condition.SEVERITY_WARNING,
        reason="GPU_UNUSED",
        message=f"{gpu.name} is not used: this version of gemd computes on the processor only",
    )


def quarantined(model: str, crashes: int) -> status_pb2.Condition:
    """A model is not restarted by itself."""
    return status_pb2.Condition(
        type="ModelQuarantined",
        subject=model_name(model),
        status=status_pb2.Condition.STATUS_TRUE,
        severity=status_pb2.Condition.SEVERITY_ERROR,
        reason="MODEL_QUARANTINED",
        message=f"{model} crashed {crashes} times and is not started again by itself",
        advice=[f"gemctl load {model}"],
    )


def _cpu(inventory: Inventory, ram: RamUse, *, now: float) -> device_pb2.Device:
    capacity = inventory.ram.total_bytes
    free = min(inventory.ram.available_bytes, capacity)
    return device_pb2.Device(
        name="devices/cpu",
        id="cpu",
        display_name=inventory.cpu.name,
        kind=device_pb2.Device.KIND_CPU,
        vendor=device_pb2.Device.VENDOR_OTHER,
        features=_telling(inventory.cpu.features),
        backends=["cpu"],
        cores=inventory.cpu.physical_cores,
        usable=True,
        memory=device_pb2.DeviceMemory(
            device="devices/cpu",
            capacity_bytes=capacity,
            budget_bytes=ram.budget,
            ours_bytes=ram.ours,
            reserved_bytes=ram.reserved,
            others_bytes=max(0, capacity - free - ram.ours),
            free_bytes=free,
            sample_time=timestamp(now),
        ),
    )


def _telling(features: frozenset[str]) -> list[str]:
    """The instruction sets that matter to speed, out of all the kernel lists."""
    return sorted(
        feature
        for feature in features
        if feature in _FEATURES or feature.startswith(("avx", "amx", "sve"))
    )


def _gpu(index: int, gpu: Gpu, *, now: float) -> device_pb2.Device:
    name = f"devices/gpu{index}"
    memory = device_pb2.DeviceMemory(
        device=name, capacity_bytes=gpu.memory_total_bytes or 0, sample_time=timestamp(now)
    )
    if gpu.memory_total_bytes is not None and gpu.memory_free_bytes is not None:
        memory.free_bytes = gpu.memory_free_bytes
        # gemd holds nothing there, so whatever is taken is others'.
        memory.ours_bytes = 0
        memory.others_bytes = max(0, gpu.memory_total_bytes - gpu.memory_free_bytes)
    return device_pb2.Device(
        name=name,
        id=f"gpu{index}",
        display_name=gpu.name,
        kind=device_pb2.Device.KIND_DISCRETE_GPU,
        vendor=_VENDORS.get(gpu.vendor, device_pb2.Device.VENDOR_OTHER),
        hardware_id=gpu.uuid,
        usable=False,
        unusable_reason="this version of gemd computes on the processor only",
        memory=memory,
    )
