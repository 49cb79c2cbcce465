"""What holds at the moment and matters to a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gemd.hardware import DeviceKind
from gemd.residency.ledger import Closed
from gemd.residency.refusals import size_text, span_text
from gemd.rpc.convert.fields import model_name
from gemd.v1 import status_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gemd.hardware import DeviceReading, Sample
    from gemd.residency.ledger import Account, Ledger
    from gemd.residency.relief import Pressure

Condition = status_pb2.Condition

_CLOSED: Final = {
    Closed.BLIND: ("SensorBlind", Condition.SEVERITY_ERROR, ("gemctl info",)),
    Closed.KEPT_OFF: ("KeptOff", Condition.SEVERITY_INFO, ()),
    Closed.LOST: ("DeviceLost", Condition.SEVERITY_ERROR, ("gemctl devices",)),
}


def of_devices(
    sample: Sample | None,
    ledger: Ledger,
    pressures: Iterable[Pressure],
    *,
    placeable: Callable[[DeviceReading], bool],
    now: float,
) -> list[Condition]:
    """What holds of devices: unused, without a sensor, kept off, lost, or under pressure.

    Args:
        sample: The last one.
        ledger: What is booked.
        pressures: By other programs.
        placeable: Whether models are placed on a GPU.
        now: The monotonic second of the ledger's times.

    """
    return [
        *_unused(sample, placeable),
        *(
            _closed(device, account, now=now)
            for device, account in ledger.accounts.items()
            if account.closed is not None
        ),
        *(_pressed(each, ledger.accounts[each.device]) for each in pressures),
    ]


def quarantined(model: str, crashes: int) -> Condition:
    """A model is not restarted by itself."""
    return Condition(
        type="ModelQuarantined",
        subject=model_name(model),
        status=Condition.STATUS_TRUE,
        severity=Condition.SEVERITY_ERROR,
        reason="MODEL_QUARANTINED",
        message=f"{model} crashed {crashes} times and is not started again by itself",
        advice=[f"gemctl load {model}"],
    )


def stuck(model: str, why: str) -> Condition:
    """A model's worker was killed and does not end."""
    return Condition(
        type="WorkerStuck",
        subject=model_name(model),
        status=Condition.STATUS_TRUE,
        severity=Condition.SEVERITY_ERROR,
        reason="WORKER_STUCK",
        message=f"the worker of {model} does not end, although it was killed: {why}",
    )


def reduced(model: str, tokens: int, whole: int) -> Condition:
    """A model has a smaller context than the settings say."""
    return Condition(
        type="ContextReduced",
        subject=model_name(model),
        status=Condition.STATUS_TRUE,
        severity=Condition.SEVERITY_INFO,
        reason="CONTEXT_REDUCED",
        message=f"{model} has {tokens} of {whole} tokens of context, because memory is taken; "
        "the next request gets the whole one if there is room",
        advice=[f"gemctl why {model}"],
    )


def _unused(
    sample: Sample | None, placeable: Callable[[DeviceReading], bool]
) -> Iterator[Condition]:
    """GPUs are there and nothing computes on them: said, so that no CPU run is silent."""
    for device in () if sample is None else sample.devices:
        # An integrated GPU would be no faster than the processor, and nothing is lost by it.
        unused = device.kind in {DeviceKind.DISCRETE_GPU, DeviceKind.UNIFIED}
        if unused and not device.unusable_reason and not placeable(device):
            yield Condition(
                type="GpuUnused",
                subject=f"devices/{device.device}",
                status=Condition.STATUS_TRUE,
                severity=Condition.SEVERITY_WARNING,
                reason="GPU_UNUSED",
                message=f"{device.name} is not used: no engine that is installed runs on it",
                advice=["gemctl engine install", "gemctl plan"],
            )


def _closed(device: str, account: Account, *, now: float) -> Condition:
    assert account.closed is not None
    kind, severity, advice = _CLOSED[account.closed]
    left = "" if account.until is None else f", {span_text(account.until - now)} more"
    if account.closed is Closed.KEPT_OFF:
        advice = (f"gemctl yield {device} --resume",)
    return Condition(
        type=kind,
        subject=f"devices/{device}",
        status=Condition.STATUS_TRUE,
        severity=severity,
        reason=account.closed.value,
        message=f"nothing is loaded on {device}: {account.why}{left}",
        advice=advice,
    )


def _pressed(pressure: Pressure, account: Account) -> Condition:
    missing = size_text(pressure.missing)
    if pressure.over_budget:
        message = f"models take {missing} more than the budget {size_text(account.budget)}"
    else:
        message = (
            f"other programs took {missing} of {size_text(account.margin)} "
            f"that have to stay free on {pressure.device}; models give memory back"
        )
    return Condition(
        type="MemoryPressure",
        subject=f"devices/{pressure.device}",
        status=Condition.STATUS_TRUE,
        severity=Condition.SEVERITY_ERROR if pressure.critical else Condition.SEVERITY_WARNING,
        reason="OVER_BUDGET" if pressure.over_budget else "PRESSURE",
        message=message,
        advice=["gemctl why --kind yield"],
    )
