"""Real models cut short, for whatever does not depend on the words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.short_models import GEMMA3, SMOLLM2, shortened

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def short_smollm2(smollm2: Path) -> Path:
    """Two of SmolLM2's layers and 8,192 of its tokens."""
    layers, tokens = SMOLLM2
    return shortened(smollm2, layers=layers, tokens=tokens)


@pytest.fixture(scope="session")
def short_gemma3(gemma3: Path) -> Path:
    """Six of Gemma's layers, five of them sliding, and 10,240 of its tokens."""
    layers, tokens = GEMMA3
    return shortened(gemma3, layers=layers, tokens=tokens)
