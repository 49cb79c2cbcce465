"""Which weights suit a machine, and why, as plain values; see `gemd.client.resources`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemd.client.decisions import Reason
from gemd.client.protos import device_id, enum_word, model_id, optional, seconds
from gemd.client.resources import Device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.v1 import model_pb2, plan_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """A prediction of the memory that a model takes on one device, in bytes."""

    raw: model_pb2.MemoryEstimate = field(repr=False, compare=False)
    device: str
    steady_bytes: int
    """What it holds once it is ready."""
    peak_bytes: int
    """The most that it holds while it loads."""
    parts: dict[str, int]
    """By purpose: ``WEIGHTS``, ``KV_CACHE``, ``COMPUTE``, ``OUTPUT``, ``PROJECTOR``, ``OVERHEAD``.
    They add up to `steady_bytes`."""
    method: str
    """``ENGINE``, ``FORMULA`` or ``MEASURED``."""

    @classmethod
    def of(cls, proto: model_pb2.MemoryEstimate) -> MemoryEstimate:
        """Convert the proto message."""
        return cls(
            raw=proto,
            device=device_id(proto.device),
            steady_bytes=proto.steady_bytes,
            peak_bytes=proto.peak_bytes,
            parts=_parts(proto.parts),
            method=enum_word(proto, "method"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """One model of a plan."""

    raw: plan_pb2.PlannedModel = field(repr=False, compare=False)
    model: str
    variant: str
    role: str
    """``FAST``, ``STRONG``, ``VERIFIER``, ``EMBEDDING`` or ``DEFAULT``."""
    quantization: str
    engine: str
    backend: str
    placement: str
    """``GPU``, ``SPLIT`` or ``CPU``."""
    gpu_layers: int
    total_layers: int
    context_length: int
    memory: list[MemoryEstimate]
    decode_tokens_per_second: float | None
    """None if nothing tells the bandwidth of a memory."""
    canvas: float | None
    """Seconds for one canvas of a block-diffusion model."""
    warm: bool
    """Whether it stays in memory; if not, it is swapped in when it is asked for."""
    download_bytes: int
    """Still to be fetched; 0 if it is on disk."""
    reasons: list[Reason]

    @classmethod
    def of(cls, proto: plan_pb2.PlannedModel) -> PlannedModel:
        """Convert the proto message."""
        return cls(
            raw=proto,
            model=model_id(proto.model),
            variant=proto.variant,
            role=enum_word(proto, "role"),
            quantization=proto.quantization,
            engine=proto.engine,
            backend=proto.backend,
            placement=enum_word(proto, "placement"),
            gpu_layers=proto.gpu_layers,
            total_layers=proto.total_layers,
            context_length=proto.context_length,
            memory=[MemoryEstimate.of(one) for one in proto.memory],
            decode_tokens_per_second=optional(proto.speed, "decode_tokens_per_second"),
            canvas=seconds(proto.speed, "canvas_duration"),
            warm=proto.warm,
            download_bytes=proto.download_bytes,
            reasons=[Reason.of(one) for one in proto.reasons],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDevice:
    """One device of a plan. Parts, others, margin and free add up to its capacity; bytes."""

    raw: plan_pb2.PlannedDevice = field(repr=False, compare=False)
    device: Device
    parts: dict[str, int]
    """Of the warm models, by purpose as in `MemoryEstimate`."""
    others_bytes: int
    margin_bytes: int
    free_bytes: int

    @classmethod
    def of(cls, proto: plan_pb2.PlannedDevice) -> PlannedDevice:
        """Convert the proto message."""
        return cls(
            raw=proto,
            device=Device.of(proto.device),
            parts=_parts(proto.parts),
            others_bytes=proto.others_bytes,
            margin_bytes=proto.margin_bytes,
            free_bytes=proto.free_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantVerdict:
    """What was found about one variant."""

    raw: plan_pb2.VariantVerdict = field(repr=False, compare=False)
    model: str
    variant: str
    chosen: bool
    fits: bool
    needed_bytes: int
    """On the device that decides."""
    available_bytes: int
    decode_tokens_per_second: float | None
    reason: Reason

    @classmethod
    def of(cls, proto: plan_pb2.VariantVerdict) -> VariantVerdict:
        """Convert the proto message."""
        return cls(
            raw=proto,
            model=model_id(proto.model),
            variant=proto.variant,
            chosen=proto.chosen,
            fits=proto.fits,
            needed_bytes=proto.needed_bytes,
            available_bytes=proto.available_bytes,
            decode_tokens_per_second=optional(proto.speed, "decode_tokens_per_second"),
            reason=Reason.of(proto.reason),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What gemd would run on a machine, with a reason for all it takes and all it leaves."""

    raw: plan_pb2.Plan = field(repr=False, compare=False)
    models: list[PlannedModel]
    """A pair, a single one, or none if nothing fits."""
    devices: list[PlannedDevice]
    verdicts: list[VariantVerdict]
    """Best first, the chosen ones included."""
    reasons: list[Reason]
    """What holds for the plan as a whole."""
    needs_cpu_consent: bool
    swap: float | None
    """Seconds that a change between the tiers takes; None if they are warm together."""
    device_profile: str
    """The machine; empty for this one."""

    @classmethod
    def of(cls, proto: plan_pb2.Plan) -> Plan:
        """Convert the proto message."""
        return cls(
            raw=proto,
            models=[PlannedModel.of(one) for one in proto.models],
            devices=[PlannedDevice.of(one) for one in proto.devices],
            verdicts=[VariantVerdict.of(one) for one in proto.verdicts],
            reasons=[Reason.of(one) for one in proto.reasons],
            needs_cpu_consent=proto.needs_cpu_consent,
            swap=seconds(proto, "swap_duration"),
            device_profile=proto.device_profile,
        )


def _parts(protos: Iterable[model_pb2.MemoryEstimate.Part]) -> dict[str, int]:
    return {enum_word(one, "kind"): one.size_bytes for one in protos}
