"""Fixtures for every test: real small models, and a home that is not the user's."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from tests.support.models import ensure_model

MODELS = Path(os.environ.get("GEMD_TEST_MODELS") or platformdirs.user_cache_dir("gemd-tests"))
"""Where the test models are kept between runs, about 350 MB."""


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2 135M Instruct: 30 layers, 49,152 tokens, a chat template with a system turn."""
    return ensure_model("smollm2-135m", MODELS)


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Gemma 3 270M base: sliding-window layers, 262,144 tokens, no chat template."""
    return ensure_model("gemma3-270m", MODELS)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's settings or talks to the user's daemon."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("GEMD_", "XDG_", "HF_"))]:
        if name not in {"GEMD_CODEGEN_PYTHON", "GEMD_TEST_MODELS"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
