"""`gemctl yield`: give memory back to other programs, and keep off it for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemd.cli import autostart
from gemd.cli.documents import listing
from gemd.cli.session import Session, pass_session
from gemd.cli.text import format_moment, format_seconds
from gemd.cli.values import duration, size
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from gemd.cli.output import Output
    from gemd.client import YieldedMemory


@click.command("yield")
@click.argument("device", metavar="[DEVICE]", required=False)
@click.option("--size", "amount", type=size, metavar="SIZE", help="So much, such as 4GiB; or all.")
@click.option("--keep-off", type=duration, metavar="TIME", help="Then load nothing for that long.")
@click.option("--force", is_flag=True, help="Pinned models too, and end running answers.")
@click.option("--resume", is_flag=True, help="End an earlier --keep-off and give nothing back.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def yield_memory(
    session: Session,
    *,
    device: str | None,
    amount: int | None,
    keep_off: float | None,
    force: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Give memory back to other programs now.

    Without DEVICE, that of all GPUs, or main memory where there is none. Running answers end
    first; the command returns when the memory is seen to be free. Before a game, --keep-off 2h
    is what helps: models are not loaded again while it starts.
    """
    _check(device, resume=resume, others=amount is not None or keep_off is not None or force)
    output, where = session.output, device or ""
    if not autostart.answers(session.paths.socket):
        _report_no_daemon(output, keep_off=keep_off is not None, as_json=as_json)
        return
    with session.client(start=False) as client:
        found = (
            client.resume(where)
            if resume
            else client.give_back(where, size=amount, keep_off=keep_off, force=force)
        )
    if as_json:
        output.document(listing("yielded", found))
        return
    for one in found:
        if resume:
            output.line(f"{one.device}: models may be loaded again")
        else:
            _print(one, output)
    if not resume:
        _hint(found, where, output)


def _check(device: str | None, *, resume: bool, others: bool) -> None:
    """Raise click.UsageError for a command line that cannot be meant."""
    if device is not None and not device.strip():
        raise click.UsageError("the device's name is empty; `gemctl devices` shows the names")
    if resume and others:
        raise click.UsageError("--resume gives nothing back: it goes with no other option")


def _report_no_daemon(output: Output, *, keep_off: bool, as_json: bool) -> None:
    if as_json:
        output.document(listing("yielded", ()))
    output.note("gemd is not running, so that no model holds memory")
    if keep_off:
        output.note("--keep-off is not noted: a daemon that starts later may load")


def _print(one: YieldedMemory, output: Output) -> None:
    output.line(f"{one.device}: {_released(one)}")
    if one.models:
        output.line(f"  from: {', '.join(one.models)}")
    if one.kept_bytes or one.kept_reasons:
        output.line(f"  kept: {human_bytes(one.kept_bytes)}")
        for reason in one.kept_reasons:
            output.line(f"    {reason.message}")
    if one.keep_off_until is not None:
        output.line(f"  nothing is loaded until {format_moment(one.keep_off_until)}")
        output.line(f"  to end that: gemctl yield {one.device} --resume")


def _released(one: YieldedMemory) -> str:
    took = format_seconds(one.duration)
    if not one.models:
        return "nothing was given back" if one.kept_bytes else "no model holds memory"
    if one.confirmed:
        return f"{human_bytes(one.released_bytes)} given back in {took}, seen free by the sensor"
    return f"{human_bytes(one.released_bytes)} given back in {took}; no sensor can confirm it"


def _hint(found: tuple[YieldedMemory, ...], where: str, output: Output) -> None:
    """Say what would give more, or keep what was given."""
    command = f"gemctl yield {where}".rstrip()
    if any(reason.code == "PINNED" for one in found for reason in one.kept_reasons):
        output.hint(f"{command} --force   (takes pinned models too)")
    if not where and not any(one.models or one.device == "cpu" for one in found):
        output.hint("gemctl yield cpu   (gives back main memory)")
    if any(one.models and one.keep_off_until is None for one in found):
        output.hint(f"{command} --keep-off 2h   (else the next request loads again)")
