"""A real model cut short: what a prompt is made of does not depend on the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.short_models import GEMMA3, shortened

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def short_gemma3(gemma3: Path) -> Path:
    """Six of Gemma's layers and 10,240 of its tokens, the control tokens among them."""
    layers, tokens = GEMMA3
    return shortened(gemma3, layers=layers, tokens=tokens)
