"""Directories, the socket's place, and what makes it unfit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gemd.config import Settings
from gemd.errors import ConfigError
from gemd.paths import (
    Paths,
    check_socket_path,
    config_file,
    data_dir,
    ensure_private_directory,
    resolve_paths,
)

HOME = Path("/home/u")
NOWHERE = Path("/nonexistent/run/user")


def _paths(
    environ: dict[str, str] | None = None,
    *,
    platform: str = "linux",
    settings: Settings | None = None,
    user_runtime: Path = NOWHERE,
) -> Paths:
    return resolve_paths(
        environ or {},
        platform=platform,
        home=HOME,
        settings=settings or Settings(),
        user_runtime=user_runtime,
    )


def test_linux_follows_xdg() -> None:
    """The XDG variables decide, the specification's defaults apply without them."""
    paths = _paths({"XDG_RUNTIME_DIR": "/run/user/7"})
    assert paths.config_file == HOME / ".config/gemd/config.toml"
    assert paths.state_dir == HOME / ".local/state/gemd"
    assert paths.store_dir == HOME / ".cache/gemd/models"
    assert paths.engines_dir == HOME / ".local/share/gemd/engines"
    assert paths.socket == Path("/run/user/7/gemd/gemd.sock")
    assert paths.runtime_dir == Path("/run/user/7/gemd")
    assert paths.socket_origin == "XDG_RUNTIME_DIR"
    names = ("CONFIG", "STATE", "CACHE", "DATA")
    moved = _paths({f"XDG_{name}_HOME": f"/x/{name}" for name in names})
    assert moved.config_file == Path("/x/CONFIG/gemd/config.toml")
    assert moved.log_file == Path("/x/STATE/gemd/gemd.log")
    assert moved.token.parent == moved.state_dir
    assert moved.cache_dir == Path("/x/CACHE/gemd")
    assert moved.engines_dir == Path("/x/DATA/gemd/engines")


def test_relative_xdg_variables_are_ignored() -> None:
    """As their specification demands."""
    paths = _paths({"XDG_CACHE_HOME": "cache", "XDG_RUNTIME_DIR": "run"})
    assert paths.cache_dir == HOME / ".cache/gemd"
    assert paths.socket.is_relative_to(paths.state_dir)


def test_macos_uses_the_library() -> None:
    """Nothing is hidden in the home directory, and XDG variables mean nothing."""
    paths = _paths({"XDG_CONFIG_HOME": "/x"}, platform="darwin")
    assert paths.config_file == HOME / "Library/Application Support/gemd/config.toml"
    assert paths.socket == HOME / "Library/Application Support/gemd/run/gemd.sock"
    assert paths.log_file == HOME / "Library/Logs/gemd/gemd.log"
    assert paths.store_dir == HOME / "Library/Caches/gemd/models"
    assert paths.engines_dir == HOME / "Library/Application Support/gemd/engines"


def test_the_settings_overrule_the_socket_and_the_store() -> None:
    """The lock stands beside the socket, so that each socket has its own."""
    settings = Settings(socket=Path("/s/a.sock"), store_dir=Path("/m"))
    paths = _paths({"XDG_RUNTIME_DIR": "/r", "RUNTIME_DIRECTORY": "/d"}, settings=settings)
    assert paths.socket == Path("/s/a.sock")
    assert paths.lock == Path("/s/a.sock.lock")
    assert paths.store_dir == Path("/m")
    assert paths.socket_origin == "the setting socket"


def test_a_services_directory_comes_first() -> None:
    """Of several that systemd made, the first is taken."""
    paths = _paths({"XDG_RUNTIME_DIR": "/r", "RUNTIME_DIRECTORY": "/run/gemd:/run/b"})
    assert paths.socket == Path("/run/gemd/gemd.sock")


def test_the_session_directory_is_found_without_its_variable(tmp_path: Path) -> None:
    """A login without XDG_RUNTIME_DIR meets the daemon of one that has it."""
    assert _paths(user_runtime=tmp_path).socket == tmp_path / "gemd/gemd.sock"
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert not _paths(user_runtime=link).socket.is_relative_to(link)


