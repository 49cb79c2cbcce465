"""Where gemd keeps its files: one value that names them all, and the checks of the socket's.

Linux follows the XDG base directories, macOS its Library folders. Nothing is ever
placed in a directory that other users can write to.
"""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gemd.config import Settings

SOCKET_NAME: Final = "gemd.sock"
LONGEST_SOCKET_BYTES: Final = {"linux": 107, "darwin": 103}
"""sizeof(sockaddr_un.sun_path) without its final NUL."""

_USER_RUNTIME: Final = Path("/run/user")
_DATA: Final = frozenset({"profiles", "proto", "service"})


@dataclass(frozen=True)
class Paths:
    """All paths are absolute; none is created by being named here."""

    config_file: Path
    state_dir: Path
    """What has to survive a restart: token, corrections, operations."""
    cache_dir: Path
    """What can be fetched or computed again."""
    store_dir: Path
    """Model files."""
    engines_dir: Path
    """Engine builds, which took minutes to compile: no cache."""
    runtime_dir: Path
    """Private directory of the socket."""
    socket: Path
    socket_origin: str
    """What decided where the socket is, for the log and for `config show`."""
    lock: Path
    """Held by the daemon that owns the socket."""
    token: Path
    """Secret of the TCP listener."""
    log_file: Path


@dataclass(frozen=True)
class _Bases:
    config: Path
    state: Path
    cache: Path
    data: Path
    logs: Path


def config_file(environ: Mapping[str, str], *, platform: str, home: Path) -> Path:
    """The configuration file: $GEMD_CONFIG, else `config.toml` in the user's directory."""
    named = environ.get("GEMD_CONFIG", "")
    if not named:
        return _bases(environ, platform, home).config / "config.toml"
    if not Path(named).is_absolute():
        raise ConfigError(
            f"GEMD_CONFIG is {named!r}",
            why="it has to be an absolute path",
            advice=(f'export GEMD_CONFIG="$PWD/{named}"',),
            metadata={"key": "GEMD_CONFIG", "value": named},
        )
    return Path(named)


def resolve_paths(
    environ: Mapping[str, str],
    *,
    platform: str,
    home: Path,
    settings: Settings,
    user_runtime: Path | None = None,
) -> Paths:
    """The paths of this user.

    Args:
        environ: The process environment. Relative XDG variables are ignored, as their
            specification demands.
        platform: `sys.platform`; everything but `darwin` follows XDG.
        home: The user's home directory.
        settings: `socket` and `store_dir` overrule the defaults.
        user_runtime: The directory that logind makes, if any; by default
            /run/user/<uid>. Used only where the environment names no runtime
            directory, and only if it exists and belongs to this user.

    """
    bases = _bases(environ, platform, home)
    if user_runtime is None:
        user_runtime = _USER_RUNTIME / str(os.getuid())
    if settings.socket is not None:
        socket, origin = settings.socket, "the setting socket"
    else:
        directory, origin = _runtime_dir(environ, platform, bases, user_runtime)
        socket = directory / SOCKET_NAME
    return Paths(
        config_file=config_file(environ, platform=platform, home=home),
        state_dir=bases.state,
        cache_dir=bases.cache,
        store_dir=settings.store_dir or bases.cache / "models",
        engines_dir=bases.data / "engines",
        runtime_dir=socket.parent,
        socket=socket,
        socket_origin=origin,
        lock=socket.with_name(f"{socket.name}.lock"),
        token=bases.state / "token",
        log_file=bases.logs / "gemd.log",
    )


def _bases(environ: Mapping[str, str], platform: str, home: Path) -> _Bases:
    if platform == "darwin":
        library = home / "Library"
        support = library / "Application Support" / "gemd"
        return _Bases(
            config=support,
            state=support,
            cache=library / "Caches" / "gemd",
            data=support,
            logs=library / "Logs" / "gemd",
        )
    state = _xdg(environ, "XDG_STATE_HOME", home / ".local" / "state")
    return _Bases(
        config=_xdg(environ, "XDG_CONFIG_HOME", home / ".config"),
        state=state,
        cache=_xdg(environ, "XDG_CACHE_HOME", home / ".cache"),
        data=_xdg(environ, "XDG_DATA_HOME", home / ".local" / "share"),
        logs=state,
    )


