"""Reads the whole machine at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gemd.hardware.cpu import read_cpu
from gemd.hardware.devices import Cpu, Gpu, Memory
from gemd.hardware.memory import read_memory
from gemd.hardware.nvidia import Nvml, load_nvml, read_gpus

__all__ = ["Cpu", "Gpu", "Inventory", "Memory", "Sensors", "read_inventory"]


@dataclass(frozen=True)
class Inventory:
    """What is in this machine, at one moment."""

    cpu: Cpu
    ram: Memory
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Sensors:
    """What an inventory is read from."""

    root: Path = Path("/")
    """Where /proc and /sys are."""
    nvml: Nvml | None = None
    """The NVIDIA management library's binding; None reads no NVIDIA GPUs."""

    @classmethod
    def of_this_machine(cls) -> Sensors:
        """All there are."""
        return cls(nvml=load_nvml())


def read_inventory(sensors: Sensors | None = None) -> Inventory:
    """The machine now; a sensor that fails leaves its part unknown or empty.

    Args:
        sensors: What to read; by default this machine's.

    """
    sensors = sensors or Sensors.of_this_machine()
    return Inventory(
        cpu=read_cpu(sensors.root),
        ram=read_memory(sensors.root),
        gpus=() if sensors.nvml is None else read_gpus(sensors.nvml),
    )
