"""What one sample of all devices costs, with eight workers to look at."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.hardware import Sensors
from tests.bench import machine
from tests.bench.report import Check, Section, spread
from tests.bench.rounds import Samples
from tests.support import sysfs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.hardware import Sensor
    from tests.bench.setting import Setting

WORKERS: Final = 8
DESCRIPTORS: Final = 40
"""Of a worker, beside three for the card: libraries, sockets and event descriptors."""
SAMPLES: Final = 400
BOUND_MS: Final = 5.0
_SLOTS: Final = {"rx-7900-xtx": "0000:03:00.0", "strix-halo": "0000:c5:00.0"}


async def measure(setting: Setting) -> Section:
    """This machine, and machines with GPUs whose files are made up."""
    section = Section(
        title="A sample",
        how=f"All devices, {WORKERS} real processes as workers, {SAMPLES} times in this process. "
        "Their resident sizes and main memory are the kernel's; the files of the GPUs and of the "
        f"workers' descriptors ({DESCRIPTORS + 3} each, three of them the card) are ordinary "
        "files, which cost about as much to open and say nothing of a driver that is slow. "
        f"{machine.describe(threads=setting.threads)[0]}.",
        head=("machine", "median ms", "min – max"),
    )
    with _workers() as pids, tempfile.TemporaryDirectory() as folder:
        here = Sensors.of_this_machine().sensor()
        cases = {"this one": here, "this one, no workers": here}
        for name in _SLOTS:
            root = _machine(name, Path(folder), pids)
            cases[name] = Sensors(root=root).sensor()
        for name, sensor in cases.items():
            ours = {} if name.endswith("no workers") else dict.fromkeys(pids, "gpu0")
            samples = Samples(tuple(_timed(sensor, ours) for _ in range(SAMPLES)))
            section.rows.append((name, *spread(samples, digits=2, scale=1e3)))
            section.checks.append(
                Check(name, samples.median * 1e3, BOUND_MS, at_least=False, unit=" ms")
            )
    return section


@contextlib.contextmanager
def _workers() -> Iterator[list[int]]:
    """Processes that wait until they are let go."""
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            )
            for _ in range(WORKERS)
        ]
        yield [worker.pid for worker in started]
        for worker in started:
            worker.communicate(b"\n")


def _machine(name: str, folder: Path, pids: list[int]) -> Path:
    """A copy of it on which these processes hold memory."""
    root = sysfs.machine(name, folder)
    for pid in pids:
        process = sysfs.Process(root, pid)
        process.open_others(DESCRIPTORS)
        for client in (1, 1, 2):
            process.open_card(_SLOTS[name], {"drm-memory-vram": "1048576 KiB"}, client=client)
    return root


def _timed(sensor: Sensor, ours: dict[int, str]) -> float:
    began = time.perf_counter()
    sensor.read(ours)
    return time.perf_counter() - began
