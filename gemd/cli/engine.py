"""`gemctl engine`: the engine builds of this machine, without a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemd.cli import offers
from gemd.cli.engine_output import build_document, commit_shown, report_verdicts, show_plan, teller
from gemd.cli.failures import CommandError, Exit
from gemd.cli.progress import Progress
from gemd.cli.session import Session, pass_session
from gemd.cli.text import format_moment
from gemd.quantities import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemd.cli.output import Output
    from gemd.engine.builds import Build

_ENGINES = ("llama", "diffusion")
_BACKENDS = ("cuda", "hip", "metal", "vulkan", "cpu")
_engine_option = click.option(
    "--engine",
    type=click.Choice(_ENGINES),
    default="llama",
    show_default=True,
    help="llama.cpp, or torch with transformers for DiffusionGemma.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@click.group()
def engine() -> None:
    """List, install, verify and remove engine builds.

    An engine build is llama.cpp compiled for one kind of processor. The one that comes with
    gemd computes on the CPU unless you have compiled it otherwise. Needs no daemon; a daemon
    that runs takes a new build for the next model that it loads.
    """


@engine.command("list")
@_json_option
@pass_session
def list_builds(session: Session, *, as_json: bool) -> None:
    """List the builds, and which one workers get."""
    from gemd.engine.builds import installed_builds
    from gemd.engine.builds.looking import gpus_here

    found = installed_builds(session.settled_paths.engines_dir)
    usable = gpus_here().backends
    chosen = _chosen(session, found, usable)
    if as_json:
        session.output.document(
            {
                "engines": [{**build_document(one), "chosen": one in chosen} for one in found],
                "usable_backends": list(usable),
            }
        )
        return
    session.output.table(
        ("", "engine", "backend", "version", "commit", "installed", "created", "state"),
        [
            (
                "*" if one in chosen else "",
                one.engine,
                one.backend,
                one.version,
                commit_shown(one.commit),
                one.installed,
                format_moment(one.created.timestamp() if one.created else None),
                f"broken: {one.broken}" if one.broken else "ready",
            )
            for one in found
        ],
    )
    _advise(session, found, usable)


def _chosen(session: Session, found: Sequence[Build], usable: Sequence[str]) -> list[Build]:
    """What a worker of each engine would get by the settings."""
    from gemd.engine.builds import choose_build
    from gemd.errors import EngineMissingError

    wanted = session.resolved.settings.engine_backend
    chosen = []
    for name in _ENGINES:
        try:
            chosen.append(choose_build(found, wanted, usable=usable, engine=name))
        except EngineMissingError:
            continue
    return chosen


def _advise(session: Session, found: Sequence[Build], usable: Sequence[str]) -> None:
    from gemd.engine.builds import best_backend, install_command

    best = best_backend(usable)
    if not any(one.backend == best and one.engine == "llama" and not one.broken for one in found):
        session.output.hint(f"this machine can run {best}: {install_command('llama', best)}")


@engine.command()
@click.option(
    "--backend",
    type=click.Choice(("auto", *_BACKENDS)),
    default="auto",
    show_default=True,
    help="What it computes on; auto is the best that the GPUs of this machine can run.",
)
@_engine_option
@click.option(
    "--from",
    "only",
    type=click.Choice(("prebuilt", "source")),
    help="Only so; else a compiled wheel is looked for first, and then the source is compiled.",
)
@click.option("--force", is_flag=True, help="Also if there is one already.")
@_yes_option
@_json_option
@pass_session
def install(
    session: Session,
    *,
    backend: str,
    engine: str,
    only: str | None,
    force: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Install an engine build beside gemd's environment, and try it.

    The build that works stays in place until the new one has been tried. Ctrl-C ends the
    compiler and leaves nothing behind.
    """
    from gemd.engine.builds import best_backend, install_command, installed_builds
    from gemd.engine.builds.installers import find_installers
    from gemd.engine.builds.installing import install as install_build
    from gemd.engine.builds.looking import Machine, gpus_here, look
    from gemd.engine.builds.planning import plan

    engines_dir = session.settled_paths.engines_dir
    facts = look(Machine(session.environ), engines_dir, gpus_here())
    target = best_backend(facts.backends, engine) if backend == "auto" else backend
    command = install_command(engine, target) + (f" --from {only}" if only else "")
    there = _present(installed_builds(engines_dir), engine, target, only, bundled=backend == "auto")
    if there is not None and not force:
        if as_json:
            session.output.document({"build": build_document(there), "notes": [], "log": ""})
        session.output.note(f"the {engine} engine for {target} is there already: {there.name}")
        session.output.hint(f"{command} --force")
        return
    _require_network(session, command)
    planned = plan(
        engine,
        target,
        facts,
        only=only or "",
        environ=session.environ,
        wheel_index=session.resolved.settings.engine_index,
        torch_index=session.resolved.settings.torch_index,
    )
    installers = find_installers(session.environ)
    show_plan(session.output, planned, installers, engines_dir)
    command += " --force" if force else ""
    _confirm(session.output, yes=yes, question="Install it?", command=command, default=True)
    with Progress(session.output) as progress:
        done = install_build(
            engines_dir,
            planned.ways,
            installers,
            environ=session.environ,
            facts=facts,
            tell=teller(progress),
        )
    if as_json:
        notes = list(done.verdict.notes)
        document = {"build": build_document(done.build), "notes": notes, "log": str(done.log)}
        session.output.document(document)
    session.output.note(f"{done.build.name} is installed and computes rightly")
    for note in done.verdict.notes:
        session.output.note(note)
    session.output.hint("models that are warm keep their engine until they are loaded again")


