"""`gemd`: the daemon in the foreground.

Settings, the lock, the log, signals and the idle exit; everything inside is
`gemd.rpc.app.App`. Nothing is written to standard output. Exit codes: 0 after an ordered
end, 1 if another daemon holds the socket or this one failed, 78 (EX_CONFIG) if a setting
is wrong, which service managers do not restart; launchd, which restarts whatever fails, gets 0
for that.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import platform
import secrets
import shlex
import signal
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog

import gemd
from gemd import config, notify, paths
from gemd.cores import leave_no_core
from gemd.errors import ConfigError, GemdError
from gemd.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.config import Resolved, Settings
    from gemd.paths import Paths
    from gemd.rpc.app import App
    from gemd.rpc.lifecycle import Identity, StartedBy
    from gemd.rpc.socket import Lock

EX_CONFIG = 78
LONGEST_END_S = 19.8
"""From the wish to the end; the ordered one takes less (`gemd.rpc.app`)."""

log = structlog.get_logger("gemd.daemon")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--socket", metavar="PATH", help="Listen on this socket.")
@click.option("--config", "config_file", metavar="FILE", help="Read this settings file.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--log-format", metavar="FORMAT", help="auto, json or console.")
@click.option("--autostarted", is_flag=True, hidden=True, help="A client started this daemon.")
@click.option("--agent", is_flag=True, hidden=True, help="launchd started this daemon.")
@click.version_option(gemd.__version__, prog_name="gemd", message="%(prog)s %(version)s")
def main(
    *,
    socket: str | None,
    config_file: str | None,
    log_level: str | None,
    log_format: str | None,
    autostarted: bool,
    agent: bool,
) -> None:
    """Run the gemd daemon in the foreground until it is told to end."""
    _open_missing_streams()
    # An autostarted daemon may have inherited the variables of the unit that its client is in.
    manager = notify.take_link(os.environ, pid=os.getpid(), ours=not autostarted)
    starter = Starter(autostarted=autostarted, agent=agent, manager=manager)
    flags = {"socket": socket, "log_level": log_level, "log_format": log_format}
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        code = run(os.environ, flags=given, config_file=config_file, starter=starter)
    except ConfigError as error:
        _explain(error)
        if manager is not None:
            manager.send(f"STATUS={notify.one_line(str(error))}")
        code = 0 if agent else EX_CONFIG
    sys.exit(code)


@dataclass(frozen=True, slots=True)
class Starter:
    """Who started this daemon, and how to talk back.

    Attributes:
        autostarted: A client did.
        agent: launchd did.
        manager: systemd, or whoever speaks its protocol; None if nobody listens.

    """

    autostarted: bool = False
    agent: bool = False
    manager: notify.Link | None = None

    @property
    def keeps_log(self) -> bool:
        """Whether standard error is the log file itself, which only the log can keep small."""
        return self.autostarted or self.agent


def _open_missing_streams() -> None:
    """Open what was closed as by `gemd 2>&-` on nothing.

    Otherwise the next file, such as the lock, becomes standard error, and libraries write to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number is the missing one; children inherit it.
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for the life of the process


def run(
    environ: Mapping[str, str],
    *,
    flags: Mapping[str, str],
    config_file: str | None,
    starter: Starter,
) -> int:
    """One whole run; returns the exit code.

    Raises:
        ConfigError: A setting is wrong, or a path or port cannot be used.

    """
    home = Path.home()
    file = (
        _named_file(config_file)
        if config_file
        else paths.config_file(environ, platform=sys.platform, home=home)
    )
    resolved = config.load_settings(environ=environ, file=file, flags=flags)
    places = paths.resolve_paths(
        environ, platform=sys.platform, home=home, settings=resolved.settings
    )
    if starter.keeps_log:
        configure_logging(resolved.settings, None, file=places.log_file)
    else:
        configure_logging(resolved.settings, sys.stderr)
    leave_no_core()
    # Libraries read it when they are imported; what is wrong with a call is logged by us.
    # gRPC has a line for each call whose headers are too large. Anybody who reaches the TCP port
    # can make a thousand a second.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    lock = claim(places)
    if lock is None:
        return 1
    try:
        return asyncio.run(_serve(resolved, places, file=file, environ=environ, starter=starter))
    finally:
        places.socket.unlink(missing_ok=True)
        lock.release()


def claim(places: Paths) -> Lock | None:
    """The right to the socket, with nothing stale at its path; None if another daemon has it.

    Raises:
        ConfigError: The path is too long, its directory is not private, the lock cannot be
            used, or something that is no socket lies there.

    """
    from gemd.rpc import socket  # noqa: PLC0415 - after the settings are known to be good

    paths.check_socket_path(places.socket, platform=sys.platform)
    paths.ensure_private_directory(places.runtime_dir)
    paths.ensure_private_directory(places.state_dir)
    # Asked before anything is made: who is refused here finds no lock file left beside theirs.
    socket.is_socket(places.socket)
    taken = socket.take_lock(places.lock)
    if isinstance(taken, socket.Occupied):
        who = f"process {taken.pid}" if taken.pid else "another process"
        _say_occupied(f"{who} holds {places.lock} and serves {places.socket}", taken.pid)
        return None
    try:
        if socket.is_served(places.socket):
            _say_occupied(f"it serves {places.socket}, though {places.lock} was removed", 0)
            taken.release()
            return None
        if socket.remove_stale_socket(places.socket):
            log.info("daemon.stale_socket_removed", socket=str(places.socket))
    except BaseException:
        taken.release()
        raise
    return taken


