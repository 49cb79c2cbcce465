from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemd.cli.memory import bar, shares
from gemd.client import Device
from gemd.v1 import device_pb2

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Inside

GIB = 2**30
SIZES = st.one_of(st.just(0), st.integers(1, 2**44))


def device(**memory: Any) -> Device:
    """A device with such memory."""
    return Device.of(
        device_pb2.Device(id="gpu0", memory=device_pb2.DeviceMemory(capacity_bytes=16, **memory))
    )


@pytest.mark.parametrize(
    "memory,shown",
    [
        ({"ours_bytes": 4, "others_bytes": 4, "free_bytes": 8}, "####........oooo"),
        (
            {"ours_bytes": 4, "others_bytes": 4, "free_bytes": 8, "margin_bytes": 2},
            "####......::oooo",
        ),
        (
            {"ours_bytes": 2, "reserved_bytes": 3, "free_bytes": 10, "margin_bytes": 4}
            | {"others_bytes": 2, "unknown_bytes": 2},
            "##+++...::::??oo",
        ),
        # What others took of the margin, and what is reserved beyond what is free, is not there.
        (
            {"ours_bytes": 8, "free_bytes": 1, "margin_bytes": 4, "others_bytes": 7},
            "########:ooooooo",
        ),
        (
            {"ours_bytes": 8, "free_bytes": 2, "reserved_bytes": 4, "others_bytes": 6},
            "########++oooooo",
        ),
        # Nobody tells what the rest is.
        ({"free_bytes": 12}, "............????"),
        ({}, "????????????????"),
    ],
)
def test_a_bar_shows_who_holds_what(memory: dict[str, int], shown: str) -> None:
    """Ours from the left, others from the right, the margin at the end of what is free."""
    assert bar(device(**memory), 16) == shown


def test_before_the_first_sample_nothing_is_known() -> None:
    """Not even how much there is."""
    unknown = Device.of(device_pb2.Device(id="cpu"))
    assert bar(unknown, 8) == "????????"


@given(st.lists(SIZES, min_size=1, max_size=6), st.integers(6, 80))
def test_shares_are_fair(sizes: list[int], columns: int) -> None:
    """They fill the columns; nothing that is there is left out, nothing else is shown."""
    counts = shares(sizes, columns)
    assert sum(counts) == (columns if sum(sizes) else 0)
    assert [count > 0 for count in counts] == [size > 0 for size in sizes]
    small = sum(0 < size * columns < sum(sizes) for size in sizes)
    for size, count in zip(sizes, counts, strict=True):
        due = size * columns / max(1, sum(sizes))
        # What is too small for a column of its own takes one from somebody.
        assert -1 - small < count - due < 1 + 1e-6 or count == 1


def test_a_status_is_readable_in_eighty_columns(inside: Inside, daemon: FakeDaemon) -> None:
    """Also with a long name and large figures; without a terminal there is no colour."""
    gpu = device_pb2.Device(
        id="gpu0",
        display_name="NVIDIA GeForce RTX 4090",
        simulated=True,
        memory=device_pb2.DeviceMemory(
            capacity_bytes=1023 * GIB,
            budget_bytes=1023 * GIB,
            margin_bytes=1023 * 2**20,
            ours_bytes=1000 * GIB,
            reserved_bytes=1023 * 2**20,
            others_bytes=1023 * 2**20,
            free_bytes=22 * GIB,
        ),
    )
    daemon.script.devices.insert(0, gpu)
    lines = inside("status").stdout.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("DEVICE"))
    table = lines[header : header + 6]
    assert max(map(len, table)) <= 80
    assert table[1].split()[0] == "gpu0"
    assert table[2].endswith("]  NVIDIA GeForce RTX 4090, simulated")
    assert not any("\x1b" in line for line in lines)


def test_only_the_legend_is_dim_on_a_terminal(inside: Inside, daemon: FakeDaemon) -> None:
    """The header stands out as that of every table does."""
    _, seen = inside.on_terminal("status")
    assert "\x1b[1mDEVICE  CAPACITY" in seen
    assert "\x1b[2m        # ours  + reserved" in seen
    assert "        [#..." in seen
    _, plain = inside.on_terminal("status", NO_COLOR="1")
    assert "\x1b" not in plain
