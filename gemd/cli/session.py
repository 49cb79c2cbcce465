"""What one invocation of `gemctl` works with: streams, settings, the daemon."""

from __future__ import annotations

import sys
from functools import cached_property, wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, cast

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gemd.cli.output import Output
    from gemd.client import Client
    from gemd.config import Resolved, Settings
    from gemd.paths import Paths


class Session:
    """One invocation.

    Args:
        output: Where everything is written.
        environ: The process's environment.

    """

    def __init__(self, output: Output, environ: Mapping[str, str]) -> None:
        self.output = output
        self.environ = environ
        self.flags: dict[str, str] = {}
        """Settings given on the command line, by key."""
        self.as_json: bool | None = None
        """Whether the command prints its data as JSON; None before its options are read."""

    @cached_property
    def config_file(self) -> Path:
        """The user's configuration file, which need not exist."""
        from gemd.paths import config_file

        return config_file(self.environ, platform=sys.platform, home=self._home)

    @cached_property
    def resolved(self) -> Resolved:
        """The settings in force, with their origins.

        Raises:
            ConfigError: One of them is wrong.

        """
        from gemd.config import load_settings

        return load_settings(environ=self.environ, file=self.config_file, flags=self.flags)

    @cached_property
    def paths(self) -> Paths:
        """Where the daemon listens and logs. Of the store, only `settled_paths` knows.

        Raises:
            ConfigError: A setting is wrong.

        """
        from gemd.paths import check_socket_path

        paths = self._resolve(self._plain_overrides() or self.resolved.settings)
        # «Nobody answers there» would be true of a path that no daemon can have, and no help.
        check_socket_path(paths.socket, platform=sys.platform)
        return paths

    @cached_property
    def settled_paths(self) -> Paths:
        """All directories and files of this user, as all settings have them.

        Raises:
            ConfigError: A setting is wrong.

        """
        return self._resolve(self.resolved.settings)

    def _resolve(self, settings: Settings) -> Paths:
        from gemd.paths import resolve_paths

        return resolve_paths(
            self.environ, platform=sys.platform, home=self._home, settings=settings
        )

    @property
    def _home(self) -> Path:
        from pathlib import Path

        return Path(self.environ.get("HOME") or Path.home())

    def _plain_overrides(self) -> Settings | None:
        """The socket, where it can be told without reading the settings.

        Importing the settings takes 100 ms (pydantic), and a mistake in their file must not
        keep `gemctl --socket PATH stop` from a daemon that runs. The file has no say where
        the socket is named, and none where it does not exist.
        """
        from pathlib import Path

        given = self.flags.get("socket") or self.environ.get("GEMD_SOCKET")
        if (given and not given.startswith("/")) or (not given and self.config_file.exists()):
            return None
        return cast(
            "Settings", SimpleNamespace(socket=Path(given) if given else None, store_dir=None)
        )

    def client(self, *, start: bool) -> Client:
        """A client of the daemon, which answers at the time of this call.

        Args:
            start: Whether to start a daemon if none runs.

        Raises:
            CommandError: None runs, or it could not be started.

        """
        from gemd.cli import autostart

        socket = self.paths.socket
        if start:
            self.start_daemon()
        elif (why := autostart.silence(socket)) is not None:
            raise autostart.not_running(socket, why=why, may_start=autostart.allowed(self.environ))
        from gemd import __version__
        from gemd.client import Client

        return Client(socket, name=f"gemctl/{__version__}")

    def start_daemon(self) -> None:
        """Start the service or else a daemon, unless one answers already.

        Raises:
            CommandError: It could not be started, or may not be.

        """
        from gemd.cli import autostart

        def service() -> bool:
            from gemd.cli.service.preferred import start_service

            return start_service(self)

        autostart.ensure_running(
            self.paths.socket,
            command=self.daemon_command(),
            lock=self.paths.lock,
            log_file=self.paths.log_file,
            environ=self.environ,
            output=self.output,
            service=service,
        )

    @property
    def revive(self) -> Callable[[], None] | None:
        """What starts a daemon in place of one that died; None where GEMD_AUTOSTART forbids it."""
        from gemd.cli import autostart

        return self.start_daemon if autostart.allowed(self.environ) else None

    def daemon_command(self) -> list[str]:
        """What starts the daemon with the settings of this command line."""
        # -P: a file in the current directory must not be able to pose as one of our modules.
        command = [sys.executable, "-P", "-m", "gemd", "--autostarted"]
        for key, value in self.flags.items():
            command += [f"--{key}", value]
        return command


P = ParamSpec("P")
R = TypeVar("R")


def pass_session(command: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Give a command its session first, which knows from then on whether its data is JSON."""

    @wraps(command)
    def given(*args: P.args, **kwargs: P.kwargs) -> R:
        context = click.get_current_context()
        session = context.find_object(Session)
        assert session is not None, "invoked without a session"
        session.as_json = bool(context.params.get("as_json"))
        return context.invoke(command, session, *args, **kwargs)

    return given


def model_name(given: str) -> str:
    """A model as the daemon should be told of it: the path of a file is made absolute.

    Raises:
        click.UsageError: Nothing was given, as by a shell variable that is not set.

    """
    from pathlib import Path

    if not given.strip():
        raise click.UsageError("the model's name is empty; `gemctl list` shows the names")

    looks_like_path = (
        given.endswith(".gguf") or given in {".", ".."} or given.startswith(("/", "./", "../", "~"))
    )
    if looks_like_path or ("/" in given and Path(given).exists()):
        return str(Path(given).expanduser().absolute())
    return given
