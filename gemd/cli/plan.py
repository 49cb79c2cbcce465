"""`gemctl plan`: which weights suit this machine or another one, and why."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Final

import click

from gemd.cli import offers
from gemd.cli.documents import document
from gemd.cli.memory import shares
from gemd.cli.session import Session, model_name, pass_session
from gemd.cli.text import format_seconds
from gemd.cli.values import size, whole_number
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.cli.output import Output
    from gemd.client import Plan, PlannedDevice, PlannedModel, VariantVerdict

_BAR_COLUMNS: Final = 56
_NARROWEST: Final = 40
"""Columns; lines are not folded into less."""
_MARKS: Final[Mapping[str, str]] = {
    "WEIGHTS": "w",
    "KV_CACHE": "k",
    "COMPUTE": "c",
    "OUTPUT": "u",
    "PROJECTOR": "p",
    "OVERHEAD": "h",
}
_NAMES: Final[Mapping[str, str]] = {
    "WEIGHTS": "weights",
    "KV_CACHE": "KV cache",
    "COMPUTE": "compute",
    "OUTPUT": "output",
    "PROJECTOR": "projector",
    "OVERHEAD": "overhead",
}
_FREE, _MARGIN, _OTHERS = ".", ":", "o"
_MOST_CONTEXT: Final = 2**24


@click.command()
@click.argument("model", metavar="[MODEL]", required=False, shell_complete=offers.models)
@click.option(
    "--variant",
    metavar="VARIANT",
    shell_complete=offers.variants,
    help="Only this one of MODEL.",
)
@click.option(
    "--on",
    "device",
    metavar="DEVICE",
    shell_complete=offers.machines,
    help="A device profile such as rtx-4090-24gb, or a device file, instead of this machine.",
)
@click.option(
    "--context",
    type=whole_number(_MOST_CONTEXT),
    metavar="N",
    help="Room for so many tokens; the setting plan_context unless given.",
)
@click.option(
    "--budget",
    type=size,
    metavar="SIZE",
    help="Memory of each GPU that models may take, or RAM where there is none; such as 12GiB.",
)
@click.option("--idle", is_flag=True, help="As if no other program held memory.")
@click.option("--cpu", "allow_cpu", is_flag=True, help="A GPU may be left unused.")
@click.option("--all", "-a", "everything", is_flag=True, help="Also why each other variant is not.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def plan(
    session: Session,
    *,
    model: str | None,
    variant: str | None,
    device: str | None,
    context: int | None,
    budget: int | None,
    idle: bool,
    allow_cpu: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """Show which weights suit this machine, where they would lie, and why.

    With MODEL, only how that one would. Nothing is fetched or loaded.
    """
    if variant and not model:
        raise click.UsageError("--variant needs the MODEL that it is of")
    if context == 0:
        raise click.UsageError("--context 0 has no room for a question")
    with session.client(start=True) as client:
        made = client.plan(
            "" if model is None else model_name(model),
            variant=variant or "",
            on=_place(device),
            context=context,
            budget=budget,
            ignore_others=idle,
            allow_cpu=allow_cpu,
        )
    if as_json:
        session.output.document(document(made.raw))
        return
    print_plan(made, session.output, everything=everything or model is not None)


def _place(device: str | None) -> str:
    """A device file is named to the daemon by its absolute path."""
    if not device:
        return ""
    if device.endswith(".toml"):
        return os.path.abspath(os.path.expanduser(device))  # noqa: PTH100, PTH111 -- keeps ".."
    return device


def print_plan(made: Plan, output: Output, *, everything: bool) -> None:
    """The models, the memory of each device, and the reasons."""
    for one in made.models:
        _print_model(one, output)
    if made.models:
        output.line()
    for device in made.devices:
        _print_device(device, output)
    output.aside("  " + "  ".join(f"{mark} {_NAMES[kind]}" for kind, mark in _MARKS.items()))
    output.aside(f"  {_FREE} free  {_MARGIN} margin  {_OTHERS} others")
    output.line()
    for reason in made.reasons:
        _print_folded(f"why: {reason.message}", output)
    if made.swap is not None:
        output.line(f"swap: a change between the tiers takes about {format_seconds(made.swap)}")
    others = [one for one in made.verdicts if not one.chosen]
    if everything:
        for left in others:
            _print_folded(f"not: {_verdict(left)}", output)
    elif others:
        output.hint(f"{len(others)} other variants were looked at; --all says why not")


def _print_model(one: PlannedModel, output: Output) -> None:
    warm = "" if one.warm else ", swapped in when asked for"
    output.heading(f"{one.role.lower():<9} {one.model}  {one.quantization}  on {_where(one)}{warm}")
    facts = [f"context {one.context_length} tokens"]
    if one.decode_tokens_per_second is not None:
        facts.append(f"about {one.decode_tokens_per_second:.0f} tokens/s")
    if one.canvas is not None:
        facts.append(f"{format_seconds(one.canvas)} a canvas")
    if one.gpu_layers:
        facts.append(f"{one.gpu_layers} of {one.total_layers} layers on the GPU")
    facts.append(f"download {human_bytes(one.download_bytes)}" if one.download_bytes else "on disk")
    _print_folded(", ".join(facts), output, indent="  ")
    for reason in one.reasons:
        _print_folded(f"why: {reason.message}", output, indent="  ")


def _where(one: PlannedModel) -> str:
    """Where it computes: every model has some of its weights in main memory."""
    devices = [memory.device for memory in one.memory]
    return " + ".join(devices if one.placement == "SPLIT" else devices[:1])


def _print_device(planned: PlannedDevice, output: Output) -> None:
    device = planned.device
    name = device.display_name or device.kind.lower()
    output.line(f"{device.id:<5} [{bar(planned, _BAR_COLUMNS)}]")
    figures = [f"{_NAMES[kind]} {human_bytes(size)}" for kind, size in planned.parts.items()]
    for label, amount in (
        ("others", planned.others_bytes),
        ("margin", planned.margin_bytes),
        ("free", planned.free_bytes),
    ):
        if amount:
            figures.append(f"{label} {human_bytes(amount)}")
    total = f"{name}: {human_bytes(device.capacity_bytes)} = {' + '.join(figures)}"
    _print_folded(total, output, indent="      ")


def _print_folded(content: str, output: Output, *, indent: str = "") -> None:
    """A sentence in as many lines as the terminal needs; commands in it are not cut in two."""
    folded = textwrap.fill(
        content,
        max(_NARROWEST, output.columns()),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    output.line(folded)


def bar(planned: PlannedDevice, columns: int) -> str:
    """A device's memory in so many marks; all parts of it add up to them."""
    parts = [
        *((_MARKS[kind], size) for kind, size in planned.parts.items()),
        (_FREE, planned.free_bytes),
        (_MARGIN, planned.margin_bytes),
        (_OTHERS, planned.others_bytes),
    ]
    counts = shares([size for _, size in parts], columns)
    return "".join(mark * count for (mark, _), count in zip(parts, counts, strict=True))


def _verdict(one: VariantVerdict) -> str:
    speed = one.decode_tokens_per_second
    pace = "" if speed is None else f", about {speed:.0f} tokens/s"
    # Of what does not fit, the reason has the figures.
    needs = f"{human_bytes(one.needed_bytes)}{pace}; " if one.fits else ""
    return f"{one.model} {one.variant}: {needs}{one.reason.message}"
