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
from tests.support.app import MODEL, profile
from tests.support.gguf_files import gguf_bytes, split_gguf

if TYPE_CHECKING:
    from pathlib import Path

    from gemd.catalog.profile import Role


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


@pytest.mark.parametrize(
    "roles, helps",
    [
        (("embedding",), True),
        (("verifier", "embedding"), True),
        (("strong", "verifier"), False),
        ((), False),
    ],
)
async def test_a_model_that_only_checks_or_embeds_is_a_helper(
    tmp_path: Path, roles: tuple[Role, ...], *, helps: bool
) -> None:
    """One that answers users too is none."""
    file = tmp_path / "scripted.gguf"
    file.write_bytes(b"GGUFtest")
    library = Library(
        catalog=Catalog([profile(file, roles=roles)]),
        store=Store(tmp_path / "store"),
        settings=Settings(),
        threads=1,
        environ=dict(os.environ),
    )
    assert (await library.locate(MODEL)).helper is helps
