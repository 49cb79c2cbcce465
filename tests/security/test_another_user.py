"""Another user of this machine, tried with a second uid: nothing of ours can be reached or read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from gemd.client import GenerationOptions
from tests.support.app import short_directory
from tests.support.daemon_process import serving
from tests.support.hub_faults import PULLED, TOKEN, hubbed
from tests.support.methods import free_port, methods
from tests.support.stores import content

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HUB_CACHE = "huggingface"
"""Shared by all programs of a user, with the modes that the hub's library gives it."""


def things(home: Path) -> set[Path]:
    """Everything that lies there."""
    return {
        Path(folder) / name
        for folder, folders, files in os.walk(home)
        for name in (*folders, *files)
    }


def stranger(task: dict[str, Any]) -> list[str]:
    """What another user could do."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.stranger"],
        cwd=ROOT,
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=True,
    )
    could: list[str] = json.loads(done.stdout)
    return could


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """What is made without a mode can be read by everybody, as on most systems."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.usefixtures("usual_umask")
def test_another_user_reaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither socket nor port, no file, no process: while it answers, and after a pull.

    Even if every directory of the home that gemd did not make lets everybody in.
    """
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    port = free_port()
    with hubbed(content(100_000), HF_TOKEN=TOKEN, GEMD_TCP_PORT=str(port)) as user:
        home = user.home.path
        environ = user.environ()
        before = things(home)
        for each in (home, *before):
            each.chmod(0o755 if each.is_dir() else 0o644)
        with serving(user.home, "--autostarted", **environ) as process, user.client() as client:
            client.wait(client.pull(PULLED).name)
            list(client.chat("a secret", GenerationOptions(model="scripted")))
            made = sorted(str(each) for each in things(home) - before if HUB_CACHE not in str(each))
            assert any(name.endswith("gemd.log") for name in made)
            assert any(name.endswith("/token") for name in made)
            daemon = psutil.Process(process.pid)
            workers = [each.pid for each in daemon.children(recursive=True)]
            assert workers
            could = stranger(
                {
                    "paths": made,
                    "socket": str(user.home.socket),
                    "port": port,
                    "pids": [process.pid, *workers],
                    "methods": [path for path, _ in methods()],
                }
            )
            assert could == []
            client.info()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_stranger_tries_what_can_be_done() -> None:
    """What is open is found open: else the test above would prove nothing."""
    with short_directory() as folder:
        folder.chmod(0o755)
        readable, writable = folder / "readable", folder / "writable"
        readable.touch(0o644)
        writable.touch()
        writable.chmod(0o666)
        task = {"socket": f"{folder}/s", "port": free_port(), "pids": [], "methods": ["/a/B"]}
        could = stranger({**task, "paths": [str(readable), str(writable)]})
    assert could == [
        f"read {readable}",
        f"read {writable}",
        f"wrote {writable}",
        "called /a/B: UNAVAILABLE",
    ]
