"""What a machine is read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemd.hardware.amd import AmdGpus
from gemd.hardware.apple import AppleGpu
from gemd.hardware.device_file import DeviceFile
from gemd.hardware.ids import GpuIds
from gemd.hardware.intel import IntelGpus
from gemd.hardware.nvidia import NvidiaGpus, Nvml, load_nvml
from gemd.hardware.power import PowerSensor
from gemd.hardware.process import Residents
from gemd.hardware.ram import RamSensor
from gemd.hardware.sensors import MachineSensor
from gemd.hardware.simulated import SimulatedGpus

if TYPE_CHECKING:
    from gemd.hardware.sensors import GpuSource


@dataclass(frozen=True)
class Sensors:
    """What samples are read from."""

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
        """One for each vendor; the discrete GPUs' first, so that they get the first ids."""
        if self.devices is not None:
            return [SimulatedGpus(self.devices)]
        ids = GpuIds()
        nvidia = [] if self.nvml is None else [NvidiaGpus(self.nvml, ids=ids)]
        return [
            *nvidia,
            AmdGpus(self.root, ids=ids),
            IntelGpus(self.root, ids=ids),
            AppleGpu(ids=ids),
        ]
