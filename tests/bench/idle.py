"""What the daemon costs while nobody asks it anything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from gemd.client import AsyncClient, GenerationOptions, Sampling
from tests.bench import machine
from tests.bench.daemon import daemon_of
from tests.bench.report import Check, Section

if TYPE_CHECKING:
    from tests.bench.setting import Setting

SETTLE_SECONDS = 3.0
WATCH_SECONDS = 20.0
_MB = 1e6


async def measure(setting: Setting) -> Section:
    """A daemon that was just started, and one whose model is warm."""
    section = Section(
        title="Idle daemon",
        how=f"Looked at for {WATCH_SECONDS:.0f} s of idleness; memory is the resident size of "
        "the daemon's process alone (1 MB = 10^6 bytes). "
        f"{machine.describe(threads=setting.threads)[0]}.",
        head=("daemon", "MB resident", "% of a core", "open /dev/nvidia*, /dev/dri, /dev/kfd"),
    )
    async with daemon_of(setting) as daemon:
        await _watch(section, "just started", daemon.pid)
        async with AsyncClient(daemon.socket) as client:
            options = GenerationOptions(
                model=str(setting.model), sampling=Sampling(temperature=0, max_tokens=16)
            )
            await client.generate("1, 2, 3, ", options).text()
        await _watch(section, "with a warm model, after an answer", daemon.pid)
    return section


async def _watch(section: Section, state: str, pid: int) -> None:
    await asyncio.sleep(SETTLE_SECONDS)
    began, before = time.monotonic(), _cpu_seconds(pid)
    await asyncio.sleep(WATCH_SECONDS)
    share = (_cpu_seconds(pid) - before) / (time.monotonic() - began)
    resident = psutil.Process(pid).memory_info().rss
    devices = _gpu_devices(pid)
    section.rows.append(
        (state, f"{resident / _MB:.1f}", f"{share:.3%}", ", ".join(devices) or "none")
    )
    section.checks += [
        Check(f"resident, {state}", resident / _MB, 80, at_least=False, unit=" MB", digits=1),
        Check(f"of a core, {state}", share * 100, 0.5, at_least=False, unit=" %"),
        Check(f"GPU devices open, {state}", len(devices), 0, at_least=False, digits=0),
    ]


def _cpu_seconds(pid: int) -> float:
    """CPU time of all threads; to the nanosecond where the kernel says it, else to the tick."""
    try:
        spent = [
            int(file.read_text(encoding="ascii").split()[0])
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat")
        ]
    except OSError:
        spent = []
    if spent:
        return sum(spent) / 1e9
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _gpu_devices(pid: int) -> list[str]:
    """Device files of GPUs that the process has open or mapped."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        # A descriptor may be closed while we look.
        with contextlib.suppress(OSError):
            found.add(str(descriptor.readlink()))
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        found |= {line.split(maxsplit=5)[-1] for line in maps.splitlines()}
    return sorted(
        name for name in found if name.startswith(("/dev/nvidia", "/dev/dri/", "/dev/kfd"))
    )
