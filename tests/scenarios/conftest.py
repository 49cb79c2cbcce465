"""A daemon with the real model, for all tests of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.desktop import OTHER, Desktop, desktop
from tests.support.models import ensure_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def store(smollm2: Path) -> Path:
    """The store that holds the test models."""
    return next(parent for parent in smollm2.parents if (parent / "manifests").is_dir())


@pytest.fixture(scope="module")
def running(store: Path) -> Iterator[Desktop]:
    """A daemon for all tests of a module that do not break one."""
    with desktop(store) as one:
        yield one


@pytest.fixture(scope="module")
def both(store: Path) -> Path:
    """The store with both small models."""
    ensure_model(OTHER, store)
    return store
