"""Real files for the verifier, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.dequantized import write_f16
from tests.support.short_models import shortened
from tests.support.verify_files import Pair

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def pair(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Three layers of SmolLM2 in F16, which run and talk nonsense, and quantizations of them.

    A sixth of its tokens: the `gguf` package takes seconds to read all of them.
    """
    folder = tmp_path_factory.mktemp("verify")
    short = shortened(smollm2, layers=range(3), tokens=8192)
    return Pair(write_f16(short, folder / "f16.gguf"), folder)


@pytest.fixture(scope="session")
def whole(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """All of SmolLM2 in F16, and quantizations of it."""
    folder = tmp_path_factory.mktemp("whole")
    return Pair(write_f16(smollm2, folder / "f16.gguf"), folder)