def _xdg(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    return (_absolute(environ, variable) or default) / "gemd"


def _absolute(environ: Mapping[str, str], variable: str) -> Path | None:
    path = Path(environ.get(variable, ""))
    return path if path.is_absolute() else None


def _runtime_dir(
    environ: Mapping[str, str], platform: str, bases: _Bases, user_runtime: Path
) -> tuple[Path, str]:
    # systemd lists several directories with colons when a unit asks for several.
    service = Path(environ.get("RUNTIME_DIRECTORY", "").split(":", 1)[0])
    if service.is_absolute():
        return service, "RUNTIME_DIRECTORY"
    session = _absolute(environ, "XDG_RUNTIME_DIR")
    if session is not None:
        return session / "gemd", "XDG_RUNTIME_DIR"
    if platform != "darwin" and _is_own_directory(user_runtime):
        return user_runtime / "gemd", str(user_runtime)
    if platform == "darwin":
        return bases.state / "run", "the user's Library"
    return bases.state / "run", "the state directory, because XDG_RUNTIME_DIR is not set"


def _is_own_directory(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def make_private_directory(path: Path) -> None:
    """Make the directory, and those above it, with mode 0700 and whatever the umask.

    `Path.mkdir` gives its mode to the last one only. One that is there keeps its mode.

    Raises:
        OSError: It cannot be made.

    """
    for missing in reversed([path, *path.parents]):
        missing.mkdir(mode=0o700, exist_ok=True)


def ensure_private_directory(path: Path, *, home: Path | None = None) -> None:
    """Make the directory, and those above it, with mode 0700; check that it is private.

    Args:
        path: The directory.
        home: The user's home directory; by default this process's. What lies neither there
            nor is called gemd may be somebody else's or the system's: it is not advised to
            change its mode.

    Raises:
        ConfigError: It cannot be made, is a symbolic link or no directory, belongs to
            somebody else, is open to others, or others may replace it.

    """
    try:
        make_private_directory(path)
        found = path.lstat()
        above = _replaceable(path.resolve().parent)
    except OSError as error:
        raise _unfit(path, f"it cannot be made: {error.strerror}", _ELSEWHERE) from None
    if not stat.S_ISDIR(found.st_mode):
        raise _unfit(path, "it is a symbolic link", (f"ls -ld {path}", *_ELSEWHERE))
    if found.st_uid != os.getuid():
        # After a `sudo -E`, say.
        why = f"it belongs to user {found.st_uid}, not {os.getuid()}"
        raise _unfit(path, why, (f"ls -ld {path}", *_ELSEWHERE))
    home = home or Path.home()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        advice = _chmod("700", path, home)
        raise _unfit(path, f"its mode {mode:04o} lets others in", advice)
    if above is not None:
        folder, how, mode_change = above
        why = f"others may replace it, because {folder} {how}"
        advice = _chmod(mode_change, folder, home) if mode_change else _ELSEWHERE
        raise _unfit(path, why, advice)


def _replaceable(path: Path) -> tuple[Path, str, str] | None:
    """The directory from this one up in which another user may rename what leads to a file.

    Returns:
        It, why, and the change of its mode that helps (empty if none does); None if there is none.

    """
    # In a container without privileges, what is the system's belongs to whoever has the root.
    system = {0, os.getuid(), Path("/").stat().st_uid}
    for folder in (path, *path.parents):
        found = folder.stat()
        if found.st_uid not in system:
            return folder, f"belongs to user {found.st_uid}", ""
        if found.st_mode & stat.S_ISVTX:
            continue
        if found.st_mode & stat.S_IWOTH:
            return folder, "is writable for everybody", "o-w"
        # Many systems give every user a group of their own, which may write as they may.
        if found.st_mode & stat.S_IWGRP and found.st_gid not in {0, os.getgid()}:
            return folder, f"is writable for group {found.st_gid}", "g-w"
    return None


_ELSEWHERE: Final = (
    'export GEMD_SOCKET="$HOME/.local/state/gemd/run/gemd.sock"',
    "export XDG_RUNTIME_DIR=/run/user/$(id -u)",
)


def _chmod(mode: str, path: Path, home: Path) -> tuple[str, ...]:
    """The command, or another place where that could shut others out of a place of theirs."""
    at_home = home in path.parents and home != home.parent
    if path.name == "gemd" or at_home:
        return (f"chmod {mode} {shlex.quote(str(path))}",)
    return (f"ls -ld {shlex.quote(str(path))}", *_ELSEWHERE)


def _unfit(path: Path, why: str, advice: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        f"{path} cannot hold gemd's private files",
        why=why,
        advice=advice,
        metadata={"path": path},
    )


def check_socket_path(path: Path, *, platform: str) -> None:
    """Check that the kernel can bind a Unix socket of this name.

    Raises:
        ConfigError: It is too long: over 107 bytes on Linux, 103 on macOS.

    """
    limit = LONGEST_SOCKET_BYTES.get(platform, LONGEST_SOCKET_BYTES["darwin"])
    length = len(os.fsencode(path))
    if length > limit:
        raise ConfigError(
            f"the socket path {path} is {length} bytes long",
            why=f"a Unix socket's path may have {limit} bytes here",
            advice=('export GEMD_SOCKET="$HOME/gemd/gemd.sock"',),
            metadata={"path": path, "length": length, "limit": limit},
        )


def data_dir(name: str) -> Path:
    """A directory that travels with gemd: `profiles`, `proto` or `service`.

    Raises:
        ConfigError: The installation lacks it.

    """
    assert name in _DATA
    package = Path(__file__).resolve().parent
    candidates = (package / "_data" / name, package.parent / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise ConfigError(
        f"gemd's own directory {name} is missing",
        why=f"it is neither {candidates[0]} nor {candidates[1]}: the installation is damaged",
        advice=("pip install --force-reinstall gemd",),
        metadata={"name": name},
    )
