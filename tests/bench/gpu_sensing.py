"""``python -m tests.bench.gpu_sensing``: what gemd sees of a real NVIDIA GPU, and what it costs.

Another process allocates a known size through torch; the sensor is told that this is a worker, and
then that it is not. Needs torch and a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemd.hardware import Sensors
from tests.bench.report import Check, Section, spread
from tests.bench.rounds import Samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gemd.hardware.readings import DeviceReading
    from gemd.hardware.sensors import Sensor

MIB: Final = 1 << 20
SIZES_MIB: Final = (1024, 8192, 32768)
SAMPLES: Final = 400
BOUND_MS: Final = 5.0
BOUND_MIB: Final = 64.0
"""Beside an allocation: what the allocator rounds up, and what libraries take when first used."""
_HOLDER: Final = """
import sys, torch
torch.zeros(1, device="cuda")
print("ready", flush=True)
kept = []
for line in sys.stdin:
    kept.append(torch.zeros(int(line) << 20, dtype=torch.uint8, device="cuda"))
    torch.cuda.synchronize()
    print("done", flush=True)
"""


def main() -> int:
    """Measure and write; 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Markdown")
    out = parser.parse_args().out
    sensor = Sensors.of_this_machine().sensor()
    sections = [*_split(sensor), _cost(sensor)]
    first = _gpu(sensor, {})
    title = f"{first.name}, driver {first.driver_version}, Python {platform.python_version()}"
    text = "\n".join([f"# What is seen of a GPU\n\n- {title}\n", *(one.text() for one in sections)])
    sys.stdout.write(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    return 0 if all(check.holds for one in sections for check in one.checks) else 1


def _gpu(sensor: Sensor, workers: dict[int, str]) -> DeviceReading:
    return next(one for one in sensor.read(workers).devices if one.vendor == "nvidia")


@contextlib.contextmanager
def _holder() -> Iterator[subprocess.Popen[str]]:
    """A process with a context on the GPU, which takes so many MiB for each line that it reads."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


def _split(sensor: Sensor) -> Iterator[Section]:
    section = Section(
        "Whose memory it is",
        "Another process allocates through torch. MiB on the GPU, as the sensor splits them when "
        "it is told that the process is a worker, and when it is not told.",
        ("allocated", "ours", "others", "unknown", "free", "not told: ours", "others"),
    )
    before = _gpu(sensor, {})
    with _holder() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        context = _ours(_gpu(sensor, {process.pid: "gpu0"}))
        total = 0
        for more in (0, *SIZES_MIB):
            if more:
                if (total + more) * MIB > 0.9 * _rest(before)[2]:
                    break
                process.stdin.write(f"{more}\n")
                process.stdin.flush()
                assert process.stdout.readline() == "done\n"
                total += more
            told, not_told = _gpu(sensor, {process.pid: "gpu0"}), _gpu(sensor, {})
            ours = _ours(told)
            others, unknown, free = _rest(told)
            section.rows.append(
                tuple(
                    f"{size / MIB:.0f}"
                    for size in (
                        total * MIB,
                        ours,
                        others,
                        unknown,
                        free,
                        _ours(not_told),
                        _rest(not_told)[0],
                    )
                )
            )
            off = abs(ours - context - total * MIB) / MIB
            claim = f"{total} MiB allocated: ours beyond the context is off by"
            section.checks.append(Check(claim, off, BOUND_MIB, at_least=False, unit=" MiB"))
            away = abs(ours + others + unknown + free - told.capacity_bytes) / MIB
            claim = f"{total} MiB allocated: the parts and the card's size differ by"
            section.checks.append(Check(claim, away, 0.0, at_least=False, unit=" MiB"))
    yield section


def _ours(reading: DeviceReading) -> int:
    """What workers hold; bytes."""
    return sum((reading.processes or {}).values())


def _rest(reading: DeviceReading) -> tuple[int, int, int]:
    """What others hold, what nobody knows of, and what is free; bytes."""
    return reading.others_bytes or 0, reading.unknown_bytes or 0, reading.free_bytes or 0


def _cost(sensor: Sensor) -> Section:
    section = Section(
        "A sample with a real driver", f"{SAMPLES} times, ms.", ("", "median ms", "min - max")
    )
    with _holder() as process:
        cases: dict[str, dict[int, str]] = {"no workers": {}, "one worker": {process.pid: "gpu0"}}
        for name, workers in cases.items():
            taken = []
            for _ in range(SAMPLES):
                begun = time.perf_counter()
                sensor.read(workers)
                taken.append(time.perf_counter() - begun)
            samples = Samples(tuple(taken))
            section.rows.append((name, *spread(samples, digits=2, scale=1e3)))
            section.checks.append(
                Check(name, samples.median * 1e3, BOUND_MS, at_least=False, unit=" ms")
            )
    return section


if __name__ == "__main__":
    raise SystemExit(main())
