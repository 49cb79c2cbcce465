"""Two models that are one file on the hub: cleaning up after one spares the other."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from gemd.errors import HubUnreachableError
from tests.support.file_server import Cut, Stall
from tests.support.hub_server import NEXT_COMMIT, HubServer
from tests.support.stores import (
    FILE,
    HUB_SOURCE,
    REPOSITORY,
    announced_profile,
    content,
    make_store,
    profile_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from gemd.catalog import Profile
    from gemd.store import ModelFile

DATA = content(300_000)
NEXT = content(280_000, seed=1)
ONE = announced_profile(model="one")
TWO = announced_profile(model="two")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with the file."""
    with HubServer() as server:
        server.add(REPOSITORY, FILE, DATA)
        yield server


async def _begun(hub: HubServer, root: Path, profile: Profile) -> None:
    """A pull that gave up after 100,000 bytes."""
    hub.fault(Cut(100_000), *[Cut(0)] * 5)
    with pytest.raises(HubUnreachableError):
        await make_store(root, hub=hub.url).pull(profile)
    hub.fault_free()


@pytest.fixture
async def going_on(hub: HubServer, tmp_path: Path) -> AsyncIterator[asyncio.Task[ModelFile]]:
    """What `ONE` has begun `TWO` goes on with, in another process as far as locks can tell."""
    await _begun(hub, tmp_path, ONE)
    hub.fault(Stall(150_000))
    store = make_store(tmp_path, hub=hub.url, read_timeout_s=60)
    task = asyncio.create_task(store.pull(TWO))
    await asyncio.to_thread(hub.reached.wait)
    yield task
    hub.released.set()
    await asyncio.wait({task})


async def test_deleting_one_leaves_what_the_other_fetches(
    hub: HubServer, tmp_path: Path, going_on: asyncio.Task[ModelFile]
) -> None:
    """The bytes are the other's now; the note stays until they are somebody's."""
    store = make_store(tmp_path, hub=hub.url)
    assert store.delete(ONE).freed_bytes == 0
    assert (store.root / "begun" / "one" / "q4.json").exists()
    hub.released.set()
    assert (await going_on).path.read_bytes() == DATA
    assert store.delete(ONE).freed_bytes == 0
    assert store.locate(TWO).size_bytes == len(DATA)
    assert not (store.root / "begun" / "one").exists()


async def test_a_replaced_file_of_one_waits_for_nobody(
    hub: HubServer, tmp_path: Path, going_on: asyncio.Task[ModelFile]
) -> None:
    """It is pulled while the other still fetches the file that it replaced."""
    hub.add(REPOSITORY, FILE, NEXT, NEXT_COMMIT)
    store = make_store(tmp_path, hub=hub.url)
    assert (await store.pull(ONE)).path.read_bytes() == NEXT
    assert not going_on.done()
    hub.released.set()
    assert (await going_on).path.read_bytes() == DATA


async def test_a_replaced_file_stays_while_another_model_has_it(
    hub: HubServer, tmp_path: Path
) -> None:
    """Also if it looks touched, as all of a store do that was moved to another disk."""
    await _begun(hub, tmp_path, ONE)
    store = make_store(tmp_path, hub=hub.url)
    pinned = profile_of(DATA, HUB_SOURCE, model="pinned")
    os.utime((await store.pull(pinned)).path)
    hub.add(REPOSITORY, FILE, NEXT, NEXT_COMMIT)
    assert (await store.pull(ONE)).path.read_bytes() == NEXT
    assert store.locate(pinned).sha256 == hashlib.sha256(DATA).hexdigest()
