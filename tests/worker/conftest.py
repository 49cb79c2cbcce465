"""One process of `apart` for all files, which ends with the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import apart

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def _apart_ends() -> Iterator[None]:
    yield
    apart.close()
