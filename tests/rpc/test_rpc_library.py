from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import Catalog
from gemd.config import Settings
from gemd.errors import BadModelFileError
from gemd.residency.states import Residence, State
from gemd.rpc.convert.models import ModelView, model
from gemd.rpc.library import Library
from gemd.store import Store
from tests.footprint.test_split import METADATA, TENSORS
from tests.support.app import MODEL, profile
from tests.support.gguf_files import gguf_bytes, split_gguf
from tests.support.hub_server import HubServer
from tests.support.stores import FILE, REPOSITORY, announced_profile, content, make_store

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


async def test_a_file_that_only_the_hub_had_a_hash_of_is_on_disk(tmp_path: Path) -> None:
    """With the size that it has, whatever the profile predicted."""
    data = content(5000)
    tiny = announced_profile(size_bytes=1000)
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, data)
        store = make_store(tmp_path, hub=hub.url)
        await store.pull(tiny)
    library = Library(
        catalog=Catalog([tiny]), store=store, settings=Settings(), threads=1, environ={}
    )
    found = (await library.on_disk())["tiny"]["q4"]
    assert (found.size_bytes, found.source, found.exclusive_bytes) == (5000, "hub", 5000)
    view = ModelView(
        profile=tiny,
        disk={"q4": found},
        residence=Residence("tiny", State.COLD),
        operation="",
        fetching=False,
        context_tokens=0,
        leases=0,
    )
    assert model(view, wall_of=float).size_bytes == 5000
