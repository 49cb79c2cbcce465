from __future__ import annotations

import asyncio
import math
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from gemd.notify import (
    STATUS_S,
    Link,
    Said,
    Telling,
    Use,
    due,
    one_line,
    pause,
    status_line,
    take_link,
    telling,
)
from tests.support.app import short_directory, until
from tests.support.clock import Clock
from tests.support.notify_socket import NotifySocket

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30


@dataclass
class FakeLink:
    """Keeps what it is told, while it takes anything."""

    watchdog_s: float | None = None
    takes: bool = True
    told: list[str] = field(default_factory=list)

    def send(self, message: str) -> bool:
        """Keep it."""
        if self.takes:
            self.told.append(message)
        return self.takes


@pytest.mark.parametrize("address", ["/run/x", "@gemd/abstract"])
def test_the_link_is_taken_out_of_the_environment(address: str) -> None:
    """Nobody whom the daemon starts can speak for it."""
    environ = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": "7",
        "HOME": "/home/u",
        "INVOCATION_ID": "a1",
    }
    assert take_link(environ, pid=7) == Link(address, 30.0)
    assert environ == {"HOME": "/home/u", "INVOCATION_ID": "a1"}
    assert take_link(environ, pid=7) is None


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "@"},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/run/x", "SYSTEMD_EXEC_PID": "8"},
    ],
)
def test_what_is_no_link_of_ours_is_none(variables: dict[str, str]) -> None:
    """No address, one that is not understood, and one of the unit that a terminal is in."""
    environ = dict(variables)
    assert take_link(environ, pid=7) is None
    assert "NOTIFY_SOCKET" not in environ


def test_an_inherited_link_is_none() -> None:
    """It goes from the environment all the same."""
    environ = {"NOTIFY_SOCKET": "/run/x"}
    assert take_link(environ, pid=7, ours=False) is None
    assert environ == {}


@pytest.mark.parametrize(
    "interval,watched,expected",
    [
        ("200000", "7", 0.2),
        ("200000", "", 0.2),
        ("200000", "8", None),
        ("0", "7", None),
        ("-1", "7", None),
        ("soon", "7", None),
        ("", "7", None),
        ("9" * 400, "7", None),
        (str(2**64), "7", None),
        (str(2**64 - 1), "7", (2**64 - 1) / 1e6),
    ],
)
def test_the_watchdog_is_for_the_process_that_is_named(
    interval: str, watched: str, expected: float | None
) -> None:
    """And only with an interval."""
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": interval, "WATCHDOG_PID": watched}
    assert take_link(environ, pid=7) == Link("/x", expected)


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_arrives(*, abstract: bool) -> None:
    """Over a socket with a path and one without."""
    with short_directory() as directory:
        address = f"@{directory.name}" if abstract else str(directory / "s")
        with NotifySocket(address) as manager:
            assert Link(address).send("READY=1\nSTATUS=…")
            assert manager.next() == ["READY=1", "STATUS=…"]


def test_a_manager_that_does_not_take_it_stops_nobody() -> None:
    """Gone, or full: the answer comes at once and is no."""
    with short_directory() as directory:
        address = str(directory / "s")
        assert not Link(address).send("READY=1")
        with NotifySocket(address) as manager:
            while Link(address).send("WATCHDOG=1"):
                pass
            assert manager.next() == ["WATCHDOG=1"]


def test_ready_and_the_first_line_come_at_once_and_once() -> None:
    """The line comes again when it has changed, after some seconds; the same one never."""
    message, said = due(Said(), 100.0, status="a", watchdog_s=None)
    assert message == "READY=1\nSTATUS=a"
    assert due(said, 200.0, status="a", watchdog_s=None) == ("", said)
    early = due(said, 100.0 + STATUS_S - 0.1, status="b", watchdog_s=None)
    assert early == ("", said)
    message, said = due(said, 100.0 + STATUS_S, status="b", watchdog_s=None)
    assert message == "STATUS=b"


