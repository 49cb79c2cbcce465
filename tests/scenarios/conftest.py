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


@pytest.fixture
def breaking() -> None:
    """For a test that ends a process which the others of its module would have to start again."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever the order is, tests that break something are the last of their module."""
    last: dict[object, int] = {}
    for place, item in enumerate(items):
        last[item.getparent(pytest.Module)] = place
    items[:] = [
        item
        for _, item in sorted(
            enumerate(items),
            key=lambda each: (
                (last[each[1].getparent(pytest.Module)], 1)
                if "breaking" in getattr(each[1], "fixturenames", ())
                else (each[0], 0)
            ),
        )
    ]
