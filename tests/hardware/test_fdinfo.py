"""What our processes hold of graphics cards, by their descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemd.hardware.fdinfo import LOOK_S, DrmClients, Held
from tests.support.clock import Clock
from tests.support.sysfs import Process, write

SLOT = "0000:03:00.0"
MIB = 2**20


@pytest.mark.parametrize(
    "memory, held",
    [
        ({"drm-memory-vram": "1024 KiB", "drm-resident-vram": "1024 KiB"}, Held(MIB, 0)),
        ({"drm-memory-vram": "1024 KiB", "drm-memory-gtt": "2 MiB"}, Held(MIB, 2 * MIB)),
        ({"drm-resident-vram0": "1 MiB", "drm-resident-vram1": "1 MiB"}, Held(2 * MIB, 0)),
        ({"drm-total-vram0": "1 MiB", "drm-shared-vram0": "1 MiB"}, Held()),
        ({"drm-memory-vram": "1048576"}, Held(MIB, 0)),
        ({"drm-memory-vram": "lots KiB"}, Held()),
        ({"drm-memory-vram": "1 XiB"}, Held()),
        ({}, Held()),
    ],
)
def test_lines_are_read_as_the_kernel_writes_them(
    tmp_path: Path, memory: dict[str, str], held: Held
) -> None:
    """What is resident counts, in the card's memory and in main memory; garbage counts nothing."""
    Process(tmp_path, 7).open_card(SLOT, memory)
    assert DrmClients(tmp_path).read([7]) == {7: {SLOT: held}}


def test_descriptors_are_looked_at_again_when_there_are_others(tmp_path: Path) -> None:
    """A card that is opened counts at once, and one in another's place within seconds."""
    clock = Clock()
    clients = DrmClients(tmp_path, clock=clock)
    process = Process(tmp_path, 7)
    process.open_others(3)
    assert clients.read([7]) == {7: {}}
    number = process.open_card(SLOT, {"drm-memory-vram": "1 MiB"})
    assert clients.read([7]) == {7: {SLOT: Held(MIB)}}
    descriptor = tmp_path / f"proc/7/fd/{number}"
    descriptor.unlink()
    descriptor.symlink_to("/dev/null")
    write(tmp_path, f"proc/7/fdinfo/{number}", "pos:\t0")
    assert clients.read([7]) == {7: {}}
    other = tmp_path / "proc/7/fd/3"
    other.unlink()
    other.symlink_to("/dev/dri/renderD129")
    write(tmp_path, "proc/7/fdinfo/3", f"drm-client-id:\t9\ndrm-pdev:\t{SLOT}\ndrm-memory-vram:\t1")
    assert clients.read([7]) == {7: {}}
    clock.now += LOOK_S
    assert clients.read([7]) == {7: {SLOT: Held(1)}}


def test_who_is_gone_holds_nothing_and_who_hides_is_unknown(tmp_path: Path) -> None:
    """The two are told apart; one that is not reaped yet is gone, although it hides."""
    for pid, state in ((8, "S"), (9, "Z")):
        write(tmp_path, f"proc/{pid}/fd", "not to be listed")
        write(tmp_path, f"proc/{pid}/stat", f"{pid} (a) Z) {state} 1 1 1 0 -1")
    assert DrmClients(tmp_path).read([7, 8, 9]) == {7: {}, 8: None, 9: {}}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_real_process_is_read_until_it_is_reaped() -> None:
    """Between its end and its reaping nothing is hidden."""
    clients = DrmClients(Path("/"))
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert clients.read([process.pid]) == {process.pid: {}}
        process.stdin.write(b"\n")
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert clients.read([process.pid]) == {process.pid: {}}
    assert clients.read([process.pid]) == {process.pid: {}}
