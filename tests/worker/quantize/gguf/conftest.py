"""Models to quantize, and a place for results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.unquantized import DENSE, EXPERTS, write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dense model with per-layer embeddings, and one with experts."""
    folder = tmp_path_factory.mktemp("models")
    shapes = {"dense": DENSE, "experts": EXPERTS}
    return {name: write_model(folder / f"{name}.gguf", of) for name, of in shapes.items()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory for a result."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder
