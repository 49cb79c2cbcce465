"""Large libraries are imported without a search for garbage, which goes on afterwards."""

from __future__ import annotations

import gc
import importlib

import pytest

from gemd.worker.memory import importing


def test_garbage_is_looked_for_again_afterwards() -> None:
    """Also where the import fails, and not before the outermost of several is done."""
    assert gc.isenabled()
    with importing():
        with importing():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), importing():
        importlib.import_module("nothing_of_that_name")
    assert gc.isenabled()
