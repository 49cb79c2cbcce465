"""What is in this machine, and how much of each memory is whose.

One sample that every vendor's file fills. Nothing here starts a process or
opens a GPU context.
"""

from __future__ import annotations

from gemd.hardware.cpu import Cpu, physical_cores, read_cpu
from gemd.hardware.machine import Sensors
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
    "read_cpu",
]
