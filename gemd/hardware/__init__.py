"""What is in this machine, and how much of each memory is whose.

One inventory and one sample that every vendor's file fills. Nothing here starts a process or
opens a GPU context.
"""

from __future__ import annotations

from gemd.hardware.cpu import physical_cores
from gemd.hardware.inventory import (
    Cpu,
    Gpu,
    Inventory,
    Memory,
    Sensors,
    read_inventory,
)
from gemd.hardware.margins import default_margin
from gemd.hardware.process import process_rss_bytes
from gemd.hardware.readings import RAM, DeviceKind, DeviceReading, Sample, SensorBlindError
from gemd.hardware.sampler import Blind, Report, Resumed, Sampler
from gemd.hardware.sensors import Sensor
from gemd.hardware.simulated import DeviceTable

__all__ = [
    "RAM",
    "Blind",
    "Cpu",
    "DeviceKind",
    "DeviceReading",
    "DeviceTable",
    "Gpu",
    "Inventory",
    "Memory",
    "Report",
    "Resumed",
    "Sample",
    "Sampler",
    "Sensor",
    "SensorBlindError",
    "Sensors",
    "default_margin",
    "physical_cores",
    "process_rss_bytes",
    "read_inventory",
]
