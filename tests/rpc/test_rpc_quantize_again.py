"""A variant that is asked for again: when it is the one that is there, and when it is made anew."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from gemd.errors import BadModelFileError
from gemd.rpc.quantize_work import Work
from gemd.store.layout import Layout
from gemd.store.locks import exclusive
from tests.support.app import until
from tests.support.quantizing import FILE, digest, shop
from tests.support.unquantized import DENSE, write_model

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.quantizing import Shop


@pytest.fixture(scope="module", name="weights")
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine megabytes of BF16 in the shape of a Gemma 4."""
    return write_model(tmp_path_factory.mktemp("weights") / FILE, DENSE)


@pytest.fixture(name="own")
def _own(weights: Path, tmp_path: Path) -> Path:
    """A file of the user's, which the test may change."""
    path = tmp_path / FILE
    shutil.copy(weights, path)
    return path


def file_of(one: Shop) -> Path:
    """The result."""
    manifest = one.manifest("tiny-bf16", "q8_0-local")
    assert manifest is not None
    return manifest.file(one.store.root)


def touch(path: Path) -> None:
    """The same weights, written just now."""
    path.touch()


def change(path: Path) -> None:
    """Other weights, of the same size."""
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(2048))


async def test_a_rejected_one_is_made_anew(own: Path, tmp_path: Path) -> None:
    """And is not taken for good because it is there."""
    async with shop(tmp_path) as one:
        await one.made(own, "Q8_0")
        file = file_of(one)
        good = digest(file)
        change(file)
        entry = one.store.entry("tiny-bf16", "q8_0-local")
        assert entry is not None
        one.store.record(entry.manifest.model_copy(update={"rejection": "sha256: it has rotted"}))
        await one.made(own, "Q8_0")
        entry = one.store.entry("tiny-bf16", "q8_0-local")
        assert entry is not None
        assert not entry.manifest.rejection
        assert digest(file_of(one)) == good


async def test_one_without_a_manifest_is_read_before_it_is_taken(own: Path, tmp_path: Path) -> None:
    """It may have lain there for long."""
    async with shop(tmp_path) as one:
        await one.made(own, "Q8_0")
        file = file_of(one)
        good = digest(file)
        change(file)
        for each in (one.store.root / "manifests").glob("*/*.json"):
            each.unlink()
        await one.made(own, "Q8_0")
        assert digest(file_of(one)) == good


async def test_a_source_with_other_weights_gives_another_one(own: Path, tmp_path: Path) -> None:
    """Under the same name; one that was only touched gives the one that is there."""
    async with shop(tmp_path) as one:
        await one.made(own, "Q8_0")
        before = file_of(one).stat().st_ino, digest(file_of(one))
        touch(own)
        await one.made(own, "Q8_0")
        assert (file_of(one).stat().st_ino, digest(file_of(one))) == before
        change(own)
        await one.made(own, "Q8_0")
        assert digest(file_of(one)) != before[1]


async def test_a_source_that_changes_before_the_work_begins_is_refused(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash would be noted as the origin of what was made of other bytes."""
    sealed = Work._sealed

    def changing(self: Work, *arguments: object) -> object:
        change(own)
        return sealed(self, *arguments)  # type: ignore[arg-type] # whatever it takes

    async with shop(tmp_path) as one:
        with monkeypatch.context() as patch:
            patch.setattr(Work, "_sealed", changing)
            with pytest.raises(BadModelFileError, match="another model meanwhile"):
                await one.made(own, "Q8_0")
        assert one.manifest("tiny-bf16", "q8_0-local") is None
        await one.made(own, "Q8_0")
        provenance = file_of(one).with_name("provenance.json").read_text()
        assert digest(own) in provenance


async def test_two_daemons_with_one_store_take_turns(weights: Path, tmp_path: Path) -> None:
    """The second waits for the first, says so, and finds what that has made."""
    async with shop(tmp_path / "one") as one, shop(tmp_path / "one") as two:
        lock = Layout(one.store.root).variant_lock("tiny-bf16", "q8_0-local")
        Layout(one.store.root).make()
        async with exclusive(lock, lambda: None):
            second = asyncio.create_task(two.made(weights, "q8_0"))
            await until(lambda: any("another gemd" in each.progress.message for each in two.seen))
            assert not (one.store.root / "work").exists()
        made = await second
        again = await one.made(weights, "q8_0")
    assert (made.variant, again.size_bytes) == ("q8_0-local", made.size_bytes)
    assert not any(each.progress.phase == "quantizing" for each in one.seen)
