"""What the machine is, read at once; and the sensor that goes on reading what changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.hardware.cpu import read_cpu
from gemd.hardware.devices import Cpu, Gpu, Memory
from gemd.hardware.memory import read_memory
from gemd.hardware.nvidia import NvidiaGpus, Nvml, as_gpu, load_nvml, read_gpus
from gemd.hardware.power import PowerSensor
from gemd.hardware.process import Residents
from gemd.hardware.ram import RamSensor
from gemd.hardware.sensors import GpuSource, MachineSensor
from gemd.hardware.simulated import DeviceFile, SimulatedGpus

if TYPE_CHECKING:
    from gemd.hardware.simulated import SimulatedRam

__all__ = ["Cpu", "Gpu", "Inventory", "Memory", "Sensors", "read_inventory"]


@dataclass(frozen=True)
class Inventory:
    """What is in this machine, at one moment."""

    cpu: Cpu
    ram: Memory
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Sensors:
    """What an inventory and samples are read from."""

    root: Path = Path("/")
    """Where /proc and /sys are."""
    nvml: Nvml | None = None
    """The NVIDIA management library's binding; None reads no NVIDIA GPUs."""
    devices: DeviceFile | None = None
    """GPUs that are made up; with them no real one is read."""

    @classmethod
    def of_this_machine(cls, *, devices_file: Path | None = None) -> Sensors:
        """All there are, or those of a device file.

        Raises:
            ConfigError: The device file cannot be used.

        """
        if devices_file is not None:
            return cls(devices=DeviceFile(devices_file))
        return cls(nvml=load_nvml())

    def sensor(self) -> MachineSensor:
        """Takes samples for as long as it lives; keeps drivers open and ids stable."""
        return MachineSensor(
            ram=RamSensor(self.root),
            gpus=self._gpu_sources(),
            power=PowerSensor(self.root),
            residents=Residents(),
            devices=self.devices,
        )

    def _gpu_sources(self) -> list[GpuSource]:
        if self.devices is not None:
            return [SimulatedGpus(self.devices)]
        return [] if self.nvml is None else [NvidiaGpus(self.nvml)]


def read_inventory(sensors: Sensors | None = None) -> Inventory:
    """The machine now; a sensor that fails leaves its part unknown or empty.

    Args:
        sensors: What to read; by default this machine's.

    """
    sensors = sensors or Sensors.of_this_machine()
    made_up = None if sensors.devices is None else sensors.devices.table().ram
    ram = read_memory(sensors.root)
    return Inventory(
        cpu=read_cpu(sensors.root),
        ram=ram if made_up is None else _made_up(ram, made_up),
        gpus=_gpus(sensors),
    )


def _gpus(sensors: Sensors) -> tuple[Gpu, ...]:
    if sensors.devices is not None:
        return tuple(map(as_gpu, SimulatedGpus(sensors.devices).read({}).devices))
    return () if sensors.nvml is None else read_gpus(sensors.nvml)


def _made_up(real: Memory, ram: SimulatedRam) -> Memory:
    total = real.total_bytes if ram.capacity is None else ram.capacity
    return Memory(
        total_bytes=total,
        available_bytes=max(0, total - ram.others),
        cgroup_limit_bytes=None,
    )
