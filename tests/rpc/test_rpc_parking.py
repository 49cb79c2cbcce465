"""Whether the daemon looks after files of models that it has unloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gemd.hardware.page_cache import resident_bytes
from gemd.v1 import model_service_pb2
from tests.support.app import MODEL, Running, serving
from tests.support.page_cache import drop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="as in tests/hardware")


async def _unloaded(running: Running) -> Path:
    """A model's file, after the model was warm; nothing of it is in memory."""
    assert await running.answer("one two") == "one two"
    await running.models.UnloadModel(model_service_pb2.UnloadModelRequest(model=MODEL))
    file = Path(running.app.manager.residence(MODEL).path)
    drop(file)
    if resident_bytes(file):
        pytest.skip("this file system keeps its files in memory")
    return file


async def test_files_of_unloaded_models_are_read_back_if_a_setting_allows_it() -> None:
    """It looks from the start to the end of the daemon."""
    async with serving(parking="1MiB") as running:
        file = await _unloaded(running)
        parking = running.app._parking
        assert parking is not None
        assert parking._task is not None
        await parking.look()
        assert resident_bytes(file)
    assert parking._task is None


async def test_nothing_is_parked_unless_it_was_asked_for() -> None:
    """The default costs nothing."""
    async with serving() as running:
        file = await _unloaded(running)
        assert running.app._parking is None
        assert not resident_bytes(file)
