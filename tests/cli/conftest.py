"""A scripted daemon, and `gemctl` in a home of its own that talks to it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
    with FakeDaemon(socket) as running:
        yield running


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled modules, shared by all processes that the tests start."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture
def gemctl(home: Path, socket: Path, bytecode: Path) -> Gemctl:
    """`gemctl` of that home; it may not start a daemon."""
    return Gemctl(
        {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONPYCACHEPREFIX": str(bytecode),
            "GEMD_SOCKET": str(socket),
            "GEMD_AUTOSTART": "0",
        }
    )


@pytest.fixture
def inside(gemctl: Gemctl) -> Inside:
    """`gemctl` of that home without a process of its own."""
    return Inside(gemctl.environ)
