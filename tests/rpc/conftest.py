"""A daemon for tests that need nothing of their own in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.app import Running, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@pytest.fixture
async def running() -> AsyncGenerator[Running]:
    """A daemon with one scripted model."""
    async with serving() as daemon:
        yield daemon
