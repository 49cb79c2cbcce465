"""What is in this machine, and how much of each memory is whose.

One sample that every vendor's file fills. Nothing here starts a process or
opens a GPU context.
"""

from __future__ import annotations

from gemd.hardware.cpu import Cpu, physical_cores, read_cpu
from gemd.hardware.device_format import DeviceTable
from gemd.hardware.device_profiles import device_profile, device_profiles
from gemd.hardware.inventories import inventory_of, inventory_of_table
from gemd.hardware.inventory import Gpu, Inventory, Processor
from gemd.hardware.machine import Sensors
from gemd.hardware.margins import default_margin
from gemd.hardware.process import process_rss_bytes
from gemd.hardware.readings import RAM, DeviceKind, DeviceReading, Sample, SensorBlindError
from gemd.hardware.sampler import Blind, Report, Resumed, Sampler
from gemd.hardware.sensors import Sensor

__all__ = [
    "RAM",
    "Blind",
    "Cpu",
    "DeviceKind",
    "DeviceReading",
    "DeviceTable",
    "Gpu",
    "Inventory",
    "Processor",
    "Report",
    "Resumed",
    "Sample",
    "Sampler",
    "Sensor",
    "SensorBlindError",
    "Sensors",
    "default_margin",
    "device_profile",
    "device_profiles",
    "inventory_of",
    "inventory_of_table",
    "physical_cores",
    "process_rss_bytes",
    "read_cpu",
]
