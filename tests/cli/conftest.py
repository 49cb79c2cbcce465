"""A scripted daemon, and `gemctl` in a home of its own that talks to it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gemd.cli import follow
from gemd.cli.batch import running
from gemd.client import retry
from tests.support.fake_daemon import FakeDaemon
from tests.support.gemctl import REPOSITORY, Gemctl, Inside

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def home() -> Iterator[Path]:
    """A home directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="gemd-") as directory:
        yield Path(directory)


@pytest.fixture
def socket(home: Path) -> Path:
    """Where this home's daemon listens."""
    return home / "gemd.sock"


@pytest.fixture
def daemon(socket: Path) -> Iterator[FakeDaemon]:
    """A daemon that says what `daemon.script` tells it to."""
    with FakeDaemon(socket) as serving:
        yield serving


@pytest.fixture
def gemctl(home: Path, socket: Path) -> Gemctl:
    """`gemctl` of that home; it may not start a daemon."""
    return Gemctl(
        {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            "GEMD_SOCKET": str(socket),
            "GEMD_AUTOSTART": "0",
        }
    )


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gemctl` in this process asks again at once where it would wait a little."""
    delay = retry.next_delay

    def next_delay(*arguments: Any, **named: Any) -> float | None:
        return None if delay(*arguments, **named) is None else 0.001

    monkeypatch.setattr(retry, "next_delay", next_delay)
    monkeypatch.setattr(follow, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(running, "_FIRST_DELAY_SECONDS", 0.001)


@pytest.fixture
def inside(gemctl: Gemctl) -> Inside:
    """`gemctl` of that home without a process of its own."""
    return Inside(gemctl.environ)
