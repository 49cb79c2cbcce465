"""Fixtures for every test: real small models, and a home that is not the user's."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gemd.errors import GemdError
from tests.support.models import CACHE, ensure_model

PROFILES_OF_FIXTURES = {"smollm2": "smollm2-135m", "gemma3": "gemma3-270m"}

# The user's own index settings, found before a test's home hides them. A machine whose index
# is named there has no other way to the model's package.
_CONFIG = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
INDEX_SETTINGS = {
    variable: str(file)
    for variable, file in (
        ("PIP_CONFIG_FILE", _CONFIG / "pip" / "pip.conf"),
        ("UV_CONFIG_FILE", _CONFIG / "uv" / "uv.toml"),
    )
    if file.exists() and variable not in os.environ
}

# A time limit per example fails on a busy machine, and a suite that draws new examples in
# every run fails where nothing has changed. `--hypothesis-profile=explore` draws new ones.
settings.register_profile(
    "house", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None)
settings.load_profile("house")


def pytest_unconfigure() -> None:
    """An interpreter that does not end says where it hangs, and ends; no test's limit is left.

    One of several waits for the others after its own last test, and is ended by the first.
    """
    # Libraries count what is left of theirs at the end.
    gc.unfreeze()
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__ or 2)


# Nothing that is made while tests are collected ever goes: to look through it, ten times and then
# again with every collection during the tests, takes half of the time until the first test.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch the models before the first test: a test's time limit is not for downloads."""
    gc.freeze()
    gc.enable()
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for fixture, profile in PROFILES_OF_FIXTURES.items():
        if fixture in wanted:
            # The fixture meets the same error and reports it, in the tests that need the model.
            with contextlib.suppress(GemdError):
                ensure_model(profile, CACHE)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2 135M Instruct: 30 layers, 49,152 tokens, a chat template with a system turn."""
    return ensure_model(PROFILES_OF_FIXTURES["smollm2"], CACHE)


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Gemma 3 270M base: sliding-window layers, 262,144 tokens, no chat template."""
    return ensure_model(PROFILES_OF_FIXTURES["gemma3"], CACHE)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's settings or talks to the user's daemon."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("GEMD_", "XDG_", "HF_"))]:
        if name not in {"GEMD_CODEGEN_PYTHON", "GEMD_TEST_MODELS"}:
            monkeypatch.delenv(name)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    for variable, file in INDEX_SETTINGS.items():
        monkeypatch.setenv(variable, file)
    monkeypatch.setenv("HOME", str(home))
    # Without it the daemon's directory is /run/user/UID, whatever HOME says: the user's own.
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