def _say_occupied(how: str, pid: int) -> None:
    click.echo(
        f"gemd: another gemd runs already: {how}\ntry: gemctl status\n     kill {pid or 'PID'}",
        err=True,
    )


async def _serve(
    resolved: Resolved,
    places: Paths,
    *,
    file: Path,
    environ: Mapping[str, str],
    starter: Starter,
) -> int:
    from gemd.rpc.compose import compose  # noqa: PLC0415 - gRPC, after GRPC_VERBOSITY is set

    settings = resolved.settings
    identity = _identity(settings, places, file, environ, starter)
    app = compose(resolved, places, identity=identity, environ=environ)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.lifecycle.end)
    async with app:
        log.info(
            "daemon.serving",
            version=gemd.__version__,
            pid=os.getpid(),
            socket=str(places.socket),
            socket_origin=places.socket_origin,
            tcp=identity.tcp_address,
            started_by=identity.started_by.value,
        )
        if starter.autostarted and settings.idle_exit is not None:
            app.watch_idleness(settings.idle_exit)
        # What was imported stays for good; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        if starter.manager is not None and starter.manager.watchdog_s is not None:
            # Its SIGABRT then says in the log where the loop hangs.
            faulthandler.enable()
        async with notify.telling(starter.manager, status=partial(_in_one_line, app)) as telling:
            defect = await _until_the_end(app)
            _end_within(LONGEST_END_S)
            log.info("daemon.ending", defect=defect)
            telling.end()
            await app.stop(grace_s=settings.shutdown_grace)
    log.info("daemon.ended")
    return 1 if defect else 0


def _in_one_line(app: App) -> str:
    """The daemon for a service manager: who is warm, and what that takes."""
    from gemd.residency.states import State  # noqa: PLC0415 - as in _serve

    states = {model: seen.state for model, seen in app.manager.residences().items()}
    ledger = app.manager.ledger()
    return notify.status_line(
        sorted(model for model, state in states.items() if state is State.READY),
        sorted(model for model, state in states.items() if state is State.LOADING),
        [
            notify.Use(device, ledger.taken(device), account.budget)
            for device, account in ledger.accounts.items()
        ],
    )


def _end_within(seconds: float) -> None:
    """End the process then, however it stands: the interpreter waits for pool threads for ever.

    The lock and the workers go with the process, and the next daemon removes the socket.
    """

    def give_up() -> None:
        log.error("daemon.end_forced", seconds=seconds)
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()


async def _until_the_end(app: App) -> bool:
    """Return when the end is asked for; True if it is a defect that forces it."""
    asked = asyncio.create_task(app.lifecycle.wait_ending())
    broken = asyncio.create_task(app.manager.failed())
    await asyncio.wait({asked, broken}, return_when=asyncio.FIRST_COMPLETED)
    defect = broken.done() and not asked.done()
    asked.cancel()
    broken.cancel()
    return defect


def _identity(
    settings: Settings, places: Paths, file: Path, environ: Mapping[str, str], starter: Starter
) -> Identity:
    from gemd.rpc.lifecycle import Identity  # noqa: PLC0415 - as above
    from gemd.rpc.listeners import port_address  # noqa: PLC0415

    return Identity(
        version=gemd.__version__,
        instance_id=secrets.token_hex(8),
        pid=os.getpid(),
        socket=places.socket,
        tcp_address=port_address(settings),
        start_time=time.time(),
        started_by=_started_by(environ, starter),
        config_path=str(file) if file.exists() else "",
        data_path=str(places.state_dir),
        log_path=str(places.log_file) if starter.keeps_log else "",
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def _started_by(environ: Mapping[str, str], starter: Starter) -> StartedBy:
    from gemd.rpc.lifecycle import StartedBy  # noqa: PLC0415 - as above

    if starter.autostarted:
        return StartedBy.AUTOSTART
    # A terminal may be a unit itself, and its shell inherits the variables. systemd says whose
    # they are (since 248; before that, INVOCATION_ID alone has to do).
    mine = environ.get("SYSTEMD_EXEC_PID", str(os.getpid())) == str(os.getpid())
    unit = bool(environ.get("INVOCATION_ID")) and mine
    job = starter.agent or environ.get("XPC_SERVICE_NAME", "0") != "0"
    return StartedBy.SERVICE if unit or job else StartedBy.MANUAL


def _named_file(name: str) -> Path:
    file = Path(name).absolute()
    if not file.exists():
        raise ConfigError(
            f"there is no settings file {file}",
            why="--config names it",
            advice=(f"ls {shlex.quote(str(file.parent))}", "gemd"),
            metadata={"path": file},
        )
    return file


def _explain(error: GemdError) -> None:
    click.echo(f"gemd: {error}", err=True)
    for number, line in enumerate(error.advice):
        click.echo(f"{'try: ' if not number else '     '}{line}", err=True)


if __name__ == "__main__":
    main()
