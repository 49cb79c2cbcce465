"""Plans as messages, and what is asked of one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from gemd.catalog.choice import Where
from gemd.footprint.memory import Method, Parts
from gemd.rpc.convert.decisions import reason
from gemd.rpc.convert.fields import check_range, duration, model_id, model_name, short_text
from gemd.rpc.convert.machines import machine_devices
from gemd.rpc.convert.models import engine_name, role_of
from gemd.v1 import device_pb2, model_pb2, plan_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gemd.catalog.choice import Placed, Plan, PlannedDevice, PlannedModel, Speed, Verdict
    from gemd.hardware.inventory import Inventory
    from gemd.v1 import daemon_service_pb2 as service

_WHERE: Final[Mapping[Where, plan_pb2.PlannedModel.Placement.ValueType]] = {
    Where.GPU: plan_pb2.PlannedModel.PLACEMENT_GPU,
    Where.SPLIT: plan_pb2.PlannedModel.PLACEMENT_SPLIT,
    Where.CPU: plan_pb2.PlannedModel.PLACEMENT_CPU,
}
_METHODS: Final[Mapping[Method, model_pb2.MemoryEstimate.Method.ValueType]] = {
    Method.ENGINE: model_pb2.MemoryEstimate.METHOD_ENGINE,
    Method.FORMULA: model_pb2.MemoryEstimate.METHOD_FORMULA,
    Method.MEASURED: model_pb2.MemoryEstimate.METHOD_MEASURED,
}
_KINDS: Final[Mapping[str, model_pb2.MemoryEstimate.Part.Kind.ValueType]] = {
    "weights": model_pb2.MemoryEstimate.Part.KIND_WEIGHTS,
    "kv_cache": model_pb2.MemoryEstimate.Part.KIND_KV_CACHE,
    "compute": model_pb2.MemoryEstimate.Part.KIND_COMPUTE,
    "output": model_pb2.MemoryEstimate.Part.KIND_OUTPUT,
    "projector": model_pb2.MemoryEstimate.Part.KIND_PROJECTOR,
    "overhead": model_pb2.MemoryEstimate.Part.KIND_OVERHEAD,
}
_LEAST_BUDGET: Final = 1
_MOST_CONTEXT: Final = 2**24


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of a plan; empty or None leaves it to settings and machine.

    Attributes:
        model: Name of the only model.
        variant: Id of the only variant of it.
        device_profile: Name of a machine that is not this one.
        context_tokens: Room for so many.
        budget_bytes: Of each GPU; of main memory where there is none.
        ignore_others: As if no other program held memory.
        cpu_consent: A GPU may be left unused.

    """

    model: str = ""
    variant: str = ""
    device_profile: str = ""
    context_tokens: int | None = None
    budget_bytes: int | None = None
    ignore_others: bool = False
    cpu_consent: bool = False


def ask_of(request: service.PlanRequest) -> Ask:
    """What a request asks. Raises InvalidRequestError."""
    context = budget = None
    if request.HasField("context_length"):
        check_range(request.context_length, field="context_length", least=1, most=_MOST_CONTEXT)
        context = request.context_length
    if request.HasField("budget_bytes"):
        check_range(request.budget_bytes, field="budget_bytes", least=_LEAST_BUDGET)
        budget = request.budget_bytes
    return Ask(
        model=model_id(request.model) or "",
        variant=short_text(request.variant, field="variant"),
        device_profile=short_text(request.device_profile, field="device_profile"),
        context_tokens=context,
        budget_bytes=budget,
        ignore_others=request.ignore_others,
        cpu_consent=request.allow_cpu,
    )


def plan(made: Plan, *, machine: Inventory) -> plan_pb2.Plan:
    """A plan.

    Args:
        made: What was chosen.
        machine: For it.

    """
    described = {each.id: each for each in machine_devices(machine)}
    return plan_pb2.Plan(
        models=[_model(each) for each in made.models],
        devices=[_device(each, described[each.device]) for each in made.devices],
        verdicts=[_verdict(each) for each in made.verdicts],
        reasons=[reason(each) for each in made.reasons],
        needs_cpu_consent=made.needs_cpu_consent,
        swap_duration=None if made.swap_s is None else duration(made.swap_s),
        device_profile=machine.name,
    )


def _model(planned: PlannedModel) -> plan_pb2.PlannedModel:
    placed = planned.placed
    candidate = placed.candidate
    return plan_pb2.PlannedModel(
        model=model_name(candidate.profile.id),
        variant=candidate.variant.id,
        role=role_of(planned.role),
        quantization=candidate.variant.quantization,
        engine=engine_name(candidate.variant.engine),
        backend=placed.backend,
        placement=_WHERE[placed.where],
        # The first of them is the output, which is no layer of the model.
        gpu_layers=max(0, min(placed.placement.gpu_layers - 1, candidate.sized.layers)),
        total_layers=candidate.sized.layers,
        context_length=placed.context_tokens,
        memory=list(estimates(placed)),
        speed=speed(placed.speed),
        speed_measured=False,
        warm=planned.warm,
        download_bytes=0 if candidate.on_disk else candidate.variant.size_bytes,
        reasons=[reason(each) for each in planned.reasons],
    )


def estimates(placed: Placed) -> Iterable[model_pb2.MemoryEstimate]:
    """What a placed model takes of each device."""
    for device, parts in placed.parts.items():
        yield model_pb2.MemoryEstimate(
            device=f"devices/{device}",
            steady_bytes=parts.total,
            peak_bytes=placed.demand[device],
            parts=_parts(parts),
            method=_METHODS[placed.method],
        )


def _parts(parts: Parts) -> list[model_pb2.MemoryEstimate.Part]:
    sizes = {each.name: getattr(parts, each.name) for each in fields(parts)}
    return [
        model_pb2.MemoryEstimate.Part(kind=_KINDS[name], size_bytes=size)
        for name, size in sizes.items()
        if size
    ]


def speed(predicted: Speed) -> model_pb2.Speed:
    """A predicted speed."""
    canvas = predicted.canvas_s
    return model_pb2.Speed(
        decode_tokens_per_second=predicted.decode,
        canvas_duration=None if canvas is None else duration(canvas),
    )


def _device(planned: PlannedDevice, device: device_pb2.Device) -> plan_pb2.PlannedDevice:
    device.memory.CopyFrom(
        device_pb2.DeviceMemory(
            device=f"devices/{planned.device}",
            capacity_bytes=planned.capacity_bytes,
            budget_bytes=planned.budget_bytes,
            margin_bytes=planned.margin_bytes,
        )
    )
    return plan_pb2.PlannedDevice(
        device=device,
        parts=_parts(planned.parts),
        others_bytes=planned.others_bytes,
        margin_bytes=planned.margin_bytes,
        free_bytes=planned.free_bytes,
    )


def _verdict(found: Verdict) -> plan_pb2.VariantVerdict:
    return plan_pb2.VariantVerdict(
        model=model_name(found.candidate.profile.id),
        variant=found.candidate.variant.id,
        chosen=found.chosen,
        fits=found.fits,
        needed_bytes=found.needed_bytes,
        available_bytes=found.available_bytes,
        speed=speed(found.speed),
        reason=reason(found.reason),
    )
