"""Headers of files on the hub, read by ranges from a server that counts its bytes."""

from __future__ import annotations

import asyncio
import mmap
from typing import TYPE_CHECKING

import pytest

from gemd.catalog import Catalog, HubSource
from gemd.errors import (
    BadModelFileError,
    HubUnreachableError,
    ModelNotFoundError,
    NotImplementedYetError,
)
from gemd.footprint import gguf_shape, read_gguf_header
from gemd.store import Transport
from gemd.store.look import KEPT, Looks
from tests.support.file_server import Answer, BlackHole, Cut, NoRanges
from tests.support.gemma4_files import architecture_of, write_header_only
from tests.support.gguf_files import gguf_bytes
from tests.support.hub_server import COMMIT, NEXT_COMMIT, SparseHub
from tests.support.models import PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL, VARIANT = "gemma4-12b", "qat-q4_0"
MB = 10**6


@pytest.fixture
def hub() -> Iterator[SparseHub]:
    """A hub."""
    with SparseHub() as server:
        yield server


@pytest.fixture
def looks(hub: SparseHub, tmp_path: Path) -> Looks:
    """Looks at that hub."""
    return Looks(tmp_path / "headers", Transport(hub_endpoint=hub.url, hub_timeout_s=5.0))


PROFILE = Catalog.load(PROFILES).resolve(MODEL)
FORM = PROFILE.variants[0]
SOURCE = FORM.sources[0]
assert isinstance(SOURCE, HubSource)


def publish(hub: SparseHub, content: bytes, *, commit: str = COMMIT) -> None:
    """What the profile's repository has."""
    assert isinstance(SOURCE, HubSource)
    hub.add(SOURCE.repository, SOURCE.file, content, commit)


def big_file(path: Path) -> mmap.mmap:
    """A file of a 12B model's true shape, 24 GB of holes, with 262,144 tokens in its header."""
    vocabulary = [f"token {number:>6} of a vocabulary with long words" for number in range(262_144)]
    write_header_only(path, architecture_of(MODEL), MODEL, vocabulary=vocabulary)
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


async def test_a_plan_needs_the_header_and_no_more(
    hub: SparseHub, looks: Looks, tmp_path: Path
) -> None:
    """Of 24 GB less than 20 MB are read, and what they say is what the whole file says."""
    content = big_file(tmp_path / "model.gguf")
    publish(hub, content)  # type: ignore[arg-type]  # a map of a file is read like bytes
    look = await looks.look(PROFILE, FORM)
    assert 13 * MB < look.fetched_bytes <= 20 * MB
    assert hub.body_bytes <= 20 * MB
    assert len(content) > 20_000 * MB
    whole = read_gguf_header(tmp_path / "model.gguf")
    assert gguf_shape(read_gguf_header(look.twin)) == gguf_shape(whole)
    assert look.twin.stat().st_size == len(content)
    assert look.twin.stat().st_blocks * 512 <= 20 * MB
    assert looks.seen(PROFILE, FORM) == look.twin
    content.close()


async def test_looks_at_one_time_do_not_take_each_others_files(
    hub: SparseHub, looks: Looks, tmp_path: Path
) -> None:
    """Two plans for one model at once: both have the twin, and it is whole."""
    content = big_file(tmp_path / "model.gguf")
    publish(hub, content)  # type: ignore[arg-type]  # as above
    found = await asyncio.gather(*(looks.look(PROFILE, FORM) for _ in range(3)))
    [twin] = {look.twin for look in found}
    assert looks.seen(PROFILE, FORM) == twin
    whole = read_gguf_header(tmp_path / "model.gguf")
    assert gguf_shape(read_gguf_header(twin)) == gguf_shape(whole)
    content.close()


async def test_a_new_look_takes_the_place_of_the_old_one(hub: SparseHub, looks: Looks) -> None:
    """The file was replaced on the hub: one twin is left, of the new one."""
    first = gguf_bytes({"general.architecture": "llama"}, {"a": (32,)})
    publish(hub, first)
    before = await looks.look(PROFILE, FORM)
    second = gguf_bytes({"general.architecture": "llama"}, {"a": (64,)})
    publish(hub, second, commit=NEXT_COMMIT)
    hub.hashes = dict.fromkeys(hub.files, "cd" * 32)
    after = await looks.look(PROFILE, FORM)
    assert not before.twin.exists()
    assert looks.seen(PROFILE, FORM) == after.twin
    assert after.twin.read_bytes()[:4] == b"GGUF"
    assert after.twin.stat().st_size == len(second)


async def test_the_oldest_twins_go(hub: SparseHub, looks: Looks) -> None:
    """No more than a few are kept, whatever is looked at."""
    publish(hub, gguf_bytes({"general.architecture": "llama"}, {"a": (32,)}))
    for number in range(KEPT + 3):
        await looks.look(PROFILE.model_copy(update={"id": f"model{number}"}), FORM)
    found = [
        number
        for number in range(KEPT + 3)
        if looks.seen(PROFILE.model_copy(update={"id": f"model{number}"}), FORM)
    ]
    assert len(found) == KEPT


async def test_what_is_no_model_is_refused_with_its_place(
    hub: SparseHub, looks: Looks, tmp_path: Path
) -> None:
    """Bytes that are none, and a header that is cut: BAD_MODEL_FILE, and nothing is kept."""
    good = gguf_bytes({"general.architecture": "llama"}, {"a": (32,)})
    for content in (b"PK\x03\x04 and so on" * 100, good[:60]):
        publish(hub, content)
        with pytest.raises(BadModelFileError) as caught:
            await looks.look(PROFILE, FORM)
        assert "offset" in caught.value.metadata
    assert looks.seen(PROFILE, FORM) is None
    assert not list((tmp_path / "headers").glob("*"))


@pytest.mark.parametrize("fault", [Answer(500), NoRanges(), Cut(10)], ids=repr)
async def test_a_server_that_gives_no_parts_is_named(
    hub: SparseHub, looks: Looks, fault: Answer | NoRanges | Cut
) -> None:
    """Nothing is read to its end because a range was ignored."""
    publish(hub, gguf_bytes({"general.architecture": "llama"}, {"a": (3_000_000,)}))
    hub.always(fault)
    with pytest.raises((HubUnreachableError, BadModelFileError)):
        await looks.look(PROFILE, FORM)
    assert looks.seen(PROFILE, FORM) is None


async def test_a_hub_that_is_silent_costs_its_time_and_no_more(
    hub: SparseHub, tmp_path: Path
) -> None:
    """As for a pull."""
    publish(hub, b"x")
    hub.always(BlackHole(), method="HEAD")
    quick = Looks(tmp_path, Transport(hub_endpoint=hub.url, hub_timeout_s=0.2))
    with pytest.raises(HubUnreachableError):
        await quick.look(PROFILE, FORM)


async def test_what_the_hub_lacks_is_not_found(looks: Looks) -> None:
    """No such file there."""
    with pytest.raises(ModelNotFoundError):
        await looks.look(PROFILE, FORM)


async def test_only_single_files_of_the_hub_can_be_looked_at(looks: Looks) -> None:
    """A model out of a Python package, and one of many files."""
    catalog = Catalog.load(PROFILES)
    for name in ("gemma3-270m", "diffusiongemma-26b-a4b"):
        profile = catalog.resolve(name)
        with pytest.raises(NotImplementedYetError):
            await looks.look(profile, profile.variants[0])
