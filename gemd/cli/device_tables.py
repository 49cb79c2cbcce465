"""`gemctl devices` as tables: what each device is and can, and who holds its memory."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from gemd.cli.memory import bytes_or_dash, name_of
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gemd.cli.output import Output
    from gemd.client import Device

_COLUMNS = 80
_KINDS = {
    "DISCRETE_GPU": "discrete",
    "INTEGRATED_GPU": "integrated",
    "UNIFIED": "unified",
    "CPU": "processor",
}
_FAMILIES = ("amx", "avx512", "sve")
"""Instruction sets of which each has many parts; one name stands for all that are there."""
_GB = 1e9
_SHOWN_FEATURES = 22
"""Columns that are left for them beside the widest cells, less an ellipsis."""


def print_devices(devices: Sequence[Device], output: Output) -> None:
    """A table of abilities with names below, one of memory, and why a device is not used."""
    indent = " " * (max((len("device"), *(len(one.id) for one in devices))) + 2)
    output.table(
        ("device", "kind", "memory", "bandwidth", "backends", "features"),
        [
            (
                one.id,
                _KINDS.get(one.kind, one.kind.lower()),
                human_bytes(one.capacity_bytes) if one.capacity_bytes else "-",
                _bandwidth(one.bandwidth_bytes_per_second),
                ", ".join(one.backends) or "-",
                _features(one.features),
            )
            for one in devices
        ],
        right={"memory", "bandwidth"},
        below=[_wrapped(", ".join(_about(one)), indent) for one in devices],
    )
    output.line()
    _print_use(devices, output)
    for one in devices:
        if not one.usable:
            output.line(_wrapped(f"{one.id} is not used: {one.unusable_reason}", ""))


def _print_use(devices: Sequence[Device], output: Output) -> None:
    headers = ("device", "budget", "ours", "others", "unknown", "free", "power", "load")
    output.table(
        headers,
        [
            (
                one.id,
                human_bytes(one.budget_bytes) if one.budget_bytes else "-",
                *(bytes_or_dash(part) if one.capacity_bytes else "-" for part in _parts(one)),
                "-" if one.power_watts is None else f"{one.power_watts:.0f} W",
                "-" if one.utilization is None else f"{one.utilization:.0%}",
            )
            for one in devices
        ],
        right=set(headers[1:]),
    )


def _parts(device: Device) -> tuple[int | None, ...]:
    """Who holds how much of its memory, if it has any."""
    return device.ours_bytes, device.others_bytes, device.unknown_bytes, device.free_bytes


def _about(device: Device) -> Iterator[str]:
    """Who it is, in words."""
    yield name_of(device)
    if device.architecture:
        yield device.architecture
    if device.cores:
        yield f"{device.cores} {'cores' if device.kind == 'CPU' else 'units'}"
    if device.driver_version:
        yield f"driver {device.driver_version}"
    if device.drives_display:
        yield "drives a display"


def _features(features: Sequence[str]) -> str:
    """As many as fit, each family once."""
    families = {
        feature: next((each for each in _FAMILIES if feature.startswith(each)), feature)
        for feature in features
    }
    shown = ""
    for feature in dict.fromkeys(families.values()):
        longer = f"{shown}, {feature}" if shown else feature
        if len(longer) > _SHOWN_FEATURES:
            return f"{shown}, …" if shown else "…"
        shown = longer
    return shown or "-"


def _bandwidth(rate: int | None) -> str:
    return "-" if rate is None else f"{rate / _GB:.0f} GB/s"


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        _COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent or "  ",
        break_on_hyphens=False,
    )
