"""The memory of devices as a table with a bar for each: who holds how much of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.cli.output import Output
    from gemd.client import Device

_BAR_COLUMNS, _WIDEST_BAR, _USUAL_COLUMNS = 32, 96, 80
"""Of a bar on 80 columns, where it leaves room for the name of a processor; and at most."""
_OURS, _RESERVED, _FREE, _MARGIN, _UNKNOWN, _OTHERS = "#+.:?o"
_MEANING = (
    f"{_OURS} ours  {_RESERVED} reserved  {_FREE} free  {_MARGIN} margin  "
    f"{_UNKNOWN} unknown  {_OTHERS} others"
)


def print_memory(devices: Sequence[Device], output: Output) -> None:
    """A row of figures and a bar for each device, and what the marks mean."""
    headers = ("device", "capacity", "budget", "margin", "ours", "reserved", "others", "free")
    rows = [
        (
            one.id,
            human_bytes(one.capacity_bytes) if one.capacity_bytes else "-",
            human_bytes(one.budget_bytes) if one.budget_bytes else "-",
            human_bytes(one.margin_bytes),
            bytes_or_dash(one.ours_bytes),
            human_bytes(one.reserved_bytes),
            bytes_or_dash(one.others_bytes),
            bytes_or_dash(one.free_bytes),
        )
        for one in devices
    ]
    indent = " " * (max((len("device"), *(len(one.id) for one in devices))) + 2)
    room = output.data_columns() - _USUAL_COLUMNS if output.can_draw() else 0
    marks = min(_BAR_COLUMNS + max(room, 0), _WIDEST_BAR)
    below = [f"{indent}[{bar(one, marks)}]  {name_of(one)}".rstrip() for one in devices]
    output.table(headers, rows, right=set(headers[1:]), below=below)
    output.aside(indent + _MEANING)


def bar(device: Device, columns: int) -> str:
    """A device's memory in so many marks, each of which stands for an equal part of it.

    What models hold grows from the left, what others hold from the right; the margin is the end
    of what is free. What no sensor tells is unknown. Whatever is not 0 has a mark.
    """
    capacity = device.capacity_bytes
    if not capacity:
        return _UNKNOWN * columns
    ours, others, free = device.ours_bytes or 0, device.others_bytes or 0, device.free_bytes or 0
    # A promise is kept out of what is free; what comes back is not free yet.
    reserved = min(device.reserved_bytes, free)
    margin = min(device.margin_bytes, free - reserved)
    parts = [
        (_OURS, ours),
        (_RESERVED, reserved),
        (_FREE, free - reserved - margin),
        (_MARGIN, margin),
        (_UNKNOWN, max(0, capacity - ours - others - free)),
        (_OTHERS, others),
    ]
    counts = shares([size for _, size in parts], columns)
    return "".join(mark * count for (mark, _), count in zip(parts, counts, strict=True))


def shares(sizes: Sequence[int], columns: int) -> list[int]:
    """How many of the columns each size gets: in proportion, at least one unless it is 0.

    They add up to `columns`, which are at least as many as there are sizes. If all are 0, so are
    their columns.
    """
    total = sum(sizes)
    counts = [0 if not size else max(1, size * columns // total) for size in sizes]
    while total and (rest := columns - sum(counts)):
        # The one that is the farthest from its due gets one more or one less.
        off = [size * columns / total - count for size, count in zip(sizes, counts, strict=True)]
        movable = [at for at, count in enumerate(counts) if count > 1 or (rest > 0 and count)]
        at = max(movable, key=lambda at: off[at] if rest > 0 else -off[at])
        counts[at] += 1 if rest > 0 else -1
    return counts


def name_of(device: Device) -> str:
    """What it is sold as, and whether it is made up."""
    name = device.display_name or device.kind.lower()
    return f"{name}, simulated" if device.simulated else name


def bytes_or_dash(count: int | None) -> str:
    """A size; ``-`` if it is unknown."""
    return "-" if count is None else human_bytes(count)
