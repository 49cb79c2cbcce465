"""What is in this machine: one inventory that every vendor's file fills.

Nothing here starts a process or opens a GPU context.
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
from gemd.hardware.process import process_rss_bytes

__all__ = [
    "Cpu",
    "Gpu",
    "Inventory",
    "Memory",
    "Sensors",
    "physical_cores",
    "process_rss_bytes",
    "read_inventory",
]