def test_a_bare_container_gets_a_private_place_in_the_home() -> None:
    """Without any runtime directory the socket is in the state directory, and says why."""
    paths = _paths()
    assert paths.socket == HOME / ".local/state/gemd/run/gemd.sock"
    assert "XDG_RUNTIME_DIR is not set" in paths.socket_origin


def test_the_configuration_file_can_be_named() -> None:
    """By an absolute path only."""
    named = config_file({"GEMD_CONFIG": "/c/x.toml"}, platform="linux", home=HOME)
    assert named == Path("/c/x.toml")
    with pytest.raises(ConfigError) as caught:
        config_file({"GEMD_CONFIG": "x.toml"}, platform="linux", home=HOME)
    assert caught.value.metadata["key"] == "GEMD_CONFIG"


def test_a_private_directory_is_made_and_kept(tmp_path: Path) -> None:
    """The mode is 0700 whatever the umask, and a second call changes nothing."""
    path = tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        ensure_private_directory(path)
    finally:
        os.umask(before)
    ensure_private_directory(path)
    assert path.stat().st_mode & 0o777 == 0o700


def _unfit(path: Path, *, home: Path = HOME) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        ensure_private_directory(path, home=home)
    assert str(path) in caught.value.message
    assert caught.value.metadata["path"] == str(path)
    assert caught.value.advice
    return caught.value


@pytest.mark.parametrize("mode", [0o755, 0o701, 0o770, 0o704])
def test_a_directory_that_is_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    """One bit for the group or the world is one too many; the advice for one's own is the chmod."""
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(mode)
    error = _unfit(path, home=tmp_path)
    assert f"{mode:04o}" in error.why
    assert error.advice == (f"chmod 700 {path}",)


@pytest.mark.parametrize("home", [HOME, Path("/")])
def test_nobody_is_advised_to_shut_a_place_of_others(home: Path, tmp_path: Path) -> None:
    """GEMD_SOCKET=/dev/null as root: another socket is the advice, and no chmod of /dev.

    A home of `/`, as some containers have it, makes nothing one's own.
    """
    for name in ("dev", "gemd"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
    error = _unfit(tmp_path / "dev", home=home)
    assert not any("chmod" in line for line in error.advice)
    assert any(line.startswith("export GEMD_SOCKET=") for line in error.advice)
    assert _unfit(tmp_path / "gemd", home=home).advice == (f"chmod 700 {tmp_path / 'gemd'}",)
    (tmp_path / "dev").chmod(0o777)
    error = _unfit(tmp_path / "dev" / "run", home=home)
    assert not any("chmod" in line for line in error.advice)


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """Even one to a private directory."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    assert "symbolic link" in _unfit(tmp_path / "run").why


def test_a_file_and_a_blocked_way_are_refused(tmp_path: Path) -> None:
    """What stands in the way is said."""
    (tmp_path / "run").write_text("")
    _unfit(tmp_path / "run")
    _unfit(tmp_path / "run" / "below")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    """The error names both users."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    os.chown(path, 12345, 12345)
    assert "12345" in _unfit(path).why


def test_a_place_that_others_may_replace_is_refused(tmp_path: Path) -> None:
    """A world-writable parent without the sticky bit lets anybody rename the directory."""
    parent = tmp_path / "open"
    parent.mkdir()
    parent.chmod(0o777)
    assert "replace" in _unfit(parent / "run").why
    parent.chmod(0o1777)
    ensure_private_directory(parent / "run")


@pytest.mark.parametrize("platform, limit", [("linux", 107), ("darwin", 103)])
def test_a_socket_path_is_measured_in_bytes(platform: str, limit: int) -> None:
    """The last length that binds is accepted, one byte more is refused with both numbers."""
    check_socket_path(Path("/" + "a" * (limit - 1)), platform=platform)
    with pytest.raises(ConfigError) as caught:
        check_socket_path(Path("/" + "é" * (limit // 2) + "a"), platform=platform)
    assert caught.value.metadata["length"] == str(limit + 1)
    assert caught.value.metadata["limit"] == str(limit)


@pytest.mark.parametrize("name", ["profiles", "proto", "service"])
def test_the_travelling_directories_are_found(name: str) -> None:
    """In the checkout that the tests run in."""
    assert data_dir(name).is_dir()
    assert data_dir(name).name == name
