from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import Catalog
from gemd.config import Settings
from gemd.errors import BadModelFileError
from gemd.rpc.library import Library
from gemd.store import Store
from tests.footprint.test_split import METADATA, TENSORS
from tests.support.gguf_files import gguf_bytes, split_gguf

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_split_model_is_booked_for_all_its_parts(tmp_path: Path) -> None:
    """And not loaded with a part missing."""
    library = Library(
        catalog=Catalog([]),
        store=Store(tmp_path / "store"),
        settings=Settings(),
        threads=1,
        environ=dict(os.environ),
    )
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(gguf_bytes(METADATA, TENSORS))
    first = split_gguf(tmp_path / "m", METADATA, TENSORS, parts=2)
    wanted = await library.locate(str(whole))
    found = await library.locate(str(first))
    assert found.estimate_bytes == wanted.estimate_bytes
    assert found.spec.load.path == str(first)
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(BadModelFileError, match=r"m-00002-of-00002\.gguf, is missing"):
        await library.locate(str(first))
