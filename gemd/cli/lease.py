"""`gemctl lease`: keep a model warm for a while, see and end such leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemd.cli import offers
from gemd.cli.documents import document, listing
from gemd.cli.session import Session, model_name, pass_session
from gemd.cli.text import format_moment
from gemd.cli.values import duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gemd.cli.output import Output
    from gemd.client import Lease


@click.command()
@click.argument("model", metavar="[MODEL]", required=False, shell_complete=offers.models)
@click.option("--ttl", type=duration, metavar="TIME", help="How long, such as 30m; 10m if new.")
@click.option("--load/--no-load", default=None, help="Make MODEL warm now; --load unless given.")
@click.option("--renew", metavar="ID", help="Start the time of a lease anew.")
@click.option("--release", metavar="ID", help="End a lease.")
@click.option("--list", "as_list", is_flag=True, help="List the active leases, also of MODEL only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_session
def lease(
    session: Session,
    *,
    model: str | None,
    ttl: float | None,
    load: bool | None,
    renew: str | None,
    release: str | None,
    as_list: bool,
    as_json: bool,
) -> None:
    """Keep MODEL warm for a while.

    Without MODEL, list the active leases. A lease is dearer to evict than other models, but it
    forbids nothing, as a pin does. It ends when its time is over, by --release, or with the
    daemon.
    """
    _check(model, ttl=ttl, load=load, renew=renew, release=release, as_list=as_list)
    if renew is not None:
        _renew(session, renew, ttl, as_json=as_json)
    elif release is not None:
        _release(session, release, as_json=as_json)
    elif model is None or as_list:
        _list(session, model, as_json=as_json)
    else:
        _create(session, model, ttl, load=load is not False, as_json=as_json)


def _check(
    model: str | None,
    *,
    ttl: float | None,
    load: bool | None,
    renew: str | None,
    release: str | None,
    as_list: bool,
) -> None:
    """Raise click.UsageError for options that do not belong together."""
    named = [("--renew", renew is not None), ("--release", release is not None)]
    chosen = [name for name, given in [*named, ("--list", as_list)] if given]
    if len(chosen) > 1:
        raise click.UsageError(f"{chosen[0]} and {chosen[1]} are two commands")
    action = chosen[0] if chosen else ""
    if model is not None and action in {"--renew", "--release"}:
        raise click.UsageError(f"{action} takes the ID of a lease and no MODEL")
    creates = model is not None and not action
    if ttl is not None and not (creates or action == "--renew"):
        raise click.UsageError("--ttl is for MODEL and for --renew")
    if load is not None and not creates:
        raise click.UsageError("--load and --no-load are for MODEL")


def _create(session: Session, model: str, ttl: float | None, *, load: bool, as_json: bool) -> None:
    name = model_name(model)
    with session.client(start=True) as client:
        made = client.create_lease(name, ttl=ttl, load=load)
        found = client.model(made.model)
    _show(made, session.output, as_json=as_json)
    if load and not found.on_disk:
        session.output.note(f"{made.model} is not on disk yet")
        session.output.hint(f"gemctl pull {made.model}")
    elif load and found.state != "READY" and not as_json:
        session.output.note(f"{made.model} is not warm yet; it is loaded when memory is free")
        session.output.hint("gemctl status")


def _renew(session: Session, name: str, ttl: float | None, *, as_json: bool) -> None:
    with session.client(start=False) as client:
        renewed = client.renew_lease(_full(name), ttl=ttl)
    _show(renewed, session.output, as_json=as_json)


def _release(session: Session, name: str, *, as_json: bool) -> None:
    full = _full(name)
    with session.client(start=False) as client:
        client.release_lease(full)
    if as_json:
        session.output.document({})
    else:
        session.output.note(f"{full} is not active any more")


def _list(session: Session, model: str | None, *, as_json: bool) -> None:
    about = "" if model is None else model_name(model)
    with session.client(start=False) as client:
        found = client.leases(model=about)
    if as_json:
        session.output.document(listing("leases", found))
    elif found:
        print_leases(found, session.output)
    else:
        session.output.note("no lease is active")


def _show(taken: Lease, output: Output, *, as_json: bool) -> None:
    """A lease that was just taken: its name as data, since it is what ends or renews it."""
    if as_json:
        output.document(document(taken.raw))
        return
    output.line(taken.name)
    output.note(f"{taken.model} has a lease until {format_moment(taken.expire_time)}")


def print_leases(leases: Iterable[Lease], output: Output) -> None:
    """Leases as a table."""
    from gemd.quantities import format_duration

    output.table(
        ("lease", "model", "client", "ttl", "until"),
        [
            (
                one.name,
                one.model,
                one.client or "-",
                format_duration(one.ttl),
                format_moment(one.expire_time),
            )
            for one in leases
        ],
        right={"ttl"},
    )


def _full(name: str) -> str:
    """The resource name of a lease, given that or its id.

    Raises:
        click.UsageError: Nothing was given, as by a shell variable that is not set.

    """
    if not name.strip():
        raise click.UsageError("the lease's ID is empty; `gemctl lease` shows the leases")
    return name if name.startswith("leases/") else f"leases/{name}"
