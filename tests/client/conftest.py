"""A scripted daemon on a socket of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def socket() -> Iterator[Path]:
    """A path short enough for a socket, in a directory that goes away."""
    with tempfile.TemporaryDirectory(prefix="gemd-") as directory:
        yield Path(directory) / "gemd.sock"


@pytest.fixture
def daemon(socket: Path) -> Iterator[FakeDaemon]:
    """A daemon that says what `daemon.script` tells it to."""
    with FakeDaemon(socket) as running:
        yield running
