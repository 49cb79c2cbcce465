"""Members of wheels that are not what they should be."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemd.catalog import PackagePart
from gemd.errors import ContentMismatchError
from gemd.store.disk import CHUNK_BYTES
from gemd.store.threads import Stop
from gemd.store.unpack import Place, write_member
from tests.support.package_index import make_wheel
from tests.support.stores import content

if TYPE_CHECKING:
    from pathlib import Path

DATA = content(3000)
MEMBER = "tiny/data.bin"
WHEEL = make_wheel("tiny", "1.0", {MEMBER: DATA})


def _unpack(folder: Path, wheel: bytes, data: bytes = DATA) -> Path:
    """Writes the member that should hold `data`; the file it went to."""
    file = folder / "tiny.whl"
    file.write_bytes(wheel)
    part = PackagePart(
        package="tiny",
        version="1.0",
        wheel="tiny-1.0-py3-none-any.whl",
        wheel_sha256="0" * 64,
        wheel_size_bytes=len(wheel),
        member=MEMBER,
        member_sha256=hashlib.sha256(data).hexdigest(),
        member_size_bytes=len(data),
    )
    target = folder / "target"
    write_member(file, part, Place(target, 0), Stop())
    return target


def test_the_member_is_written(tmp_path: Path) -> None:
    """And nothing else of the wheel."""
    assert _unpack(tmp_path, WHEEL).read_bytes() == DATA
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target", "tiny.whl"]


def test_a_member_that_unpacks_to_more_stops_there(tmp_path: Path) -> None:
    """A small wheel that would fill the disk is given up at the promised size."""
    bomb = make_wheel("tiny", "1.0", {MEMBER: bytes(50_000_000)})
    assert len(bomb) < 100_000
    with pytest.raises(ContentMismatchError):
        _unpack(tmp_path, bomb)
    assert (tmp_path / "target").stat().st_size <= len(DATA) + CHUNK_BYTES


def _entry() -> int:
    """Where the member's entry in the wheel's directory begins."""
    return WHEEL.index(b"PK\x01\x02")


@pytest.mark.parametrize(
    "offset, change",
    [(8, b"\x01"), (10, b"\x63"), (42, b"\xff\xff\xff\x7f"), (46, b"\xff")],
    ids=["encrypted", "method", "place", "name"],
)
def test_a_broken_directory_is_told(tmp_path: Path, offset: int, change: bytes) -> None:
    """Each with the wheel's name, and the reason where there is one."""
    at = _entry() + offset
    with pytest.raises(ContentMismatchError, match=r"tiny-1\.0"):
        _unpack(tmp_path, WHEEL[:at] + change + WHEEL[at + len(change) :])


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(-700, 60), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3
    ),
    end=st.integers(-300, 0),
)
def test_no_archive_raises_anything_else(
    tmp_path: Path, changes: list[tuple[int, bytes]], end: int
) -> None:
    """Whatever is changed or cut off, the member is right or refused."""
    wheel = bytearray(WHEEL)
    for at, change in changes:
        place = at % len(wheel)
        wheel[place : place + len(change)] = change
    with contextlib.suppress(ContentMismatchError):
        assert _unpack(tmp_path, bytes(wheel[: len(wheel) + end])).read_bytes() == DATA
