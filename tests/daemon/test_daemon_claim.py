from __future__ import annotations

import fcntl
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import gemd
from gemd import daemon
from gemd.config import Settings
from gemd.errors import ConfigError
from gemd.paths import resolve_paths
from gemd.rpc.auth import ensure_token, is_authorized
from gemd.rpc.socket import (
    Lock,
    Occupied,
    is_served,
    private_umask,
    remove_stale_socket,
    take_lock,
)
from tests.support.app import short_directory

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.paths import Paths


def places(home: Path, **settings: object) -> Paths:
    """The paths of a user who lives there."""
    environ = {"XDG_RUNTIME_DIR": str(home), "XDG_STATE_HOME": str(home)}
    return resolve_paths(environ, platform=sys.platform, home=home, settings=Settings(**settings))


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """The second taker learns the first one's pid; after the release it is free."""
    path = tmp_path / "lock"
    first = take_lock(path)
    assert isinstance(first, Lock)
    assert take_lock(path) == Occupied(os.getpid())
    first.release()
    second = take_lock(path)
    assert isinstance(second, Lock)
    second.release()
    assert path.exists()


def test_a_client_that_looks_at_the_lock_is_no_daemon(tmp_path: Path) -> None:
    """It holds the lock for a moment, to see whether somebody does; the daemon asks again."""
    path = tmp_path / "lock"
    path.touch()
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            fcntl.flock(looking, fcntl.LOCK_UN)

        taken = take_lock(path, sleep=sleep)
    assert isinstance(taken, Lock)
    assert len(waits) == 1
    taken.release()


def test_a_lock_that_cannot_be_taken_is_a_wrong_setting(tmp_path: Path) -> None:
    """A directory, or a link that may lead anywhere, with the reason and no traceback."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("directory", "link", "missing/lock"):
        with pytest.raises(ConfigError) as caught:
            take_lock(tmp_path / name)
        assert caught.value.why
        assert caught.value.metadata["path"] == str(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()


def test_a_socket_is_served_while_somebody_listens() -> None:
    """Not before, and not when the listener is gone but its socket is left."""
    with short_directory() as directory:
        path = directory / "s"
        assert not is_served(path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            assert not is_served(path)
            listener.listen()
            assert is_served(path)
        assert path.exists()
        assert not is_served(path)
        path.unlink()
        path.write_text("a file", encoding="utf-8")
        assert not is_served(path)


def test_only_a_socket_is_removed(tmp_path: Path) -> None:
    """What is no socket may be somebody's file."""
    path = tmp_path / "file"
    assert not remove_stale_socket(path)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError):
        remove_stale_socket(path)
    assert path.read_text(encoding="utf-8") == "mine"


def test_the_umask_is_private_while_binding() -> None:
    """And what it was before, afterwards."""
    with short_directory() as directory:
        path = directory / "s"
        before = os.umask(0o022)
        try:
            with private_umask(), socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(path))
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert os.umask(0o022) == 0o022
        finally:
            os.umask(before)


def test_a_claim_makes_its_private_directory() -> None:
    """And refuses while another one holds it, with pid, socket and what to do."""
    with short_directory() as home:
        here = places(home)
        lock = daemon.claim(here)
        assert lock is not None
        assert stat.S_IMODE(here.runtime_dir.stat().st_mode) == 0o700
        try:
            assert daemon.claim(here) is None
        finally:
            lock.release()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_in_the_way_stays_as_it_is(kind: str) -> None:
    """No lock file is left beside it, and the advice moves it without losing it."""
    with short_directory() as home:
        here = places(home)
        here.runtime_dir.mkdir(mode=0o700, parents=True)
        if kind == "file":
            here.socket.write_text("mine", encoding="utf-8")
        else:
            here.socket.mkdir()
        with pytest.raises(ConfigError, match="in the way") as caught:
            daemon.claim(here)
        assert list(here.runtime_dir.iterdir()) == [here.socket]
        assert caught.value.advice[0] == f"mv {here.socket} {here.socket}.old"


def test_a_socket_path_that_is_too_long_is_a_wrong_setting(tmp_path: Path) -> None:
    """Before anything is made."""
    with pytest.raises(ConfigError) as caught:
        daemon.claim(places(tmp_path, socket=tmp_path / ("x" * 120)))
    assert int(caught.value.metadata["length"]) > int(caught.value.metadata["limit"])


def test_the_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    """64 hexadecimal characters in a file of mode 0600, the same ones at the next start."""
    path = tmp_path / "token"
    token = ensure_token(path)
    assert len(token) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_token(path) == token
    path.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        ensure_token(path)
    assert caught.value.metadata["mode"] == "0644"


def test_a_short_token_is_refused(tmp_path: Path) -> None:
    """It could be guessed."""
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("short", encoding="ascii")
    with pytest.raises(ConfigError):
        ensure_token(path)


def test_only_the_whole_token_authorizes() -> None:
    """With its scheme, and nothing but it."""
    token = b"ab" * 32
    right = f"Bearer {token.decode()}"
    assert is_authorized([("x", "y"), ("authorization", right)], token)
    for wrong in ("", "Bearer ", right[:-1], f"{right}x", token.decode(), right.lower()[:20]):
        assert not is_authorized([("authorization", wrong)], token)
    assert not is_authorized([], token)
    assert is_authorized([("authorization", right.replace("Bearer", "bearer"))], token)
    assert is_authorized([("authorization", right.encode())], token)
    for twice in ((right, "x"), ("x", right), (right, right)):
        assert not is_authorized([("authorization", each) for each in twice], token)
    assert not is_authorized([("authorization", right.replace("Bearer", "Basic"))], token)


def test_a_token_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that is killed over it leaves nothing that the next one would have to refuse."""

    def die(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "token"
    with monkeypatch.context() as patch:
        patch.setattr("gemd.rpc.auth.os.fsync", die)
        with pytest.raises(KeyboardInterrupt):
            ensure_token(path)
    assert not list(tmp_path.iterdir())
    assert len(ensure_token(path)) == 64


def test_version_and_help_need_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting must not hide how to mend it."""
    monkeypatch.setenv("GEMD_IDLE_EXIT", "soon")
    runner = CliRunner()
    assert runner.invoke(daemon.main, ["--version"]).output == f"gemd {gemd.__version__}\n"
    shown = runner.invoke(daemon.main, ["--help"])
    assert shown.exit_code == 0
    assert "--autostarted" not in shown.output


def test_a_settings_file_that_is_named_must_exist(tmp_path: Path) -> None:
    """Only the default one may be missing."""
    shown = CliRunner().invoke(daemon.main, ["--config", str(tmp_path / "none.toml")])
    assert shown.exit_code == 78
    assert "none.toml" in shown.output
    # Not `gemctl config show`, which does not know of this file.
    assert f"try: ls {tmp_path}\n     gemd\n" in shown.output
