"""Metrics of the daemon's real process: off, in a file, and with settings that are wrong."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon_process import Home, home, serving
from tests.support.scrape import samples, value

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

LOOK = """
import asyncio, json, sys, threading
from pathlib import Path
from tests.support.app import serving

async def look(**settings):
    async with serving(**settings) as running:
        await running.answer("a b c")
        await running.app.senses.fresh()
        return {
            "modules": [name for name in sys.modules if name.split(".")[0] in ("gemd", "h11")
                        or name.startswith("prometheus_client")],
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "tasks": sorted(task.get_name().partition("#")[0] for task in asyncio.all_tasks()
                            if not task.get_name().startswith("Task-")),
        }

settings = {}
if len(sys.argv) > 1:
    from tests.support.scrape import free_port
    settings = {"metrics_port": free_port(), "metrics_file": Path(sys.argv[1])}
print(json.dumps(asyncio.run(look(**settings))))
"""


@pytest.fixture
def user() -> Iterator[Home]:
    """Somebody's directories."""
    with home() as made:
        yield made


def test_metrics_that_are_off_cost_nothing(tmp_path: Path) -> None:
    """No module of theirs, no thread, no task; on, it is seen that there would be."""

    def look(*arguments: str) -> dict[str, list[str]]:
        done = subprocess.run(
            [sys.executable, "-c", LOOK, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
        return found

    off, on = look(), look(str(tmp_path / "gemd.prom"))
    outlets = {"gemd.metrics.http", "gemd.metrics.textfile", "gemd.rpc.figures", "h11"}
    outlets |= {"prometheus_client"}
    assert not outlets & set(off["modules"])
    assert outlets <= set(on["modules"])
    assert on["tasks"] == sorted([*off["tasks"], "metrics file"])
    assert not any("metrics" in name for name in off["threads"])


def test_file_and_port_are_there_from_the_start_and_go_with_the_daemon(user: Home) -> None:
    """A whole page that a parser reads; after an ordered end nothing of it is left.

    The next daemon can have the port at once.
    """
    folder = user.path / "collector"
    folder.mkdir()
    file = folder / "gemd.prom"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for _ in range(2):
        with serving(user, GEMD_METRICS_FILE=str(file), GEMD_METRICS_PORT=port) as process:
            found = samples(file.read_text(encoding="utf-8"))
            assert value(found, "gemd_requests_in_progress", state="running") == 0
            assert file.stat().st_mode & 0o777 == 0o644
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert list(folder.iterdir()) == []


def test_a_daemon_that_was_killed_leaves_its_last_page(user: Home) -> None:
    """It is whole, its time shows its age, and the next daemon writes it anew."""
    file = user.path / "gemd.prom"
    with serving(user, GEMD_METRICS_FILE=str(file)) as process:
        process.kill()
    first = value(samples(file.read_text(encoding="utf-8")), "gemd_start_time_seconds")
    with serving(user, GEMD_METRICS_FILE=str(file)):
        again = value(samples(file.read_text(encoding="utf-8")), "gemd_start_time_seconds")
    assert first is not None
    assert again is not None
    assert first < again < time.time()


def test_a_port_in_use_exits_with_78(user: Home) -> None:
    """Nothing is left behind, and the setting that helps is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        process = user.start(GEMD_METRICS_PORT=str(number))
        assert process.wait(20) == 78
    _close(process)
    assert f"cannot tell metrics on 127.0.0.1:{number}" in user.log()
    assert "GEMD_METRICS_PORT=0 gemd" in user.log()
    assert not user.socket.exists()


def test_a_folder_that_is_not_there_exits_with_78(user: Home) -> None:
    """Rather than a daemon whose curve is silently empty."""
    process = user.start(GEMD_METRICS_FILE=str(user.path / "none" / "gemd.prom"))
    assert process.wait(20) == 78
    _close(process)
    assert "cannot write metrics to" in user.log()
    assert "No such file or directory" in user.log()


def _close(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.stdout.close()