def _require_network(session: Session, command: str) -> None:
    if session.resolved.settings.offline:
        raise CommandError(
            "an engine cannot be installed offline",
            Exit.PRECONDITION,
            why=f"the setting offline is on ({session.resolved.origins['offline']})",
            advice=(f"GEMD_OFFLINE=false {command}",),
        )


def _confirm(
    output: Output, *, yes: bool, question: str, command: str, default: bool = False
) -> None:
    if yes:
        return
    if not output.can_ask():
        raise CommandError(
            "this needs a yes", Exit.USAGE, why="nobody can be asked", advice=(f"{command} --yes",)
        )
    if not output.confirm(question, default=default):
        raise CommandError("nothing was changed", Exit.FAILURE)


def _present(
    found: Sequence[Build], engine: str, backend: str, only: str | None, *, bundled: bool
) -> Build | None:
    """A sound build of that kind; the bundled one only where nothing special was asked for."""
    return next(
        (
            one
            for one in found
            if (one.engine, one.backend) == (engine, backend)
            and not one.broken
            and (only is None or only == one.installed)
            and (one.path is not None or bundled)
        ),
        None,
    )


@engine.command()
@click.argument("backend", metavar="BACKEND", shell_complete=offers.backends)
@_engine_option
@_yes_option
@_json_option
@pass_session
def remove(session: Session, *, backend: str, engine: str, yes: bool, as_json: bool) -> None:
    """Remove the build for BACKEND, or the one with that name; never the bundled one."""
    from gemd.engine.builds import installed_builds
    from gemd.engine.builds.installing import remove as remove_build

    engines_dir = session.settled_paths.engines_dir
    found = [
        one
        for one in installed_builds(engines_dir)
        if one.path is not None
        and (one.name == backend or (one.engine, one.backend) == (engine, backend))
    ]
    if not found:
        raise _no_build(backend, engine)
    names = ", ".join(one.name for one in found)
    command = f"gemctl engine remove {backend}"
    command += "" if engine == "llama" else f" --engine {engine}"
    _confirm(session.output, yes=yes, question=f"Remove {names}?", command=command)
    freed = sum(remove_build(engines_dir, one) for one in found)
    if as_json:
        removed = [build_document(one) for one in found]
        session.output.document({"removed": removed, "freed_bytes": freed})
    session.output.note(f"{names} is removed ({human_bytes(freed)} freed)")


@engine.command()
@click.argument("backend", metavar="[BACKEND]", required=False, shell_complete=offers.backends)
@_engine_option
@_json_option
@pass_session
def verify(session: Session, *, backend: str | None, engine: str, as_json: bool) -> None:
    """Try the builds, or the one for BACKEND, each in a process of its own.

    The library has to be of the right llama.cpp commit, see the devices it was built for, and
    continue prompts of a tiny model with the right tokens.
    """
    from gemd.engine.builds import installed_builds
    from gemd.engine.builds.looking import gpus_here
    from gemd.engine.builds.verification import verify as verify_build

    found = [
        one
        for one in installed_builds(session.settled_paths.engines_dir)
        if one.engine == engine and backend in {None, one.backend, one.name}
    ]
    if not found:
        raise _no_build(backend or "any backend", engine)
    usable = gpus_here().backends
    verdicts = []
    for one in found:
        session.output.note(f"trying {one.name}")
        verdicts.append(
            verify_build(
                one.path,
                engine=one.engine,
                backend=one.backend,
                environ=session.environ,
                usable=usable,
            )
        )
    report_verdicts(session.output, found, verdicts, as_json=as_json)


def _no_build(backend: str, engine: str) -> CommandError:
    return CommandError(
        f"no {engine} build for {backend} is installed",
        Exit.NOT_FOUND,
        advice=("gemctl engine list",),
    )