def test_a_sign_of_life_comes_after_half_of_the_interval() -> None:
    """Not before; and the pause ends then, or where a line could be due."""
    message, said = due(Said(), 100.0, status="", watchdog_s=6.0)
    assert message == "READY=1\nWATCHDOG=1"
    assert pause(said, 100.0, watchdog_s=6.0) == 3.0
    assert due(said, 102.9, status="", watchdog_s=6.0) == ("", said)
    assert math.isclose(pause(said, 102.9, watchdog_s=6.0), 0.1)
    assert due(said, 103.0, status="", watchdog_s=6.0)[0] == "WATCHDOG=1"
    assert pause(said, 100.0, watchdog_s=60.0) == STATUS_S
    assert pause(said, 100.0, watchdog_s=None) == STATUS_S


def test_what_was_not_taken_is_said_again_and_not_in_a_hurry() -> None:
    """READY above all, which a manager waits for."""
    clock, link = Clock(), FakeLink(takes=False)
    teller = Telling(link, status=lambda: "a", now=clock)
    teller.say(link)
    assert link.told == []
    link.takes = True
    teller.say(link)
    assert link.told == ["READY=1\nSTATUS=a"]
    for watchdog_s in (None, 60.0):
        assert pause(Said(), clock.now, watchdog_s=watchdog_s) == 1.0
    assert pause(Said(), clock.now, watchdog_s=0.2) == 0.1


def test_signs_of_life_go_on_while_the_daemon_ends() -> None:
    """What was said of the end stays the last line."""
    clock, link = Clock(), FakeLink(watchdog_s=4.0)
    lines = iter("abc")
    teller = Telling(link, status=lambda: next(lines), now=clock)
    teller.say(link)
    teller.end()
    clock.now += 10
    teller.say(link)
    first, end, last = link.told
    assert first == "READY=1\nSTATUS=a\nWATCHDOG=1"
    assert end.startswith("STOPPING=1\nSTATUS=ending")
    assert last == "WATCHDOG=1"


def test_a_line_that_cannot_be_made_silences_nothing() -> None:
    """The watchdog would end the daemon for it."""
    clock, link = Clock(), FakeLink(watchdog_s=4.0)

    def fail() -> str:
        raise RuntimeError

    teller = Telling(link, status=fail, now=clock)
    teller.say(link)
    clock.now += 2
    teller.say(link)
    assert link.told == ["READY=1\nWATCHDOG=1", "WATCHDOG=1"]


async def test_it_tells_while_it_is_entered() -> None:
    """From the loop, again and again, and never after it."""
    link = FakeLink(watchdog_s=0.02)
    async with telling(link, status=lambda: "a"):
        await until(lambda: len(link.told) >= 3)
    count = len(link.told)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "notify"]
    assert link.told[1:] == ["WATCHDOG=1"] * (count - 1)


async def test_without_a_manager_nothing_happens() -> None:
    """Nobody is asked for a line, either."""

    def fail() -> str:
        raise AssertionError

    async with telling(None, status=fail) as teller:
        await asyncio.sleep(0)
        teller.end()


def test_the_line_names_models_and_memory() -> None:
    """Warm ones first, then those that come, then each device."""
    assert status_line([], [], []) == "no model is warm"
    assert status_line(
        ["a", "b"], ["c"], [Use("cpu", GIB, 8 * GIB), Use("gpu-0", 0, 24 * GIB)]
    ) == ("2 warm: a, b; loading c; cpu 1.0 GiB of 8.0 GiB; gpu-0 0 B of 24.0 GiB")


def test_a_name_cannot_begin_a_message_of_its_own() -> None:
    """Nor can one of bytes that are no text keep the line from being sent, nor be endless."""
    line = status_line(["/home/u/a\nSTOPPING=1\udcff.gguf"], [], [])
    assert line == "1 warm: /home/u/a?STOPPING=1?.gguf"
    assert len(one_line("x" * 1000).encode()) < 500


def test_no_file_of_a_manager_is_touched(tmp_path: Path) -> None:
    """What lies at the address and is no socket stays as it is."""
    path = tmp_path / "file"
    path.write_text("mine", encoding="utf-8")
    assert not Link(str(path)).send("READY=1")
    assert path.read_text(encoding="utf-8") == "mine"
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
