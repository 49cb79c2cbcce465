"""On what the figures were measured: no host names, no paths."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import time
from pathlib import Path

import psutil

import gemd

PACKAGES = ("llama-cpp-python", "grpcio", "protobuf", "pydantic", "numpy")


def describe(*, threads: int) -> list[str]:
    """Lines about machine, versions and date."""
    gib = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    # The bench stamps the day, which readers in any zone understand alike.
    today = dt.datetime.now(tz=dt.UTC).date()
    return [
        (
            f"{_cpu_name()}, {psutil.cpu_count(logical=False)} cores, {gib:.0f} GiB RAM, "
            f"{platform.system()} {platform.release()}"
        ),
        f"gemd {gemd.__version__}, Python {platform.python_version()}, {versions}",
        f"{threads} threads for every contender; {today.isoformat()}",
    ]


def signature(how: str, *, threads: int) -> str:
    """What a section that is recorded alone says of its run: the file's head is of another one.

    Args:
        how: What it says already; some name the machine themselves.
        threads: Of every contender.

    """
    machine, _, contenders = describe(threads=threads)
    parts = [contenders] if machine in how else [machine, contenders]
    return f" Measured alone: {'; '.join(parts)}."


def quiet(seconds: float) -> str:
    """How busy the machine was with other things, looked at for `seconds`."""
    before = psutil.cpu_times()
    time.sleep(seconds)
    after = psutil.cpu_times()
    spent = {name: getattr(after, name) - getattr(before, name) for name in after._fields}
    # These two are contained in user and nice.
    total = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
    idle = spent["idle"] + spent.get("iowait", 0.0)
    return f"other programs used {(total - idle) / total:.1%} of the machine before the run"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
